from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.monitor import anomalies
from modelyard.monitor.anomalies import LEAST, RARE, Course, Point, Tail, unpack

DAY = 1440


def scores(values: np.ndarray, *, course: Course | None = None, begin: int = 0) -> list[Point]:
    course = Course() if course is None else course
    return [course.see(60.0 * (begin + at), float(value)) for at, value in enumerate(values)]


def noise(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def daily(minutes: int, *, seed: int = 0) -> np.ndarray:
    at = np.arange(minutes)
    return 100 + 20 * np.sin(2 * np.pi * at / DAY) + noise(minutes, seed=seed)


def test_nothing_is_said_before_anything_is_known() -> None:
    assert {point.score for point in scores(noise(LEAST))} == {0.0}


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_as_rarely_unusual_as_it_says(seed: int) -> None:
    found = scores(noise(20_000, seed=seed))[2000:]
    for chance in (1e-2, 1e-3):
        assert sum(point.chance <= chance for point in found) <= 2.5 * chance * len(found), "up and down"
    assert sum(point.score >= anomalies.THRESHOLD for point in found) <= len(found) / 150


@pytest.mark.parametrize("change", ["spike", "level"])
def test_each_kind_of_change_is_found_at_once(change: str) -> None:
    after = noise(200, seed=1)
    after = np.where(np.arange(200) == 0, 15.0, after) if change == "spike" else after + 12
    found = scores(np.concatenate([noise(5000), after]))
    assert found[5000].score >= anomalies.THRESHOLD
    assert sum(point.score >= anomalies.THRESHOLD for point in found[500:5000]) <= 4500 / 150


def test_a_fall_counts_as_a_rise_does() -> None:
    values = np.concatenate([noise(3000), [-15.0]])
    last = scores(values)[-1]
    assert last.score >= anomalies.THRESHOLD
    assert last.departure < -10


def test_a_cycle_is_found_and_what_breaks_it_alone_is_news() -> None:
    values = daily(10 * DAY)
    night = 9 * DAY + 3 * DAY // 4  # the low of a day
    values[night] = 100.0  # usual at another hour
    found = scores(values)
    assert found[night].score >= anomalies.THRESHOLD
    assert found[night].expected == pytest.approx(80, abs=1.5)
    assert sum(point.score >= anomalies.THRESHOLD for point in found[5 * DAY : night]) <= 2


def test_the_days_of_a_week_are_told_apart_where_they_differ() -> None:
    hours = np.arange(6 * 7 * 24)
    weekend = (hours // 24) % 7 >= 5
    values = np.where(weekend, 20.0, 100.0) + noise(len(hours))
    course = Course()
    found = [course.see(3600.0 * at, float(value)) for at, value in enumerate(values)]
    assert course.week.gain < course.day.gain
    assert [point.expected for point in found[-48:]] == pytest.approx([20] * 48, abs=2)
    assert all(point.score < anomalies.THRESHOLD for point in found[4 * 168 :])


def test_a_series_without_a_cycle_is_given_none() -> None:
    course = Course()
    scores(noise(10 * DAY), course=course)
    assert min(course.day.gain, course.week.gain) >= anomalies._GAIN


def test_what_goes_on_is_rare_and_no_news() -> None:
    found = scores(np.concatenate([noise(3000), noise(30, seed=1) + 20]))[3000:]
    assert found[0].score >= anomalies.THRESHOLD
    assert sum(point.score >= anomalies.THRESHOLD for point in found) <= 5
    assert all(point.chance <= RARE for point in found[2:]), "from the third of five on"


def test_a_constant_series_and_the_smallest_change_of_one_are_nothing() -> None:
    found = scores(np.concatenate([np.full(3000, 50.0), np.full(10, 50.01)]))
    assert {point.score for point in found[:3000]} == {0.0}
    course = Course()
    for at in range(3000):
        course.see(60.0 * at, 50.0 + at % 2, noise=5.0)
    assert course.see(60.0 * 3000, 54.0, noise=5.0).chance > RARE, "less than the error of the figure"


def test_what_is_no_number_or_comes_again_is_neither_judged_nor_learnt() -> None:
    course = Course()
    scores(noise(500), course=course)
    before = course.pack()
    for at, value in [(60.0 * 500, math.nan), (60.0 * 501, math.inf), (60.0 * 100, 1.0), (60.0 * 499, 1.0)]:
        assert course.see(at, value).score == 0.0
    assert course.pack() == before


def test_large_gaps_and_values_are_borne() -> None:
    course = Course()
    for at, value in [(0.0, 1e308), (60.0, -1e308), (1e12, 5e-324), (1e12 + 60, 0.0)] + [(2e12 + at, 1e300 * (at % 3)) for at in range(300)]:
        point = course.see(at, value)
        assert 0 <= point.score <= 1
        assert 0 <= point.chance <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(150, 400), st.integers(0, 2**31))
def test_a_state_goes_on_as_if_it_had_never_been_put_away(until: int, seed: int) -> None:
    values = daily(600, seed=seed)
    whole = scores(values)
    course = Course()
    scores(values[:until], course=course)
    again = unpack(course.pack())
    assert again is not None
    assert scores(values[until:], course=again, begin=until) == whole[until:]


@pytest.mark.parametrize("data", [b"", b"no", msgspec.msgpack.encode({"form": 99}), msgspec.msgpack.encode([1, 2])])
def test_bytes_of_another_form_are_no_state(data: bytes) -> None:
    assert unpack(data) is None


def test_the_state_stays_small() -> None:
    course = Course()
    scores(daily(40 * DAY), course=course)
    assert len(course.pack()) < 8_000


def test_a_tail_says_how_often_as_large_a_one_comes() -> None:
    rng = np.random.default_rng(3)
    tail = Tail()
    for size in rng.pareto(3.0, size=30_000) + 1:
        tail.add(float(size))
    for size in (10.0, 20.0, 40.0):
        assert tail.chance(size) == pytest.approx(size**-3.0, rel=0.8)
    assert tail.chance(1.0) == 1.0
