"""Undocumented means failing: the reference covers each verb, setting, public name and metric, and no page links to nowhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import msgspec
import pytest

from modelyard.cli import VERBS, load
from modelyard.config import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference.md").read_text("utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PLACES = {name: verb.place for name, verb in VERBS.items()}


@pytest.mark.parametrize("verb", PLACES)
def test_a_verb_is_documented_and_speaks_json(verb: str) -> None:
    assert re.search(rf"^### `modelyard {verb}[` ]", REFERENCE, re.MULTILINE)
    function = load(PLACES[verb])
    assert function.__doc__
    assert "json" in inspect.signature(function).parameters


@pytest.mark.parametrize("setting", [field.name for field in msgspec.structs.fields(Settings)])
def test_a_setting_is_documented(setting: str) -> None:
    assert f"| `{setting}` |" in REFERENCE


def test_no_page_documents_a_verb_that_is_not_there() -> None:
    assert set(re.findall(r"^### `modelyard ([a-z]+)", REFERENCE, re.MULTILINE)) == set(PLACES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text("utf-8")
    for page in (ROOT / "docs/decisions").glob("0*.md"):
        assert page.name in index
