from __future__ import annotations

import math

import numpy as np
import pytest
from minutes import BEGINS, OTHER, Rows, draw, evidence, minute, minutes, reference

from modelyard.monitor.base import Evidence, Minute, Reference
from modelyard.monitor.quality import Quality
from modelyard.monitor.settings import Drift, Monitored
from modelyard.types import Verdict

MONDAY = 1_699_833_600


AT_ONCE = Monitored(drift=Drift(learn_days=0.0))
"""Nothing waits for a first week."""


def turns(
    known: Reference, made: list[Minute], detector: Quality, *, false_pages: float = 0.1, settings: Monitored = AT_ONCE, state: bytes = b""
) -> list[tuple[Verdict, ...]]:
    """A turn for each minute, as the loop makes them."""
    told = []
    for place in range(len(made)):
        shown = evidence(known, made[max(0, place - 59) : place + 1], made[place : place + 1], false_pages=false_pages)
        judged = detector.judge(shown._replace(settings=settings), state)
        state = judged.state
        told.append(judged.verdicts)
    return told


def fails(verdicts: tuple[Verdict, ...]) -> list[str]:
    return [each.rule for each in verdicts if each.outcome == "fail"]


def gone_from(bad: int):
    return lambda place, rows: {**rows, "age": np.full_like(rows["age"], np.nan)} if place >= bad else rows


def test_without_rows_it_is_unknown_and_says_why() -> None:
    known = reference()
    (told,) = Quality().judge(evidence(known, []), b"").verdicts
    assert (told.outcome, told.rule) == ("unknown", "quality") and "no row" in told.evidence


def test_counts_of_another_schema_are_unknown_and_counted() -> None:
    known = reference()
    foreign = [each._replace(counts=np.ones(5, dtype=np.int64)) for each in minutes(known, 3)]
    (told,) = Quality().judge(evidence(known, foreign), b"").verdicts
    assert told.outcome == "unknown" and "3 minutes were counted in other bins" in told.evidence


def test_ordinary_minutes_pass() -> None:
    known = reference()
    for told in turns(known, minutes(known, 70), Quality()):
        assert [(each.rule, each.outcome) for each in told] == [("quality", "pass")]


def test_a_break_warns_with_column_window_and_numbers() -> None:
    known = reference()
    made = minutes(known, 20, lambda place, rows: {**rows, "age": rows["age"] * 10} if place >= 12 else rows)
    whole, told = turns(known, made, Quality())[-1]
    assert (whole.outcome, whole.rule, whole.columns) == ("pass", "quality", ()) and "all but 1 of 3 columns" in whole.evidence
    assert (told.outcome, told.rule, told.columns) == ("warn", "quality:age", ("age",))
    assert told.numbers["factor"] == 10 and told.window is not None and told.window[0] == BEGINS + 12 * 60


def test_a_column_gone_pages_within_minutes_and_recovers() -> None:
    known = reference()
    made = minutes(known, 45, lambda place, rows: {**rows, "age": np.full_like(rows["age"], np.nan)} if 20 <= place < 35 else rows)
    told = turns(known, made, Quality())
    first = next(place for place, each in enumerate(told) if fails(each))
    assert fails(told[first]) == ["quality:age"] and 20 < first <= 30
    assert not fails(told[36]), "the first block with values ends it"


def test_what_may_not_page_only_warns() -> None:
    known, made = reference(), minutes(reference(), 40, gone_from(10))
    assert not any(map(fails, turns(known, made, Quality(), false_pages=0.0)))
    assert not any(map(fails, turns(reference(importance={"city": 1.0, "age": 0.0}), made, Quality()))), "the model does not use it"
    assert any(map(fails, turns(known, made, Quality())))


def test_a_constant_column_pages_once_it_is_known_to_vary() -> None:
    known = reference()
    stuck = lambda bad: lambda place, rows: {**rows, "age": np.full_like(rows["age"], 40.0)} if place >= bad else rows  # noqa: E731
    told = turns(known, minutes(known, 120, stuck(80)), Quality())
    first = next(place for place, each in enumerate(told) if fails(each))
    assert fails(told[first]) == ["quality:age"] and 80 < first <= 100
    assert not any(map(fails, turns(known, minutes(known, 60, stuck(0)), Quality()))), "a column that never varied here may be so by nature"


def test_a_column_of_the_calendar_never_pages() -> None:
    known = reference()
    told = turns(known, minutes(known, 600, clocked=True, rows=20), Quality())
    assert not any(map(fails, told))


def weeks(known: Reference, count: int, *, stuck: range = range(0)) -> list[Minute]:
    """A minute of 20 rows each hour from a Monday on, in which the city is always the same at weekends, and in the hours `stuck`."""
    rng, found = np.random.default_rng(7), []
    for hour in range(count * 168):
        rows = draw(20, rng)
        if hour // 24 % 7 >= 5 or hour in stuck:
            rows["city"][:] = "bonn"
        found.append(minute(known, 0, rows)._replace(start=MONDAY + hour * 3600))
    return found


def test_a_column_that_is_constant_at_weekends_pages_once_at_most_and_never_after_a_first_week() -> None:
    known = reference()
    paged = [place for place, each in enumerate(turns(known, weeks(known, 4), Quality())) if fails(each)]
    assert paged and paged[-1] < 168, "only the first weekend is anything new"
    assert not any(map(fails, turns(known, weeks(known, 4), Quality(), settings=Monitored())))


def test_a_column_that_is_constant_at_another_time_than_at_weekends_pages_all_the_same() -> None:
    known = reference()
    tuesday = 3 * 168 + 30
    told = turns(known, weeks(known, 4, stuck=range(tuesday, tuesday + 60)), Quality(), settings=Monitored())
    first = next(place for place, each in enumerate(told) if fails(each))
    assert fails(told[first]) == ["quality:city"] and tuesday < first < tuesday + 48


def test_by_which_hours_a_column_goes_is_known_to_the_next_release() -> None:
    known = reference()
    other = known._replace(digest=OTHER)
    detector, state = Quality(), b""
    for each in weeks(known, 1):
        state = detector.judge(evidence(known, [each])._replace(settings=AT_ONCE), state).state
    theirs = [each._replace(digest=OTHER) for each in weeks(known, 2)[168:]]
    assert not any(map(fails, turns(other, theirs, detector, state=state)))
    assert any(map(fails, turns(other, theirs, detector)))


def test_a_clock_that_stands_still_is_stale() -> None:
    known = reference()
    rng = np.random.default_rng(5)
    made = [minute(known, place, draw(20, rng, hour=min(place // 20, 6))) for place in range(220)]
    told = turns(known, made, Quality())
    assert "quality:hour" in [each.rule for each in told[-1]]
    stale = next(each for each in told[-1] if each.rule == "quality:hour")
    assert stale.outcome == "warn" and stale.numbers["stays_s"] > 3 * stale.numbers["longest_s"]


def test_by_chance_pages_are_no_more_than_the_budget() -> None:
    """Blocks are missing less often than is allowed for: of 3,000 of them a threshold of 10,000 is crossed once in three lives at most."""
    known = reference()
    rng = np.random.default_rng(3)
    made = []
    for place in range(3000):
        rows = draw(8, rng)
        if rng.random() < 0.05:
            rows["age"][:] = np.nan
        made.append(minute(known, place, rows))
    detector, state, crossed = Quality(), b"", 0
    allowed = 6 * 43_200 / 1e4  # so that the threshold is 10,000 blocks
    for each in made:
        judged = detector.judge(evidence(known, [each], false_pages=allowed), state)
        state = judged.state
        crossed += bool(fails(judged.verdicts))
    assert crossed <= 1


def test_state_of_another_release_begins_anew_and_says_so() -> None:
    known = reference()
    made = minutes(known, 3)
    detector = Quality()
    state = detector.judge(evidence(known, made), b"").state
    other = known._replace(digest=OTHER)
    theirs = [each._replace(digest=OTHER) for each in made]
    assert "anew" in detector.judge(evidence(other, theirs), state).verdicts[0].evidence
    assert "anew" in detector.judge(evidence(known, made), b"rubbish").verdicts[0].evidence
    assert "anew" not in detector.judge(evidence(known, made), state).verdicts[0].evidence


def test_a_minute_that_is_handed_twice_counts_once() -> None:
    known = reference()
    made = minutes(known, 30, gone_from(0))
    detector, state = Quality(), b""
    for _ in range(20):
        judged = detector.judge(evidence(known, made[:2], made[:2]), state)
        state = judged.state
    assert not fails(judged.verdicts)


def test_a_clock_that_went_back_begins_anew() -> None:
    known = reference()
    detector = Quality()
    late = [each._replace(start=each.start + 10**6) for each in minutes(known, 2)]
    state = detector.judge(evidence(known, late), b"").state
    told = detector.judge(evidence(known, minutes(known, 3)), state)
    assert "the clock went back" in told.verdicts[0].evidence


def test_requests_that_do_not_fit_the_schema_warn() -> None:
    known = reference()
    rng = np.random.default_rng(2)
    made = [minute(known, place, draw(60, rng), refused=30 * (place > 15)) for place in range(20)]
    told = Quality().judge(evidence(known, made), b"").verdicts
    assert "quality:requests" in [each.rule for each in told]


def test_numbers_are_numbers() -> None:
    known = reference()

    def broken(place: int, rows: Rows) -> Rows:
        return {**rows, "age": rows["age"] * 1e300, "city": np.full_like(rows["city"], None)} if place > 4 else rows

    shown: Evidence = evidence(known, minutes(known, 10, broken))
    for verdict in Quality().judge(shown, b"").verdicts:
        assert all(math.isfinite(value) for value in verdict.numbers.values()), verdict


@pytest.mark.parametrize("rows", [1, 3])
def test_little_traffic_fills_blocks_over_many_minutes(rows: int) -> None:
    known = reference()
    told = turns(known, minutes(known, 160, gone_from(40), rows=rows), Quality())
    first = next(place for place, each in enumerate(told) if fails(each))
    assert first >= 40 + 6 * 8 // rows
