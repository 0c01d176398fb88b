from __future__ import annotations

import numpy as np
import pytest
from benchmarks.monitor import causes

from modelyard.errors import InvalidInput
from modelyard.monitor.backtest import Settings, World, backtest
from modelyard.monitor.base import Evidence, Judged
from modelyard.monitor.injections import Rows
from modelyard.monitor.quality import Quality
from modelyard.types import Verdict

QUICK = Settings(quiet_rows=2000, horizon_rows=1500, runs=2, features=3, minute_rows=150)


class Steady:
    """Speaks up every minute; the dummy that any detector must beat."""

    rule = "steady"
    pages = True

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        return Judged((Verdict(outcome="fail", rule="steady", evidence="always"),), state)


class Wrong:
    """Fails where more than half of the recent minute's answers are wrong."""

    rule = "wrong"
    pages = True

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        known = evidence.labelled
        late = None if known is None else known.times >= evidence.fresh[0].start
        share = 0.0 if known is None else float((known.truth != known.predicted)[late].mean())
        return Judged((Verdict(outcome="fail" if share > 0.4 else "pass", rule="wrong", evidence=f"{share:.0%}", numbers={"share": share}),), state)


def rows(count: int = 3000) -> Rows:
    rng = np.random.default_rng(5)
    drawn = causes.draw(count, rng)
    return Rows(drawn, (rng.random(count) < causes.chance(drawn)).astype(np.int64))


def world(*detectors) -> World:
    return World(causes.reference(), causes.predict, detectors)


def test_large_drifts_are_seen_and_small_ones_are_not() -> None:
    told: list[tuple[str, float]] = []
    report = backtest(world(Quality(), Wrong()), rows(), settings=QUICK, progress=lambda stage, share: told.append((stage, share)))
    assert (report.rows, report.labels, report.came, report.quiet) == (3000, 3000, (), ())
    smallest = {(each.feature, each.kind): each for each in report.smallest}
    assert smallest["income", "unit"].reported == 10.0 and smallest["age", "missing"].reported == 0.05
    assert smallest["age", "missing"].paged == 1.0, "a column that is wholly gone pages"
    assert smallest["age", "mean"].reported != 0.1
    assert smallest[None, "labels"].paged is not None
    gone = next(each for each in report.seen if each.kind == "missing" and each.feature == "age" and each.size == 1.0)
    assert gone.paged == gone.runs == 2 and "quality:age" in gone.rules and gone.page_rows is not None and gone.report_rows is not None
    assert gone.report_rows <= gone.page_rows <= 1500
    assert {each.feature for each in report.seen} == {"age", "income", "region", None}, "the three most used, and the labels"
    assert told[0][1] == 0.0 and [share for _, share in told] == sorted(share for _, share in told)


def test_smaller_sizes_are_tried_only_while_larger_ones_are_seen() -> None:
    report = backtest(world(Quality()), rows(), settings=QUICK)
    shuffles = [each for each in report.seen if each.kind == "shuffle" and each.feature == "age"]
    assert [each.size for each in shuffles] == [1.0] and not shuffles[0].reported
    assert next(each for each in report.smallest if each.kind == "shuffle").reported is None


def test_what_always_speaks_up_sees_nothing() -> None:
    report = backtest(world(Steady()), rows(), settings=QUICK)
    assert [(each.rule, each.rows, each.is_page) for each in report.came] == [("steady", 150, True)]
    assert [each.rule for each in report.quiet] == ["steady"]
    assert all(each.paged == each.reported == 0 for each in report.seen)


def test_rows_that_had_a_drift_are_told_as_they_came() -> None:
    given = rows()
    income = given.inputs["income"].copy()
    income[2000:] *= 1000
    report = backtest(world(Quality()), Rows({**given.inputs, "income": income}, given.labels), settings=QUICK)
    assert 2000 < report.came[0].rows <= 2400 and any(each.rule == "quality:income" for each in report.came)


def test_without_labels_the_drifts_of_labels_are_left_out() -> None:
    report = backtest(world(Quality()), Rows(rows().inputs, None), settings=QUICK)
    assert report.labels == 0 and all(each.feature is not None for each in report.seen)


def test_the_same_rows_give_the_same_report() -> None:
    one, other = (backtest(world(Quality()), rows(1000), settings=Settings(quiet_rows=500, horizon_rows=500, runs=1, features=1)) for _ in range(2))
    assert one == other


def test_few_rows_are_refused() -> None:
    with pytest.raises(InvalidInput, match="200 rows"):
        backtest(world(Quality()), rows(50))
