"""Every gate: one verdict of its own rule for any candidate, the same when asked again, and nothing changed by asking."""

from __future__ import annotations

import pytest

from modelyard import bundle, gates
from modelyard.errors import Rejected
from modelyard.gates.base import Candidate
from modelyard.security.seal import Trust
from modelyard.types import Placement, Verdict
from serving import Home


@pytest.fixture(scope="module", params=["good", "wrong answers", "spoilt", "gone"])
def candidate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A candidate, good or bad."""
    folder = tmp_path_factory.mktemp("gates")
    home = Home(folder)
    home.add("line", wrong_answers=request.param == "wrong answers")
    version = home.registry.resolve("line")
    opened = bundle.open(home.registry.blobs, version.index, trust=Trust(folder / "keys"))
    for blob in (folder / "blobs" / "sha256").iterdir():
        if request.param == "spoilt":
            blob.chmod(0o600)
            blob.write_bytes(blob.read_bytes()[:-1])
        elif request.param == "gone":
            blob.unlink()
    return Candidate(bundle=opened, placement=Placement(blobs=str(folder / "blobs"), index=version.index), keys=folder / "keys")


def files(candidate: Candidate) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in candidate.keys.parent.rglob("*") if path.is_file() and "registry" not in path.name}


@pytest.mark.parametrize("name", gates.GATES)
def test_a_gate_judges_any_candidate_and_changes_nothing(name: str, candidate: Candidate) -> None:
    before = files(candidate)
    verdict = gates.load(name).judge(candidate)
    assert isinstance(verdict, Verdict) and verdict.rule == name and verdict.evidence
    again = gates.load(name).judge(candidate)
    assert (again.outcome, again.rule) == (verdict.outcome, verdict.rule)
    assert files(candidate) == before


def test_all_are_asked_in_order_and_a_fail_is_a_rejection(candidate: Candidate) -> None:
    verdicts = gates.run(candidate)
    assert [verdict.rule for verdict in verdicts] == list(gates.GATES)
    if any(verdict.outcome == "fail" for verdict in verdicts):
        with pytest.raises(Rejected, match="was refused by") as refused:
            gates.require(verdicts, what="line:1")
        assert refused.value.verdicts == verdicts
    else:
        gates.require(verdicts, what="line:1")
