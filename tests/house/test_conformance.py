"""The conformance page names tests that exist, for every codec that there is."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from modelyard.protocols import CODECS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/conformance.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| clause", "|---"))]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)))


@cache
def those_in(file: str) -> frozenset[str]:
    path = ROOT / file
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)) if path.exists() else frozenset()


def unknown(named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(file, test) for file, test in named if test not in those_in(file)]


def test_every_test_that_is_named_exists() -> None:
    assert unknown(NAMED) == []
    assert len(NAMED) > 80


def test_a_test_that_does_not_exist_is_found() -> None:
    """The negative control."""
    wrong = [("tests/house/test_conformance.py", "test_nothing"), ("tests/nowhere.py", "test_a_test_that_does_not_exist_is_found")]
    assert unknown([*wrong, NAMED[0]]) == wrong


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_every_clause_names_its_test(row: str) -> None:
    assert re.search(r"\| `tests/[\w/]+\.py::test_\w+`.* \|$", row)


def test_every_codec_has_a_heading() -> None:
    headings = " ".join(line for line in PAGE.splitlines() if line.startswith("## "))
    assert set(re.findall(r"`(\w+)`", headings)) == set(CODECS)
