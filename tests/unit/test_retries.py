from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.retries import LONGEST_S, MOST, RESERVE, SHARE, TRIES, Budget, pause_s


@given(st.lists(st.booleans(), max_size=500))
def test_tries_again_stay_within_their_share(events: list[bool]) -> None:
    budget, asked, taken = Budget(), 0, 0
    for is_request in events:
        if is_request:
            budget.asked()
            asked += 1
        else:
            taken += budget.take()
        assert taken <= RESERVE + SHARE * asked + 1e-6


def storm(budget: Budget | None) -> float:
    """How often a server that fails half of everything is asked per request."""
    draw, tries = random.Random(7), 0
    for _ in range(20_000):
        if budget is not None:
            budget.asked()
        for _ in range(TRIES + 1):
            tries += 1
            if draw.random() < 0.5 or (budget is not None and not budget.take()):
                break
    return tries / 20_000


def test_a_storm_is_damped_and_would_not_be_without_the_budget() -> None:
    assert storm(Budget()) <= 1.2 + RESERVE / 20_000
    assert storm(None) > 1.7


def test_quiet_times_save_up_a_little_and_one_try_is_five_requests() -> None:
    budget = Budget(reserve=0)
    for _ in range(5):
        assert not budget.take()
        budget.asked()
    assert budget.take()
    for _ in range(1000):
        budget.asked()
    assert sum(budget.take() for _ in range(1000)) == MOST


@pytest.mark.parametrize(
    ("tries", "draw", "after", "expected"), [(1, 0.0, 0.0, 0.0), (1, 1.0, 0.0, 0.1), (2, 0.5, 1.0, 1.1), (50, 1.0, 0.0, LONGEST_S)]
)
def test_the_pause_doubles_to_a_bound_at_random_above_what_was_asked_for(tries: int, draw: float, after: float, expected: float) -> None:
    assert pause_s(tries, draw, retry_after_s=after) == pytest.approx(expected)
