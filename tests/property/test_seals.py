"""The law of security.seal: who verifies a seal reads what was sealed, and any other members are refused."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from modelyard.errors import SealInvalid
from modelyard.security.seal import LocalSigner, Trust, seal, verify_key
from modelyard.types import Digest

DIGESTS = st.binary(min_size=32, max_size=32).map(lambda data: Digest(f"sha256:{data.hex()}"))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
MEMBERS = st.dictionaries(NAMES, DIGESTS, min_size=1, max_size=6)


@given(DIGESTS, MEMBERS, MEMBERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_seal_states_what_was_sealed(
    signer: LocalSigner, trust: Trust, subject: Digest, members: dict[str, Digest], others: dict[str, Digest]
) -> None:
    made = seal(signer, subject=subject, members=members)
    stated = verify_key(made, signer.public_pem)
    assert (stated.subject, stated.members) == (subject, members)
    assert trust.verify(made, subject=subject, members=members) == signer.key_id
    assume(members != others)
    try:
        trust.verify(made, subject=subject, members=others)
    except SealInvalid:
        return
    raise AssertionError("other members were believed")
