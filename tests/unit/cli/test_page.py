"""A page holds everything that is told, and what is hostile in a name stays a name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pages import HOSTILE, Read, overview

from modelyard.cli import page as module
from modelyard.cli.page import page
from modelyard.client.answers import Budget, Overview, Series
from modelyard.types import Verdict

AT = 1_800_086_400.0


def test_everything_that_is_told_stands_in_it() -> None:
    found = overview("age", "city", "income", "tenure")
    read = Read(page(found, at=AT))
    said = "\n".join(read.texts)
    for text in (
        "line",
        "version 3",
        "2027-01-15 08:00",
        "2027-01-16 08:00",
        "PAGE",
        "drift:age",
        "1 of what is judged",
        "firing",
        "resolved",
        "0.5 left",
    ):
        assert text in said, text
    for text in (
        "25.0%",
        "5 are of such as were not logged, or of none",
        "7 requests came after",
        "3 rows of age",
        "slices:city",
        "performance:age",
        "250 ms",
        "2.5 s",
    ):
        assert (text in said) == (text != "250 ms"), text
    assert sum(tag == "svg" for tag, _ in read.tags) == 1 + 3 + 2 + 1 + 3, "completeness, figures, drift, levels, traffic"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_a_name(name: str) -> None:
    mild, hostile = (Read(page(overview(*names), at=AT)) for names in (("a", "b", "c"), (name, "b", "c")))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in mild.tags], "no element more, none less"
    for tag, attributes in hostile.tags:
        assert tag not in ("script", "img", "iframe", "object", "embed", "link", "base", "form", "a", "image", "use", "foreignobject")
        assert not [key for key in attributes if key.startswith("on") or key in ("href", "src", "style", "xlink:href", "action", "srcset")]
    shown = name.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd").replace("\u202e", "\ufffd")
    assert any(shown in text for text in hostile.texts), "and it is told"


def test_it_asks_for_nothing_and_says_so() -> None:
    content = page(overview(*HOSTILE), at=AT).decode()
    read = Read(content.encode())
    assert any(
        attributes.get("http-equiv") == "Content-Security-Policy" and "default-src 'none'" in str(attributes["content"])
        for _, attributes in read.tags
    )
    style = content.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style and len(style) > 500


def test_of_a_deployment_of_which_nothing_is_known_it_says_so() -> None:
    nothing = Overview(name="line", version=None, digest=None, since=0.0, until=60.0, budget=Budget(false_pages_a_month=1.0, spent=0.0, left=1.0))
    said = "\n".join(Read(page(nothing, at=AT)).texts)
    for text in (
        "no version serves",
        "not judged yet",
        "There are none yet",
        "No labels have come",
        "No feature was compared",
        "None were searched",
        "as by default",
    ):
        assert text in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300, 1e300, 0.0])
def test_no_number_breaks_it(value: float) -> None:
    found = overview("a", "b", "c")
    verdict = Verdict(outcome="fail", rule="drift:a", evidence="", numbers={"value": value, "threshold": 1e-300, "effect": value}, harm=value)
    odd = msgspec.structs.replace(
        found,
        verdicts=(verdict,),
        since=value,
        series=tuple(Series(name="x", unit=unit, values=(value, 1.0, None)) for unit in ("/s", "s", "share", "level", "")),
    )
    content = page(odd, at=AT).decode()
    points: list[Any] = [attributes for tag, attributes in Read(content.encode()).tags if tag in ("polyline", "rect", "line", "circle")]
    assert points and not any("nan" in str(each) or "inf" in str(each) for each in points)


def test_many_verdicts_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHOWN", 3)
    assert "and 13 less important ones" in page(overview("a", "b", "c"), at=AT).decode()


def test_a_page_that_fires_is_told_though_nothing_is_known_to_fail_now() -> None:
    """An alert stands while its detector cannot judge: the head of the page may not say that all is well."""
    found = overview("a", "b", "c")
    (fires, *_) = (each for each in found.alerts if each.state == "firing")
    heads = [Read(page(msgspec.structs.replace(found, pages=(), alerts=alerts), at=AT)).texts for alerts in ((fires,), ())]
    assert any("1 page fires still" in text for text in heads[0]) and any("Nothing that may wake somebody fails" in text for text in heads[1])
    assert not any("Nothing that may wake" in text for text in heads[0])


def test_hundreds_of_columns_leave_it_short() -> None:
    names = [f"c{place}" for place in range(300)]
    found = overview(*names)
    first = msgspec.structs.replace(found.alerts[0], state="firing", inhibited_by="")
    many = tuple(msgspec.structs.replace(first, id=name, rule=f"drift:{name}", why="", cause="", advice="look") for name in names)
    moved = tuple(Verdict(outcome="fail", rule=f"drift:{name}", evidence=f"{name} moved", columns=(name,)) for name in names)
    read = Read(page(msgspec.structs.replace(found, alerts=many, verdicts=moved, pages=tuple(each.rule for each in moved)), at=AT))
    assert sum(tag == "tr" for tag, _ in read.tags) < 20
    said = "\n".join(read.texts)
    assert "297 more pages like these: drift:c3, " in said and "295 more, each less important than those above" in said and "what to do: look" in said
