"""The seal gate: what was sealed and trusted when it was registered may no longer be."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import bundle
from modelyard.bundle import archive
from modelyard.gates.base import Candidate
from modelyard.gates.seal import Seal
from modelyard.security.seal import Trust
from modelyard.types import Placement
from serving import Home


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    """A bundle of another home, imported into one that trusts it."""
    there = Home(tmp_path / "there")
    there.add("line")
    version = there.registry.resolve("line")
    archive.export(there.registry.blobs, version.index, tmp_path / "line.tar")
    here = Home(tmp_path / "here")
    trust = Trust(tmp_path / "here" / "keys")
    trust.add((tmp_path / "there" / "keys" / "signing.pub").read_bytes())
    source = archive.source(tmp_path / "line.tar")
    added = here.registry.add("line", bundle.collect(source, source.index))
    opened = bundle.open(here.registry.blobs, added.index, trust=trust)
    return Candidate(bundle=opened, placement=Placement(blobs=str(tmp_path / "here" / "blobs"), index=added.index), keys=tmp_path / "here" / "keys")


def test_what_is_sealed_and_trusted_passes_and_names_its_signer(candidate: Candidate) -> None:
    verdict = Seal().judge(candidate)
    assert verdict.outcome == "pass" and candidate.bundle.signer[:16] in verdict.evidence


def test_a_signer_that_is_trusted_no_longer_fails(candidate: Candidate) -> None:
    Trust(candidate.keys).remove(candidate.bundle.signer)
    verdict = Seal().judge(candidate)
    assert verdict.outcome == "fail" and "does not trust" in verdict.evidence


def test_a_byte_that_changed_on_disk_fails(candidate: Candidate) -> None:
    member = next(member for member in candidate.bundle.members if member.role == "card")
    blob = Path(candidate.placement.blobs) / "sha256" / member.digest.removeprefix("sha256:")
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes().replace(b"line", b"mine"))
    verdict = Seal().judge(candidate)
    assert verdict.outcome == "fail" and "card.json" in verdict.evidence


def test_a_bundle_that_is_gone_fails(candidate: Candidate) -> None:
    for blob in (Path(candidate.placement.blobs) / "sha256").iterdir():
        blob.unlink()
    assert Seal().judge(candidate).outcome == "fail"
