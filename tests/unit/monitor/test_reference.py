"""monitor.reference: what a bundle tells of what live data is held against, also an older one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from estimating import TWO, bins, learnt, rows

from modelyard.bundle import Attested, Bundle, Contents, build
from modelyard.bundle import open as open_bundle
from modelyard.errors import MalformedPayload
from modelyard.monitor import reference
from modelyard.monitor.profile import Profile
from modelyard.security.seal import LocalSigner, Trust


class Blobs(dict):  # type: ignore[type-arg]
    def read(self, digest: str, *, limit_bytes: int) -> bytes:
        return self[digest]

    def listing(self) -> frozenset[str]:
        return frozenset(self)


@pytest.fixture
def made(contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner, trust: Trust) -> Callable[..., Bundle]:
    given = rows(TWO, 1_000)
    known = bins(TWO, given)
    inputs, outputs = (Profile(features=tuple(each for each in known.features if each.role == role)) for role in ("input", "output"))

    def make(performance: object) -> Bundle:
        card = msgspec.structs.replace(contents().card, quality={"mae": 7.0})
        built = build(contents(profile=inputs, card=card), attested(profile=outputs, performance=performance), signer=signer)
        return open_bundle(Blobs(built.blobs), built.index, trust=trust)

    return make


def test_all_that_was_learnt_comes_back(made: Callable[..., Bundle]) -> None:
    taught = learnt(TWO, rows(TWO, 1_000))
    bundle = made(taught)
    found = reference.read(bundle)
    assert found.learnt == taught and found.quality == taught.quality and found.importance == taught.importance
    assert found.digest == bundle.digest and found.profile == bins(TWO, rows(TWO, 1_000))


def test_an_older_bundle_tells_what_it_has(made: Callable[..., Bundle]) -> None:
    found = reference.read(made(None))
    assert found.learnt is None and found.importance == {} and found.quality == {"mae": 7.0} and found.profile.features


def test_a_form_that_this_release_does_not_read_is_named(made: Callable[..., Bundle]) -> None:
    with pytest.raises(MalformedPayload, match="not in a form of this release"):
        reference.read(made({"importance": "much"}))


def test_what_was_learnt_is_attested_not_under_the_digest(made: Callable[..., Bundle]) -> None:
    assert made(None).digest == made({"importance": {"age": 1.0}}).digest
    assert made(None).index != made({"importance": {"age": 1.0}}).index
