from __future__ import annotations

import math
from typing import Any

import pytest
from tests.faults.faults import FAULTS, load
from tests.faults.judge import Control, Fault, Item, Judged, controlled, judge, markdown, merge, summary

CONTROL = Control(without="care", misses="count", text="nobody cares.")


def item(figure: float, name: str = "01-a.count", **more: Any) -> Item:
    return Item(name=name, figure=figure, **{"bar": 10, **more})


@pytest.mark.parametrize(
    ("figure", "better", "passed"),
    [
        (10, "lower", True),
        (10.1, "lower", False),
        (10, "higher", True),
        (9.9, "higher", False),
        (math.nan, "lower", False),
        (math.nan, "higher", False),
    ],
)
def test_a_figure_reaches_its_bar_or_not_and_none_never_does(figure: float, better: str, passed: bool) -> None:
    assert item(figure, better=better).passed is passed


def test_the_line_never_rounds_a_miss_into_a_hit() -> None:
    assert item(99.89999, bar=99.9, better="higher", unit="%").line == "01-a.count 99.8999% >=99.9% FAIL"


def test_what_noise_can_spoil_is_run_thrice_and_its_median_counts() -> None:
    runs = iter([(item(11),), (item(9),), (item(8),)])
    (found,), times = judge(lambda: next(runs))
    assert (found.figure, times) == (9, 3)
    assert judge(lambda: (item(9),))[1] == 1


def test_a_count_is_never_run_again_and_keeps_its_worst() -> None:
    assert judge(lambda: (item(11, exact=True), item(99)))[1] == 1
    assert merge([(item(0, exact=True),), (item(3, exact=True),)])[0].figure == 3
    assert math.isnan(merge([(item(0, exact=True),), (item(math.nan, exact=True),)])[0].figure)
    assert merge([(item(5, exact=True, better="higher"),), (item(3, exact=True, better="higher"),)])[0].figure == 3


def test_a_control_passes_only_when_its_check_was_seen_to_fail() -> None:
    missed = controlled((item(11),), CONTROL)
    assert (missed.passed, missed.line) == (True, "01-a.count-control 11 >10 PASS")
    assert not controlled((item(9),), CONTROL).passed
    assert not controlled((item(math.nan),), CONTROL).passed
    assert not controlled((), CONTROL).passed


def test_both_tables_tell_each_fault() -> None:
    fault = Fault(number=1, name="a", title="A thing", method="It is done.", run=lambda scene: None, controls=(CONTROL,), headline="count")
    judged = [Judged(fault=fault, items=(item(9),), controls=(controlled((item(11),), CONTROL),))]
    assert "| 1. A thing: count | 9 | ≤ 10 | ✓ |" in summary(judged)
    assert "nobody cares" in markdown(judged)
    failed = [Judged(fault=fault, items=(item(9),), controls=(controlled((item(9),), CONTROL),))]
    assert "| 1. A thing: count | 9 | ≤ 10 | ✗ |" in summary(failed)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_a_control_and_a_headline(name: str) -> None:
    fault = load(name)
    assert fault.controls
    assert fault.headline
