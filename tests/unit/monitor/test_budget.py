"""The alarm budget is divided whole, what has no weight has no share, and what is left is told."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.monitor import budget
from modelyard.monitor.profile import FeatureProfile

DAY_S = 86_400.0


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e9), max_size=20), st.floats(0.001, 1000))
def test_shares_are_the_whole_in_proportion_to_weights(weights: dict[str, float], total: float) -> None:
    shares = budget.split(total, weights)
    assert set(shares) == set(weights)
    if any(weights.values()):
        assert math.fsum(shares.values()) == pytest.approx(total)
    else:
        assert not any(shares.values())


def test_what_has_no_weight_or_none_that_is_known_has_no_share() -> None:
    assert budget.split(1.0, {"a": 0.0, "b": math.nan, "c": -1.0, "d": 3.0, "e": 1.0}) == {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.75, "e": 0.25}
    assert budget.blocks_between(0.0) == math.inf


def test_a_share_is_a_time_between_false_pages() -> None:
    assert budget.blocks_between(1.0) == pytest.approx(30.4375 * 24 * 60)
    assert budget.blocks_between(0.01) == pytest.approx(100 * budget.blocks_between(1.0))


def feature(name: str, role: str = "input") -> FeatureProfile:
    return FeatureProfile(name=name, role=role, kind="number", source=name)  # type: ignore[arg-type]


def test_streams_weigh_by_importance_and_outputs_double() -> None:
    features = [feature("a"), feature("b"), feature("unused"), feature("prediction", "output")]
    assert budget.stream_weights(features, {"a": 0.75, "b": 0.25, "unused": 0.0}) == [1.5, 0.5, 0.0, 2.0]
    assert budget.stream_weights(features, {"a": 1.0}) == [1.0, 0.0, 0.0, 2.0]
    assert budget.stream_weights(features, {}) == [1.0, 1.0, 1.0, 2.0]
    assert budget.stream_weights(features, {"a": 0.0, "b": 0.0}) == [0.0, 0.0, 0.0, 2.0]


def test_pages_of_the_last_month_are_spent() -> None:
    now = 100 * DAY_S
    found = budget.account([now - 40 * DAY_S, now - 3 * DAY_S, now, now + 1], allowed=3.0, now=now)
    assert (found.spent, found.left) == (2, 1.0)
    assert found.chance == pytest.approx(1 - 4 * math.exp(-3))
    none = budget.account([], allowed=1.0, now=now)
    assert (none.spent, none.left, none.chance) == (0, 1.0, 1.0)
    over = budget.account([now] * 5, allowed=1.0, now=now)
    assert over.left == 0.0
    assert over.chance < 0.01


def test_who_needs_little_has_no_more_and_the_others_share_the_rest() -> None:
    assert budget.shares(1.0, {"a": None, "b": 0.1, "c": None}) == pytest.approx({"a": 0.45, "b": 0.1, "c": 0.45})
    assert budget.shares(0.3, {"a": None, "b": 0.2, "c": None}) == pytest.approx({"a": 0.1, "b": 0.1, "c": 0.1}), "never more than alike"
    assert budget.shares(1.0, {"b": 0.2}) == {"b": 0.2} and budget.shares(1.0, {}) == {} and budget.shares(1.0, {"a": None}) == {"a": 1.0}
