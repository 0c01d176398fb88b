from __future__ import annotations

import math

import pytest

from modelyard.cli.plots import HEIGHT, WIDTH, bars, course, plain, when


def told(value: float) -> str:
    return f"{value:g}"


def test_a_course_is_broken_where_nothing_was_measured() -> None:
    svg = course([1.0, 2.0, None, 3.0, math.nan, 4.0, 5.0], span=(0.0, 60.0), told=told)
    lines = [element.attrib["points"].count(",") for element in svg.iter("polyline")]
    assert lines == [2, 2] and len(list(svg.iter("circle"))) == 1, "a point alone is a dot"
    texts = [element.text for element in svg.iter("text")]
    assert texts == ["largest 5", "1970-01-01 00:00", "1970-01-01 00:01"]


def test_all_of_it_lies_within_the_picture() -> None:
    for values in ([5.0, -3.0, 1e9], [0.0], [], [None], [1e-300, 2e-300]):
        svg = course(values, span=(0.0, 60.0), told=told, limit=2.0)
        for element in svg.iter("polyline"):
            for pair in element.attrib["points"].split():
                x, y = map(float, pair.split(","))
                assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT
        assert len([element for element in svg.iter("line") if element.attrib["class"] == "limit"]) == 1


def test_a_bar_is_as_long_as_its_value_and_marked_beyond_the_limit() -> None:
    svg = bars([("a", 2.0, "two"), ("b", 1.0, "one"), ("c" * 99, 0.0, "none"), ("d", math.inf, "all")], limit=1.5)
    found = [(element.attrib["class"], float(element.attrib["width"])) for element in svg.iter("rect")]
    assert [kind for kind, _ in found] == ["over", "bar", "bar", "over"]
    assert found[0][1] == pytest.approx(2 * found[1][1], abs=0.2) and found[2][1] == 1.0 and found[3][1] == found[0][1]
    labels = [element.text for element in svg.iter("text")]
    assert labels[:2] == ["a", "two"] and labels[4] == "c" * 33 + "…"
    assert not list(bars([]).iter("rect"))


def test_what_no_document_may_hold_is_replaced() -> None:
    assert plain("a\x00b\tc\nd\ud800é") == "a\ufffdb\tc\nd\ufffdé"


def test_a_time_that_is_none_is_said_so() -> None:
    assert when(1_800_000_000.0) == "2027-01-15 08:00" and when(1e300) == when(math.nan) == "no time"
