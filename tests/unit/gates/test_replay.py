"""The replay gate: the model runs in a child, whatever it does there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelyard import bundle
from modelyard.gates import replay
from modelyard.gates.base import Candidate
from modelyard.security.seal import Trust
from modelyard.types import Placement
from serving import Home


def candidate(folder: Path, **how: bool) -> Candidate:
    home = Home(folder)
    home.add("line", **how)
    version = home.registry.resolve("line")
    opened = bundle.open(home.registry.blobs, version.index, trust=Trust(folder / "keys"))
    return Candidate(bundle=opened, placement=Placement(blobs=str(folder / "blobs"), index=version.index), keys=folder / "keys")


def test_its_own_answers_pass(tmp_path: Path) -> None:
    verdict = replay.Replay().judge(candidate(tmp_path))
    assert verdict.outcome == "pass" and verdict.rule == "golden-replay" and verdict.numbers["rows"] == 64


def test_other_answers_fail_and_are_named(tmp_path: Path) -> None:
    verdict = replay.Replay().judge(candidate(tmp_path, wrong_answers=True))
    assert verdict.outcome == "fail" and "prediction" in verdict.evidence


def test_a_bundle_that_does_not_open_fails(tmp_path: Path) -> None:
    given = candidate(tmp_path)
    for blob in (tmp_path / "blobs" / "sha256").iterdir():
        blob.chmod(0o600)
        blob.write_bytes(b"spoilt")
    verdict = replay.Replay().judge(given)
    assert verdict.outcome == "fail" and "changed or cut short" in verdict.evidence


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        ("import time; time.sleep(600)", "no answer within"),
        ("raise MemoryError", "could not be run"),
        ("print('{}')", "could not be run"),
    ],
    ids=["crashes", "hangs", "raises", "says something else"],
)
def test_a_child_that_fails_costs_a_verdict_not_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str) -> None:
    """A launcher stands for the interpreter: the same gate with a model that misbehaves."""
    given = candidate(tmp_path)
    launcher = tmp_path / "python"
    launcher.write_text(f"#!{sys.executable}\n{body}\n")
    launcher.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(launcher))
    verdict = replay.Replay(timeout_s=3.0).judge(given)
    assert verdict.outcome == "fail" and said in verdict.evidence


def test_the_child_imports_nothing_from_where_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a downloaded bundle may lie a file with a library's name."""
    given = candidate(tmp_path)
    here = tmp_path / "downloads"
    here.mkdir()
    (here / "msgspec.py").write_text("raise SystemExit('taken from the folder')")
    monkeypatch.chdir(here)
    assert replay.Replay().judge(given).outcome == "pass"
