"""Scores that go up and down by the hour are levelled; what rises at all hours is not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from modelyard.monitor import risk
from modelyard.monitor.levels import DAY_S, Levels, levelled
from modelyard.monitor.risk import Risk, Terms

MONDAY = 20_458 * DAY_S  # 2026-01-05


def stream(rng: np.random.Generator, days: int, *, an_hour: int = 20, swing: float = 0.15, times: float = 1.0, begin: int = 0) -> tuple:
    """Errors that are made or not: .2 on average, more or less by `swing` with the hour, twice as much of it at weekends."""
    at = MONDAY + begin * DAY_S + np.arange(days * 24 * an_hour) * (3600.0 / an_hour)
    weekend = (at // DAY_S + 3) % 7 >= 5
    chance = times * (0.2 + swing * np.sin(at / DAY_S * 2 * np.pi) * np.where(weekend, 1.2, 1.0))
    return (rng.random(len(at)) < chance).astype(np.float64), at


def alarms(scores: np.ndarray, at: np.ndarray, *, rows_between: float = 50_000.0) -> list[int]:
    return [each.place for each in risk.feed(Risk(), scores, at, terms=Terms(rows_between=rows_between))[1] if each.kind == "rose"]


def test_a_cycle_of_the_day_raises_many_alarms_and_levelled_hardly_any() -> None:
    raw = flat = 0
    for seed in range(4):
        scores, at = stream(np.random.default_rng(seed), 60)
        _, found = levelled(Levels(), scores, at)
        raw, flat = raw + len(alarms(scores, at)), flat + len(alarms(found, at))
        assert found.min() >= 0.0 and found.max() <= 1.0
    assert raw > 80, "without it"
    assert flat <= raw / 10
    late = at >= MONDAY + 20 * DAY_S
    for hour in range(24):
        assert found[late & (at % DAY_S // 3600 == hour)].mean() == pytest.approx(scores[late].mean(), abs=0.05)


def test_a_rise_at_all_hours_is_found_as_soon() -> None:
    rng = np.random.default_rng(2)
    before, first = stream(rng, 20)
    after, then = stream(rng, 5, times=2.0, begin=20)
    scores, at = np.concatenate([before, after]), np.concatenate([first, then])
    _, found = levelled(Levels(), scores, at)
    (place,) = alarms(found, at, rows_between=1e7)
    assert 0 <= place - len(before) < 24 * 20
    assert found[len(before) :].mean() > 1.7 * found[24 * 20 : len(before)].mean()


def test_without_a_cycle_nothing_is_done() -> None:
    for seed in range(20):
        scores, at = stream(np.random.default_rng(seed), 15, swing=0.0)
        assert np.array_equal(levelled(Levels(), scores, at)[1], scores)


@pytest.mark.parametrize("cuts", [[1], [7, 8, 500, 2_000], list(range(0, 5_000, 97))])
def test_portions_of_any_size_are_levelled_the_same(cuts: list[int]) -> None:
    rng = np.random.default_rng(3)
    scores, at = stream(rng, 12)
    at[3_000:3_400] -= 2 * DAY_S  # labels that came late
    at[4_000:] -= 40 * DAY_S  # a clock that was put back
    whole, found = levelled(Levels(), scores, at)
    kept, parts = Levels(), []
    for first, last in zip([0, *cuts], [*cuts, len(scores)], strict=True):
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=Levels)
        kept, part = levelled(kept, scores[first:last], at[first:last])
        parts.append(part)
    assert np.allclose(np.concatenate(parts), found, rtol=0, atol=1e-9)
    assert kept.day == whole.day and np.allclose(kept.rows, whole.rows) and np.allclose(kept.total, whole.total)


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_scores_that_never_vary_stay_as_they_are(score: float) -> None:
    """Between their hours lies nothing but rounding, which must not be taken for a cycle."""
    for an_hour in (3, 5, 20):
        at = np.sort(MONDAY + np.random.default_rng(100 * an_hour + 40).random(40 * 24 * an_hour) * 40 * DAY_S)
        scores = np.full(len(at), score)
        assert np.array_equal(levelled(Levels(), scores, at)[1], scores)


def test_mondays_that_are_lower_are_levelled_and_weekdays_that_are_alike_are_left() -> None:
    """By the weeks seen so far: what a weekday's few rows show by chance is no cycle."""
    at = MONDAY + np.arange(70 * 24 * 20) * 180.0
    hour, weekday, late = at % DAY_S // 3600, (at // DAY_S + 3) % 7, at >= MONDAY + 42 * DAY_S
    for drop in (0.0, 0.15):
        rng = np.random.default_rng(5)
        chance = 0.35 + 0.15 * np.sin(hour / 24 * 2 * np.pi) - drop * (weekday == 0)
        scores = (rng.random(len(at)) < chance).astype(np.float64)
        _, found = levelled(Levels(), scores, at)
        monday, others = (found[late & (weekday == 0)].mean(), found[late & (weekday != 0)].mean())
        assert monday == pytest.approx(others, abs=0.03)
        assert others - scores[late & (weekday == 0)].mean() == pytest.approx(drop, abs=0.03), "as it was"


def test_what_happens_once_is_no_cycle() -> None:
    """The error doubles at noon of the third day: from then on afternoons were higher than mornings, and no day was like another."""
    rng = np.random.default_rng(6)
    at = MONDAY + np.arange(7 * 24 * 500) * 7.2
    scores = (rng.random(len(at)) < np.where(at < MONDAY + 2.5 * DAY_S, 0.1, 0.2)).astype(np.float64)
    kept, found = levelled(Levels(), scores, at)
    assert not kept.is_sure and np.array_equal(found, scores)


def test_scores_at_their_ends_stay_numbers() -> None:
    at = MONDAY + np.arange(10 * 24 * 20) * 180.0
    always = (at % DAY_S < DAY_S / 2).astype(np.float64)
    _, found = levelled(Levels(), always, at)
    assert np.isfinite(found).all() and found.min() >= 0.0 and found.max() <= 1.0
