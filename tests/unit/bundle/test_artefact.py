"""bundle.artefact: an opened bundle shows its members and nothing more."""

from __future__ import annotations

import pytest

from modelyard.bundle import Built, manifest
from modelyard.bundle import open as open_bundle
from modelyard.errors import NotFound
from modelyard.security.seal import Trust
from modelyard.types import Digest, Tolerance


class Blobs:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        return self.blobs[digest]

    def listing(self) -> frozenset[Digest]:
        return frozenset(self.blobs)


def test_a_bundle_shows_its_members_by_role(built: Built, trust: Trust) -> None:
    bundle = open_bundle(Blobs(built.blobs), built.index, trust=trust)
    assert (bundle.digest, bundle.index, bundle.name, bundle.tolerance) == (built.digest, built.index, "churn", Tolerance())
    assert [member.role for member in bundle.members] == [*manifest.ROLES, *manifest.ATTESTED_ROLES]
    assert all(len(bundle.read(member.role)) == member.size_bytes for member in bundle.members)
    assert bundle.read("model") == b"a model"
    assert bundle.attestation["platform"]["cpu"] == "some" and bundle.attestation["parity"]["rows"] == 100
    assert bundle.golden.inputs["city"].tolist() == [["x"], [None], ["é"]]
    assert bundle.golden.outputs["prediction"].tolist() == [1.5, -2.0, 3.25]
    assert repr(bundle) == f"Bundle('churn', {built.digest})"
    with pytest.raises(NotFound, match="no member 'weights'"):
        bundle.read("weights")
