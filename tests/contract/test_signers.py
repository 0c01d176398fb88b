"""What every Signer and Verifier keeps: a seal by the one is believed by the other for exactly what was sealed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from modelyard.errors import SealInvalid, UntrustedSigner
from modelyard.security.base import Signer, Verifier
from modelyard.security.seal import Trust, load_public, local_signer, seal
from modelyard.types import Digest

SUBJECT, MEMBERS = Digest("sha256:" + "ef" * 32), {"a": Digest("sha256:" + "ab" * 32)}


@pytest.fixture(params=["local"])
def pair(tmp_path: Path) -> tuple[Signer, Verifier, bytes]:
    """A signer, a verifier that trusts it, and its public key in PEM."""
    signer = local_signer(tmp_path)
    return signer, Trust(tmp_path), signer.public_pem


def test_a_key_id_is_the_hash_of_the_public_key(pair: tuple[Signer, Verifier, bytes]) -> None:
    signer, _, pem = pair
    assert signer.key_id == hashlib.sha256(pem).hexdigest()


def test_a_signature_is_ecdsa_with_sha384_over_the_message(pair: tuple[Signer, Verifier, bytes]) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA384

    signer, _, pem = pair
    signature = signer.sign(b"message")
    load_public(pem).verify(signature, b"message", ECDSA(SHA384()))
    with pytest.raises(InvalidSignature):
        load_public(pem).verify(signature, b"another", ECDSA(SHA384()))


def test_a_seal_is_believed_for_what_was_sealed_and_nothing_else(pair: tuple[Signer, Verifier, bytes], tmp_path: Path) -> None:
    signer, verifier, _ = pair
    made = seal(signer, subject=SUBJECT, members=MEMBERS)
    assert verifier.verify(made, subject=SUBJECT, members=MEMBERS) == signer.key_id
    for subject, members in ((Digest("sha256:" + "00" * 32), MEMBERS), (SUBJECT, {"b": MEMBERS["a"]}), (SUBJECT, {})):
        with pytest.raises(SealInvalid):
            verifier.verify(made, subject=subject, members=members)
    stranger = seal(local_signer(tmp_path / "stranger"), subject=SUBJECT, members=MEMBERS)
    with pytest.raises(UntrustedSigner):
        verifier.verify(stranger, subject=SUBJECT, members=MEMBERS)
