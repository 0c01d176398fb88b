from __future__ import annotations

from typing import Any

import pytest
from tests.faults.__main__ import Suite
from tests.faults.judge import Fault, Item
from tests.faults.scene import Missing


def suite_of(*items: Item, error: Exception | None = None, monkeypatch: pytest.MonkeyPatch) -> Suite:
    def run(scene: Any) -> None:
        if error is not None:
            raise error

    fault = Fault(number=1, name="a", title="A", method="", run=run, controls=(), headline="count")
    monkeypatch.setattr("tests.faults.scene.Scene.finish", lambda scene: items)
    suite = Suite(is_long=False, limit_s=1, limit=1, with_controls=True)
    suite.judge("01-a", fault)
    return suite


def test_a_timed_miss_is_none_of_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_of(Item(name="01-a.p99", figure=2, bar=1), Item(name="01-a.count", figure=0, bar=0, exact=True), monkeypatch=monkeypatch)
    assert (suite.passed, suite.total, suite.missed_counts) == (1, 2, 0)


def test_a_count_that_misses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_of(Item(name="01-a.p99", figure=1, bar=1), Item(name="01-a.count", figure=1, bar=0, exact=True), monkeypatch=monkeypatch)
    assert (suite.passed, suite.total, suite.missed_counts) == (1, 2, 1)


def test_so_is_a_fault_that_could_not_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    for error in (RuntimeError("broken"), Missing("no compiler")):
        suite = suite_of(error=error, monkeypatch=monkeypatch)
        assert (suite.passed, suite.total, suite.missed_counts) == (0, 1, 1)
