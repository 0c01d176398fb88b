"""`audit` as a person types it: what is whole is exit code 0, what is not names its first bad entry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modelyard.cli import main

OLD = Path(__file__).parents[2] / "golden" / "homes" / "0.1.0"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "home"))


def test_chains_are_verified_and_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alias", "diabetes", "best", "2", "--home", str(home)]) == 0
    capsys.readouterr()
    assert main(["audit", "verify", "--home", str(home), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["is_whole"] and [chain["entries"] for chain in report["chains"]] == [1, 5]
    assert main(["audit", "list", "--since", "1h", "--home", str(home), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["entry"]["action"] for each in listed][-1] == "alias"
    assert main(["audit", "list", "--home", str(home)]) == 0
    assert "diabetes@best" in capsys.readouterr().out
    assert main(["audit", "verify", "--home", str(home)]) == 0
    assert "whole" in capsys.readouterr().out


def test_a_chain_that_is_not_whole_is_an_exit_code(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"alias", b"evade", 1))
    assert main(["audit", "verify", "--home", str(home), "--json"]) == 6
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert not report["is_whole"] and report["chains"][1]["first_bad"] == 3 and "audit entry 3" in said.err


def test_an_empty_home_has_nothing_to_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "list", "--home", str(tmp_path)]) == 0
    assert "nothing was recorded" in capsys.readouterr().out
    assert main(["audit", "verify", "--since", "1h", "--home", str(tmp_path)]) == 2
