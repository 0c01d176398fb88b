import math
import os
import subprocess
import sys

import pytest
from benchmarks.__main__ import BEGIN, BENCHMARKS, END, PAGES, PLACES, ROOT, TABLES, busy_share, load, replace_between
from benchmarks.items import Item, ratio
from benchmarks.peers.__main__ import IN_README


def item(figure, better="lower"):
    return Item(name="wait", figure=figure, unit="ms", bar=300, better=better)


def test_a_figure_at_its_bar_passes_and_one_beyond_it_fails():
    assert item(300).passed
    assert not item(300.1).passed
    assert item(300, "higher").passed
    assert not item(299.9, "higher").passed


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_figure_that_could_not_be_had_fails(better):
    assert not item(math.nan, better).passed


def test_the_line_has_four_words_and_one_verdict():
    words = item(77.4321).line.split()
    assert words == ["wait", "77.43ms", "<=300ms", "PASS"]
    assert item(400).line.split()[-1] == "FAIL"


def test_rounds_alternate_and_the_median_ratio_counts():
    order = []
    figures = {"ours": iter([2.0, 30.0, 4.0]), "theirs": iter([1.0, 10.0, 1.0])}

    def measure(name):
        order.append(name)
        return next(figures[name])

    median, ours, theirs = ratio(lambda: measure("ours"), lambda: measure("theirs"))
    assert median == 3.0
    assert (ours, theirs) == ([2.0, 30.0, 4.0], [1.0, 10.0, 1.0])
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


def test_only_what_stands_between_the_markers_is_replaced():
    page = "head\n<!-- figures: begin -->\nold\n<!-- figures: end -->\n<!-- other: begin -->\nold\n<!-- other: end -->\ntail\n"
    assert replace_between(page, "new") == page.replace("old", "new", 1)
    assert replace_between(page, "new", "<!-- other: begin -->", "<!-- other: end -->") == page[::-1].replace("dlo", "wen", 1)[::-1]
    with pytest.raises(ValueError, match="markers"):
        replace_between("head", "new")


@pytest.mark.parametrize("marks", [marks for _, marks in TABLES])
def test_each_table_of_figures_has_its_place(marks):
    assert "new" in replace_between((ROOT / "docs/benchmarks.md").read_text("utf-8"), "new", *marks)


@pytest.mark.parametrize("target", [*BENCHMARKS.values(), *PAGES.values()])
def test_the_table_names_functions_that_are_there(target):
    assert callable(load(target))


def test_the_share_that_others_take_is_a_share_and_rises_with_work():
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert 0.5 / os.cpu_count() < busy_share(0.5) <= 1
    finally:
        spinning.kill()
        spinning.wait()


@pytest.mark.parametrize("name", [*PAGES, "peers"])
def test_each_page_has_the_place_of_its_table(name):
    page, marks = PLACES.get(name, (name, (BEGIN, END)))
    assert "new" in replace_between((ROOT / "docs" / f"{page}.md").read_text("utf-8"), "new", *marks)


def test_the_readme_has_the_place_of_the_chart():
    assert "new" in replace_between((ROOT / "README.md").read_text("utf-8"), "new", *IN_README)
