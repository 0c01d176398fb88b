"""What hours are allowed: what they were at their worst in a week, a few times the bound before they were seen; and the day as a whole the bound."""

from __future__ import annotations

import pytest

from modelyard.monitor.estimate import hours
from modelyard.monitor.estimate.hours import Hour

NIGHT, RUSH, USUAL, LIMIT = 0.02, 0.3, 0.1, 0.15
START = 480_000 // 24 * 24


def days(count: int, *, rush: float = RUSH) -> tuple[Hour, ...]:
    """Whole days by the hour: three of them rush."""
    found: tuple[Hour, ...] = ()
    for hour in range(START, START + 24 * count):
        found = hours.noted(found, 3600.0 * hour, 3600.0 * (hour + 1), rush if 7 <= hour % 24 < 10 else NIGHT)
    return found


def allowed(known: tuple[Hour, ...], hour: int, *, span: int = 1, is_share: bool = True) -> float:
    return hours.allowed(known, 3600.0 * hour, 3600.0 * (hour + span), limit=LIMIT, usual=USUAL, is_share=is_share)


def test_losses_are_what_is_to_be_low() -> None:
    assert [hours.loss(*each) for each in (("accuracy", 0.9), ("auc", 0.75), ("mae", 3.0), ("rmse", 3.0), ("rmse", -1.0))] == [
        pytest.approx(0.1), 0.25, 3.0, 9.0, 0.0]  # fmt: skip


def test_an_hour_is_allowed_what_it_was_at_its_worst_beside_the_reference() -> None:
    known = days(2)
    assert allowed(known, START + 48 + 8) == pytest.approx(LIMIT * RUSH / USUAL)
    assert allowed(known, START + 48 + 16) == LIMIT, "the control: at quiet hours the bound alone"
    assert allowed(known, START + 48 + 6) == pytest.approx(LIMIT * RUSH / USUAL), "a rush may begin an hour earlier"
    assert allowed(days(2, rush=0.9), START + 48 + 8) == (1 + LIMIT) / 2, "of a share never all"
    assert allowed(days(9), START + 9 * 24, span=24) == LIMIT, "a day is a day"


def test_what_began_an_hour_ago_excuses_nothing() -> None:
    known = days(2)
    for hour in range(START + 48, START + 54):
        assert allowed(known, hour + 12) == LIMIT
        known = hours.noted(known, 3600.0 * (hour + 12), 3600.0 * (hour + 13), RUSH)


def test_before_an_hour_was_seen_it_is_allowed_a_few_times_the_bound() -> None:
    for known in ((), days(1)[:20]):
        assert allowed(known, START + 20, is_share=False) == pytest.approx(3 * LIMIT)
        assert LIMIT < allowed(known, START + 20) < 3 * LIMIT
    assert allowed(days(2)[:40], START + 40 + 20) == pytest.approx(LIMIT), "seen a day before"


def test_the_day_as_a_whole_counts_what_was_not_estimated_as_usual() -> None:
    assert hours.of_the_day(days(3), usual=USUAL, seen=days(3)) == pytest.approx((3 * RUSH + 21 * NIGHT) / 24)
    assert hours.of_the_day(days(1)[7:10], usual=USUAL, seen=days(1)[7:10]) == pytest.approx((3 * RUSH + 21 * USUAL) / 24)
    assert hours.of_the_day(days(3)[-17:-14], usual=USUAL, seen=days(3)) == pytest.approx((3 * RUSH + 21 * USUAL) / 24)


def test_of_the_day_of_an_office_its_night_is_no_part() -> None:
    open_ = tuple(each for each in days(3) if 7 <= each.hour % 24 < 15)
    assert hours.of_the_day(open_, usual=USUAL, seen=open_) == pytest.approx((3 * RUSH + 5 * NIGHT) / 8)
    monday = hours.noted(open_, 3600.0 * (START + 5 * 24 + 7), 3600.0 * (START + 5 * 24 + 8), RUSH)
    assert hours.of_the_day(monday, usual=USUAL, seen=monday) == pytest.approx((RUSH + 7 * USUAL) / 8), "one hour is no day"


def test_a_week_is_remembered_and_nothing_that_lies_ahead() -> None:
    known = days(20)
    assert len(known) == hours.WEEK + 1
    back = hours.noted(known, 3600.0 * (START + 24 * 15), 3600.0 * (START + 24 * 15 + 1), NIGHT)
    assert max(each.hour for each in back) == START + 24 * 15, "a clock that was put ahead"
    twice = hours.noted((), 0.0, 900.0, 0.1)
    assert hours.noted(twice, 900.0, 1800.0, 0.3)[0].loss == pytest.approx(0.2)
