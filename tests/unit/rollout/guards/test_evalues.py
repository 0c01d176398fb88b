"""E-processes: never above 1 on average under their nulls, and the least over a nuisance is found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modelyard.rollout.guards import evalues
from modelyard.rollout.guards.evalues import Two


def expected(trials: int, chance: float, bound: float, test) -> float:
    """The exact mean of the evidence after so many trials."""
    hits = np.arange(trials + 1)
    weights = [math.log(math.comb(trials, hit)) + hit * math.log(chance) + (trials - hit) * math.log1p(-chance) for hit in hits.tolist()]
    return float(np.exp(np.array(weights) + test(hits, trials, bound)).sum())


@pytest.mark.parametrize("trials", [1, 7, 200])
@pytest.mark.parametrize("bound", [0.005, 0.3, 0.9])
def test_evidence_against_a_share_is_one_on_average_at_the_bound_and_less_within(trials: int, bound: float) -> None:
    assert expected(trials, bound, bound, evalues.above) == pytest.approx(1)
    assert expected(trials, bound, bound, evalues.below) == pytest.approx(1)
    assert expected(trials, bound / 2, bound, evalues.above) < 1
    assert expected(trials, (1 + bound) / 2, bound, evalues.below) < 1
    assert expected(trials, min(1.5 * bound, (1 + bound) / 2), bound, evalues.above) > 1  # the control: it does grow where the null is false


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (1.5, 0.0), (1.0, 0.1), (0.9, 0.05), (1.0, -0.1)])
@pytest.mark.parametrize("theta", [0.2, 0.5])
def test_comparisons_are_one_at_most_on_average_wherever_the_champion_is(factor: float, shift: float, theta: float) -> None:
    mine, other = 40, 120
    hits, other_hits = np.meshgrid(np.arange(mine + 1), np.arange(other + 1), indexing="ij")

    def mean(chance: float, test) -> float:
        weights = np.outer(
            [math.comb(mine, k) * chance**k * (1 - chance) ** (mine - k) for k in range(mine + 1)],
            [math.comb(other, k) * theta**k * (1 - theta) ** (other - k) for k in range(other + 1)],
        )
        return float((weights * np.exp(test(Two(hits, mine, other_hits, other), (factor, shift)))).sum())

    bound = factor * theta + shift
    assert mean(bound, evalues.exceeds) <= 1 + 1e-9
    assert mean(bound, evalues.falls_short) <= 1 + 1e-9
    assert mean(min(0.95, bound + 0.4), evalues.exceeds) > 1
    assert mean(max(0.0, bound - 0.4), evalues.falls_short) > 1 or bound < 0.15


def test_the_least_over_the_champions_share_is_found() -> None:
    two, line = Two(48.0, 2000.0, 520.0, 100_000.0), (1.5, 0.001)
    grid = np.linspace(1e-5, 0.6, 200_001)
    least = evalues.at_share(grid, two, line).min()
    assert evalues.exceeds(two, line) == pytest.approx(least, abs=1e-4)


def test_a_champion_without_requests_proves_nothing() -> None:
    assert evalues.exceeds(Two(50, 50, 0, 0), (1.0, 0.0)) <= 1e-6
    assert evalues.falls_short(Two(0, 50, 0, 0), (1.0, 0.0)) <= 1e-6


def test_a_line_beyond_all_shares_says_nothing() -> None:
    assert evalues.exceeds(Two(50, 50, 0, 50), (1.0, 1.0)) == 0


def test_a_late_fault_need_not_outweigh_what_was_well_before() -> None:
    hits, trials = np.array([10.0, 60.0]), np.array([20_000.0, 2_000.0])

    def since(first: int) -> np.ndarray:
        return evalues.above(hits[first:].sum(), trials[first:].sum(), 0.005)

    assert since(0) < 0
    assert evalues.from_any_step(since, 2) > math.log(1000)


def test_steps_of_nothing_change_nothing_but_their_own_stake() -> None:
    assert evalues.from_any_step(lambda _: np.zeros(()), 5) == pytest.approx(0)
    assert evalues.from_any_step([], 0) == 0
    parts = [np.asarray(2.0), np.asarray(-1.0), np.asarray(0.5)]
    assert evalues.from_any_step(parts, 3) == pytest.approx(math.log(math.exp(1.5) / 2 + math.exp(-0.5) / 6 + math.exp(0.5) / 12 + 1 / 4))


def test_limits_hold_the_share_and_shrink() -> None:
    wide, narrow = evalues.limits(3, 100, 0.05), evalues.limits(300, 10_000, 0.05)
    assert 0 < wide[0] < narrow[0] < 0.03 < narrow[1] < wide[1] < 1
    assert evalues.limits(0, 0, 0.05) == (0.0, 1.0)
    assert evalues.limits(0, 50, 0.05)[0] == pytest.approx(0, abs=1e-9)


def test_evidence_on_means_is_one_on_average_and_silent_without_variance() -> None:
    rng = np.random.default_rng(5)
    draws = rng.normal(scale=0.1, size=100_000)
    assert np.mean([math.exp(evalues.mean_exceeds(draw, 0.01, 100)) for draw in draws]) == pytest.approx(1, abs=0.05)
    assert evalues.mean_exceeds(1.0, 0.0, 100) == evalues.mean_exceeds(1.0, math.nan, 100) == 0
    assert evalues.mean_exceeds(-50.0, 1.0, 1e6) < -1  # far on the other side the tail neither fails nor rises
