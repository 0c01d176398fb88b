"""Progress: nothing on stdout ever, nothing at all in a pipe unless lines are asked for."""

from __future__ import annotations

import pytest

from modelyard.control.progress import shown


def test_a_pipe_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("Packaging churn") as tell:
        tell("converting", 0.5)
    assert capsys.readouterr() == ("", "")


def test_lines_are_one_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("Packaging churn", lines=True) as tell:
        for fraction in (0.1, 0.2, 0.3):
            tell("converting", fraction)
        tell("sealing", 0.9)
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == ["Packaging churn: converting", "Packaging churn: sealing"]


def test_a_terminal_gets_a_bar_on_stderr_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown("Packaging churn") as tell:
        tell("converting", 0.5)
        tell("sealing", 0.9)
    out, err = capsys.readouterr()
    assert out == "" and "Packaging churn" in err
