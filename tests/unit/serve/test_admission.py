from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.serve.admission import FLOOR, RELAX_S, WINDOW_S, Limit, Pace, remaining_s

RUN_S = 0.005


def flood(limit: Limit, now: float, *, runs: int, run_s: float = RUN_S) -> float:
    """A model that answers one request per run, with ten times more asking: every place is taken, and each answer waited behind all others."""
    for _ in range(runs):
        limit.press()
        now += run_s
        limit.ran(limit.value * run_s, run_s, now)
    return now


def test_nobody_is_turned_away_while_the_ceiling_is_not_met_however_long_the_queue() -> None:
    limit = Limit(256, 0.0)
    for turn in range(1000):
        assert not limit.ran(32 * RUN_S, RUN_S, turn * RUN_S)
    assert limit.value == 256


def test_a_flood_brings_it_down_in_moments_and_it_rises_again_when_the_flood_ends() -> None:
    limit = Limit(256, 0.0)
    now = flood(limit, 0.0, runs=20)
    assert limit.value <= 8
    now = flood(limit, now, runs=1000)
    assert limit.value == FLOOR
    for _ in range(400):
        now += 0.01
        limit.ran(RUN_S, RUN_S, now)
    assert limit.value == 256


def test_a_run_that_failed_at_once_is_no_measure() -> None:
    limit = Limit(256, 0.0)
    limit.press()
    limit.ran(1.0, 0.0, 0.1)
    assert limit.value == 256


def test_a_queue_that_stands_for_long_does_not_become_what_is_normal() -> None:
    limit = Limit(256, 0.0)
    flood(limit, 0.0, runs=int(10 * WINDOW_S / RUN_S))
    assert limit.value == FLOOR


def test_a_model_that_gains_by_batches_keeps_them_under_a_flood() -> None:
    """A run of n rows takes 5 ms and 30 µs a row; half of what is held runs while the other half gathers."""
    limit, now = Limit(256, 0.0), 0.0
    for _ in range(2000):
        limit.press()
        run_s = RUN_S + 0.00003 * limit.value / 2
        now += run_s
        limit.ran(2 * run_s, run_s, now)
    assert limit.value > 48


def test_a_model_that_becomes_slower_has_its_new_pace_within_one_window() -> None:
    limit = Limit(256, 0.0)
    now = flood(limit, 0.0, runs=400)
    now = flood(limit, now, runs=int(2 * WINDOW_S / 0.05) + 1, run_s=0.05)
    for turn in (1, 2):
        limit.press()
        limit.ran(2 * 0.05, 0.05, now + turn * 0.05)  # two runs of the new length are no queue
    assert limit.value > FLOOR


@pytest.mark.parametrize("jump_s", [3600.0, -86400.0])
def test_a_clock_that_jumps_costs_no_more_than_a_window(jump_s: float) -> None:
    limit = Limit(256, 0.0)
    now = flood(limit, 0.0, runs=400) + jump_s
    until = now + 2 * WINDOW_S
    while now < until:
        now += RELAX_S / 2
        limit.ran(RUN_S, RUN_S, now)
    assert limit.value == 256
    flood(limit, now + jump_s, runs=40)
    assert limit.value <= 8


@given(st.integers(1, 1000), st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.floats(0, 100), st.floats(-1e6, 1e6))))
def test_it_stays_within_its_bounds(ceiling: int, runs: list[tuple[bool, float, float, float]]) -> None:
    limit = Limit(ceiling, 0.0)
    for is_pressed, latency_s, run_s, now in runs:
        if is_pressed:
            limit.press()
        assert limit.ran(latency_s, run_s, now) is is_pressed
        assert FLOOR <= limit.value <= max(FLOOR, ceiling)


def test_the_pace_follows_what_runs_take() -> None:
    pace = Pace()
    pace.expect(10.0)
    for _ in range(200):
        pace.learn(1, 0.001)
        pace.learn(10, 0.011)
    assert pace.of_run(1) == pytest.approx(0.001, rel=0.01)
    assert pace.of_run(10) == pytest.approx(0.011, rel=0.01)
    assert pace.of_queue(25, 10) == pytest.approx(2 * 0.011 + 0.006, rel=0.01)
    assert pace.of_queue(0, 10) == 0
    assert pace.of_queue(7, 1) == pytest.approx(0.007, rel=0.01)


def test_one_strange_run_does_not_change_what_is_expected_and_two_of_a_few_do() -> None:
    """Another process had the core for 5 ms; a run that is expected to take so long would go to a thread for the next dozen times."""
    pace = Pace()
    pace.expect(10e-6, 1e-6)
    pace.learn(1, 5e-3)
    assert pace.of_run(1) == 10e-6
    for _ in range(round(1 / Pace.FORGOTTEN)):
        pace.learn(1, 10e-6)
    pace.learn(1, 5e-3)
    assert pace.of_run(1) == pytest.approx(10e-6)
    pace.learn(1, 10e-6)
    pace.learn(1, 5e-3)  # every other run: it is the model
    assert pace.of_run(1) > 0.3e-3


def test_rows_beyond_the_first_have_a_price_of_their_own() -> None:
    pace = Pace()
    pace.expect(10e-6, 1e-6)
    assert pace.of_run(1) == 10e-6
    assert pace.of_run(32) == pytest.approx(42e-6)
    pace.expect(10e-6)
    assert pace.of_run(32) == pytest.approx(330e-6)


def test_an_overdue_run_is_taken_to_last_as_long_again() -> None:
    assert remaining_s(until_s=5.0, started_s=1.0, now=2.0) == 3.0
    assert remaining_s(until_s=5.0, started_s=1.0, now=9.0) == 8.0
