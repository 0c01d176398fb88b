"""How results look."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from modelyard.cli import show
from modelyard.types import Verdict


class Thing(msgspec.Struct):
    name: str
    path: Path


def test_json_is_one_document_of_any_of_our_values(capsys: pytest.CaptureFixture[str]) -> None:
    show.emit_json(Thing("a", Path("/x")))
    assert json.loads(capsys.readouterr().out) == {"name": "a", "path": "/x"}


def test_text_with_brackets_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(["name", "value"], [("[red]x", show.escape("[bold]y")), (None, 1234567), (0.123456, "z")])
    show.verdicts([Verdict(outcome="warn", rule="lock", evidence="[/red] numpy [1]")])
    out = capsys.readouterr().out
    assert "[bold]y" in out and "1,234,567" in out and "0.1235" in out and "[/red] numpy [1]" in out


def test_text_of_others_gives_the_terminal_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    show.line(show.escape("a\x1b[2J\x1b]0;root\x07b\x9bc\u202ed\re\n"))
    out = capsys.readouterr().out
    assert out == r"a\x1b[2J\x1b]0;root\x07b\x9bc\u202ed\re" + "\n\n"


def test_what_is_ours_alone_marks_and_nobody_orders(capsys: pytest.CaptureFixture[str]) -> None:
    show.line("[bold]ours[/bold] a\x1b[2J")
    show.table(["id"], [("b\x1b[2J",)])
    out = capsys.readouterr().out
    assert "\x1b" not in out and r"ours a\x1b[2J" in out and r"b\x1b[2J" in out


def test_a_name_of_several_lines_begins_none() -> None:
    assert show.on_one_line("drift:a\r\nnothing fires\x1b[m[b]") == r"drift:a nothing fires\x1b[m\[b]"


def test_sizes_and_digests_are_short() -> None:
    assert (show.size(999), show.size(1500), show.size(2_500_000), show.size(7 * 10**12)) == ("999 B", "1.5 kB", "2.5 MB", "7000.0 GB")
    assert show.short("sha256:" + "ab" * 32) == "ab" * 6


def test_a_long_line_stays_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show.line("x" * 500)
    assert capsys.readouterr().out == "x" * 500 + "\n"


def test_numbers_may_be_keys(capsys: pytest.CaptureFixture[str]) -> None:
    show.emit_json({"answered": {10: 1, 2: 3}})
    assert json.loads(capsys.readouterr().out) == {"answered": {"10": 1, "2": 3}}
