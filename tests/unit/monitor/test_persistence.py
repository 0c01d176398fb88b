"""How much of what rows say the row before has said: all of it where days are alike, nothing where rows are drawn one by one."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.monitor import persistence
from modelyard.monitor.persistence import Persistence

USUAL = np.array([[[0.9, 0.1, 0.0]], [[0.5, 0.5, 0.0]]])
MINUTE, HOUR = 60.0, 3600.0


def seen(minutes: np.ndarray, *, step_s: float = MINUTE, usual: np.ndarray = USUAL) -> Persistence:
    found = persistence.begin(1, 3)
    for place, counts in enumerate(minutes):
        found = persistence.grown(found, np.array([counts], dtype=np.float64), place * step_s, usual)
    return found


def drawn(rng: np.random.Generator, count: int, rows: int) -> np.ndarray:
    return rng.multinomial(rows, [0.5, 0.5, 0.0], count)


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_rows_that_are_drawn_one_by_one_all_count(rows: int) -> None:
    assert persistence.fresh(seen(drawn(np.random.default_rng(0), 4000 // rows, rows)))[0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("rows", [1, 40])
def test_rows_in_runs_count_as_the_runs_do(rows: int) -> None:
    rng = np.random.default_rng(0)
    minutes = np.repeat(rng.multinomial(1, [0.5, 0.5, 0.0], 400), 20, axis=0) * rows
    assert persistence.fresh(seen(minutes))[0] == pytest.approx(1 / (20 * rows), rel=0.2)


def test_batches_of_one_caller_count_as_callers_do() -> None:
    rng = np.random.default_rng(0)
    minutes = 10 * drawn(rng, 400, 4)
    assert persistence.fresh(seen(minutes))[0] == pytest.approx(0.1, rel=0.3)


def test_what_never_changed_counts_less_the_longer_it_goes_on() -> None:
    rare = np.array([[[0.98, 0.02, 0.0]]])
    shares = [float(persistence.fresh(seen(np.tile([1, 0, 0], (count, 1)), usual=rare))[0]) for count in (1, 24, 168)]
    assert shares[0] > 0.9 and shares[0] > shares[1] > shares[2] and shares[2] < 0.2


def test_what_was_seen_is_forgotten_and_rows_that_are_missing_say_nothing() -> None:
    rng = np.random.default_rng(0)
    stuck = seen(np.tile([1, 0, 0], (500, 1)))
    later = persistence.grown(stuck, np.zeros((1, 3)), 500 * MINUTE, USUAL)
    assert later.changes == stuck.changes * np.exp(-MINUTE / persistence.MEMORY_S)
    assert later.latest.tolist() == stuck.latest.tolist()
    at = 60 * 86_400.0
    for counts in drawn(rng, 500, 1):
        at += MINUTE
        later = persistence.grown(later, counts[None].astype(np.float64), at, USUAL)
    assert persistence.fresh(later)[0] > 0.85


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    before = seen(drawn(np.random.default_rng(0), 50, 3))
    after = persistence.grown(before, np.array([[1.0, 1.0, 0.0]]), -1e6, USUAL)
    assert after.changes[0] >= before.changes[0] and after.at == before.at
