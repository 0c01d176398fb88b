"""`monitor report`: what is asked for, and the file that comes of it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from pages import overview

from modelyard.cli import main, report
from modelyard.client.answers import Overview


class Control:
    """A control process that knows one deployment."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    def monitor(self, name: str, *, since: str | None = None) -> Overview:
        self.asked.append((name, since))
        return overview("age", "city", "income")


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    control = Control()

    @contextlib.contextmanager
    def connect(_: Any) -> Any:
        yield control

    monkeypatch.setattr(report, "connect", connect)
    return control


def test_the_file_is_written_whole_and_replaced(control: Control, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert main(["monitor", "report", "line", "--html", str(path), "--since", "2030-01-31"]) == 0
    assert path.read_bytes().startswith(b"<!doctype html>") and b"drift:age" in path.read_bytes()
    assert control.asked == [("line", "2030-01-31T00:00:00+00:00")]
    assert "16 verdicts" in capsys.readouterr().out and [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_json_tells_of_the_file(control: Control, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.html"
    assert main(["monitor", "report", "line", "--html", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(path), "size_bytes": path.stat().st_size, "verdicts": 16, "alerts": 3}
    assert control.asked == [("line", None)]


def test_a_folder_that_is_not_there_is_one_line(control: Control, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "report", "line", "--html", str(tmp_path / "none" / "x.html")]) != 0
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["monitor", "report", "../x", "--html", str(tmp_path / "x.html")]) == 2 and main(["monitor", "report", "line"]) == 2
