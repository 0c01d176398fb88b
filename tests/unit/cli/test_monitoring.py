"""`monitor rules` and `monitor dashboard` as functions of the command line: printed, written, or as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.cli import run
from modelyard.cli.monitoring import dashboard, rules
from modelyard.monitor import rules as made
from modelyard.monitor.dashboard import dashboard as made_dashboard


def test_rules_are_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("monitor rules", rules, []) == 0
    assert capsys.readouterr().out == made.written()
    path = tmp_path / "modelyard.rules.yml"
    assert run("monitor rules", rules, ["--objective", "0.99", "--output", str(path)]) == 0
    assert path.read_text() == made.written(0.99) and "promtool check rules" in capsys.readouterr().out
    assert run("monitor rules", rules, ["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made.document()


def test_an_objective_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("monitor rules", rules, ["--objective", "1.5"]) == 2
    assert "objective" in capsys.readouterr().err


def test_the_dashboard_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ([], ["--json"]):
        assert run("monitor dashboard", dashboard, given) == 0
        assert json.loads(capsys.readouterr().out) == made_dashboard()
    path = tmp_path / "modelyard.json"
    assert run("monitor dashboard", dashboard, ["--output", str(path)]) == 0
    assert json.loads(path.read_text()) == made_dashboard()
