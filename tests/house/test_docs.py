"""Undocumented means failing: the reference covers each verb, setting, public name and metric, and no page links to nowhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import msgspec
import pytest

from modelyard.cli import VERBS, load
from modelyard.config import Settings
from modelyard.metrics import METRICS

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


def test_every_route_of_the_control_api_is_documented_and_no_other() -> None:
    from modelyard.security.policy import ROUTES

    section = REFERENCE.partition("## Control plane\n")[2]
    told = {(method, "/api/v1" + path) for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^ `?]+)[^`]*`", section)}
    told |= {("POST", f"/api/v1/deployments/{{name}}/{verb}") for verb in re.findall(r"`…/([a-z-]+)`", section)}
    assert told == set(ROUTES)


def in_serve(pattern: str) -> set[str]:
    """What `pattern` finds in the sources of the data plane."""
    return {found for path in (ROOT / "src/modelyard/serve").rglob("*.py") for found in re.findall(pattern, path.read_text("utf-8"))}


def test_metrics_are_documented_and_what_is_documented_is_there() -> None:
    told = set(re.findall(r"`(modelyard_[a-z_]+)[`{]", REFERENCE))
    assert set(METRICS) - told == set() and told - set(METRICS) == set()


def test_the_table_of_metrics_is_what_the_planes_write() -> None:
    written = in_serve(r'"(modelyard_[a-z_]+)"')
    assert {name for name, metric in METRICS.items() if metric.plane == "data"} == written
    control = set(re.findall(r'"(modelyard_[a-z_]+)"', (ROOT / "src/modelyard/control/exposition.py").read_text("utf-8")))
    assert {name for name, metric in METRICS.items() if metric.plane == "control"} == control


def test_events_of_the_log_are_documented_and_what_is_documented_is_there() -> None:
    calls = in_serve(r'log\.(?:info|warning|error)\(\s*"([a-z_]+)"') | in_serve(r'_say\(.*"([a-z_]+)", (?:\{|line)')
    said = calls | in_serve(r'event = "([a-z_]+)"') | in_serve(r'event = .* else "([a-z_]+)"') | in_serve(r'\.error\("(worker_failed)"')
    section = REFERENCE.partition("### Log\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    told = {name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
    assert {"version_loaded", "version_failed", "refused"} <= said
    assert said - told == set() and told - said == set()


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
