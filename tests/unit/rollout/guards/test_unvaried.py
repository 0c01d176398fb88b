"""Evidence where nothing varies: by how far a loss can reach."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modelyard.rollout.guards import evalues, unvaried
from modelyard.rollout.guards.unvaried import Losses

ENOUGH = math.log(1 / 0.0125)


def test_a_line_gives_what_the_comparison_of_shares_gives() -> None:
    mine, other = Losses(0.03, 4000.0), Losses(0.01, 6000.0)
    two = evalues.Two(120.0, 4000.0, 60.0, 6000.0)
    for factor, shift in ((1.2, 0.0), (1.0, 0.005), (0.9, 0.01)):
        found = unvaried.above(mine, other, lambda share, line=(factor, shift): line[0] * share + line[1])
        assert found == pytest.approx(float(evalues.exceeds(two, (factor, shift))), abs=0.02)
        found = unvaried.below(other, mine, lambda share, line=(factor, shift): line[0] * share + line[1])
        turned = evalues.Two(60.0, 6000.0, 120.0, 4000.0)
        assert found == pytest.approx(float(evalues.falls_short(turned, (factor, shift))), abs=0.02)


def test_evidence_is_one_at_most_on_average_under_its_null() -> None:
    """The control: it grows where the null is false."""
    rng = np.random.default_rng(1)

    def mean(mine: float, other: float, test) -> float:
        drawn = rng.binomial(60, mine, 400) / 60, rng.binomial(90, other, 400) / 90
        found = [test(Losses(a, 60.0), Losses(b, 90.0), lambda share: share + 0.05) for a, b in zip(*drawn, strict=True)]
        return float(np.exp(found).mean())

    assert mean(0.25, 0.2, unvaried.above) <= 1.05
    assert mean(0.25, 0.2, unvaried.below) <= 1.05
    assert mean(0.7, 0.2, unvaried.above) > 20
    assert mean(0.02, 0.5, unvaried.below) > 20


def test_without_a_champion_the_bound_stands_alone() -> None:
    assert unvaried.below(Losses(0.0, 2000.0), None, lambda _: 0.01) > ENOUGH > unvaried.below(Losses(0.0, 100.0), None, lambda _: 0.01)
    assert unvaried.above(Losses(1.0, 100.0), None, lambda _: 0.5) > ENOUGH


def test_bounds_that_no_share_can_keep_are_no_hypotheses() -> None:
    all_lost = Losses(1.0, 1000.0)
    assert unvaried.above(all_lost, all_lost, lambda _: -1.0) == 0.0
    assert unvaried.below(all_lost, all_lost, lambda share: 1.2 * share) > ENOUGH, (
        "the champion's loss is shown to be so large that 1.2 of it is more than all"
    )


def test_the_reach_is_what_lies_farthest_apart() -> None:
    assert unvaried.reach([np.array([1.0, 3.0]), np.zeros(0), np.array([-2.0])]) == 5.0
    assert unvaried.reach([np.ones(3)]) == unvaried.reach([]) == 1.0


def test_limits_hold_what_was_seen() -> None:
    low, high = unvaried.limits(Losses(0.0, 1000.0), 0.05)
    assert low == pytest.approx(0.0, abs=1e-9)
    assert 0 < high < 0.02
