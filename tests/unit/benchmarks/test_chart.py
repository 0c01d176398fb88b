"""The chart of peers: what it shows is what was measured."""

from xml.etree import ElementTree

import pytest
from benchmarks.peers.chart import Bar, chart

SVG = "{http://www.w3.org/2000/svg}"


def widths(text):
    return [float(rect.get("width")) for rect in ElementTree.fromstring(text).iter(f"{SVG}rect")]


def test_each_power_of_ten_is_as_long_as_the_next():
    rows = [(str(value), [Bar("onnx", value)]) for value in (10, 100, 1000, 10_000)]
    first, *others = widths(chart("t", "n", rows))
    assert first == 1  # the scale begins there; a bar is never without width
    assert [round(other / others[0]) for other in others] == [1, 2, 3]


def test_what_could_not_be_measured_is_named_with_the_reason():
    text = chart("t", "n", [("a <b>", [Bar("ours", 50), Bar("pickle", None, "cannot be installed here")])])
    assert len(widths(text)) == 1
    said = [element.text for element in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert "cannot be installed here" in said
    assert "a <b>" in said


@pytest.mark.parametrize("kind", ["ours", "onnx", "pickle"])
def test_each_kind_has_a_colour_on_light_and_on_dark_pages(kind):
    style = ElementTree.fromstring(chart("t", "n", [("a", [Bar(kind, 5)])])).find(f"{SVG}style").text
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert f".{kind} {{ fill" in light
    assert f".{kind} {{ fill" in dark
