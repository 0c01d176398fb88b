"""What requests say where the callers were drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modelyard.events import GROUPS, OUTPUT_GROUPS, Callers
from modelyard.rollout.guards import callers
from modelyard.rollout.guards.callers import ALONE, LEAST_GROUPS, best_step, counted, effect, effects, on_sets, spread


def groups(asked, failed) -> Callers:
    return Callers(asked=dict(enumerate(map(int, asked))), failed=dict(enumerate(map(int, failed))))


def drawn(rng, count: int, each: int, *, share: float = 0.1, alike: bool = True) -> Callers:
    """So many callers with as many requests; `alike`: those of one caller all fail or none does."""
    placed = rng.integers(0, GROUPS, count)
    fails = (rng.random(count) < share) * each if alike else rng.binomial(each, share, count)
    return groups(np.bincount(placed, minlength=GROUPS) * each, np.bincount(placed, fails, minlength=GROUPS))


def test_the_variance_between_groups_is_that_of_repetition() -> None:
    """The control: the variance of independent rows is far less."""
    rng = np.random.default_rng(1)
    means, told, alone = [], [], []
    for _ in range(400):
        caller = np.repeat(np.arange(400), rng.geometric(0.1, 400))
        values = rng.normal(size=400)[caller] + rng.normal(size=len(caller))
        means.append(values.mean())
        told.append(spread((values - values.mean()) / len(values), rng.integers(0, GROUPS, 400)[caller]).variance)
        alone.append(values.var() / len(values))
    assert np.mean(told) == pytest.approx(np.var(means), rel=0.2)
    assert np.mean(alone) < 0.2 * np.var(means)


def test_rows_of_their_own_are_as_if_independent() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=20_000)
    found = spread((values - values.mean()) / len(values), np.full(len(values), -1))
    assert found.variance == pytest.approx(1 / len(values), rel=0.3)
    assert found.groups == pytest.approx(GROUPS, rel=0.05)


def test_the_effect_is_the_size_of_callers_whose_requests_are_all_alike_and_one_of_independent_ones() -> None:
    rng = np.random.default_rng(3)
    alike = np.mean([effect(drawn(rng, 3000, 20)).variance for _ in range(30)])
    apart = np.mean([effect(drawn(rng, 3000, 20, alike=False)).variance for _ in range(30)])
    assert alike == pytest.approx(20, rel=0.1)
    assert apart == pytest.approx(1, rel=0.1)


def test_without_groups_each_request_counts_and_without_failures_the_others_effect_holds() -> None:
    rng = np.random.default_rng(4)
    assert effects(Callers(), Callers()) is ALONE
    seen, none = drawn(rng, 3000, 20), drawn(rng, 3000, 20, share=0.0)
    assert math.isnan(effect(none).variance)
    both = effects(none, seen)
    assert both.mine == both.other > 10
    assert effects(none, none)[:2] == (1.0, 1.0)
    assert effects(seen, Callers()).other == 1.0 and effects(seen, Callers()).is_shared
    assert effects(drawn(rng, 3000, 20, alike=False), seen).mine >= 1.0


def test_each_of_too_few_groups_counts_once() -> None:
    few = groups([100] * int(LEAST_GROUPS - 1), [50] * int(LEAST_GROUPS - 1))
    enough = groups([100] * int(LEAST_GROUPS), [50] * int(LEAST_GROUPS))
    large = groups([100_000] + [1] * 200, [50_000] + [0] * 200)
    assert effects(few, enough)[:2] == (100, 1) and effects(enough, few)[:2] == (1, 100)
    assert effects(large, enough).mine == 100_000
    all_failed, none = groups([100, 50], [100, 50]), groups([30] * 50, [0] * 50)
    assert effects(all_failed, none)[:2] == (100, 30), "whose effect is not known by itself has the other's, as far as its own groups reach"


def test_rows_are_counted_by_the_groups_of_their_callers() -> None:
    found = counted(np.array([True, False, True, True]), np.array([3, 3, 5, -1]))
    assert (found.asked[3], found.failed[3], found.asked[5], found.failed[5], sum(found.asked.values())) == (2, 1, 1, 1, 4)
    assert counted(np.array([True, False]), np.array([-1, -1])) == counted(np.array([True, False]), np.zeros(0)) == Callers()


def test_the_best_step_has_its_part_of_the_level() -> None:
    """A union bound: the parts of all steps, however many, come to one."""
    assert sum(1 / ((step + 1) * (step + 2)) for step in range(100_000)) == pytest.approx(1, abs=1e-4)
    assert best_step([5.0]) == pytest.approx(5 - math.log(2))
    assert best_step([1.0, 5.0]) == pytest.approx(5 - math.log(6))
    assert best_step([-3.0, -9.0]) == best_step([]) == 0.0


def test_nothing_was_asked() -> None:
    assert callers.spread(np.zeros(0), np.zeros(0, dtype=np.int64)).groups == 0
    assert effect(Callers()).groups == 0


def binned(table) -> Callers:
    return Callers(asked={0: int(np.sum(table))}, outputs={"score": tuple(np.asarray(table, dtype=int).ravel().tolist())})


def test_the_effect_on_a_set_of_bins_is_that_on_a_share() -> None:
    rng = np.random.default_rng(6)
    sets = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    table = np.stack([rng.multinomial(each, rng.dirichlet([2, 1, 1])) for each in rng.integers(50, 200, OUTPUT_GROUPS)])
    rows = table.sum()
    found, most = on_sets(binned(table), "score", sets, float(rows))
    assert most.tolist() == [table.sum(axis=1).max()] * 3
    for each, hits in zip(found, (table[:, 0], table[:, :2].sum(axis=1), table[:, 2]), strict=True):
        assert each == pytest.approx(effect(groups(table.sum(axis=1), hits)).variance)
    assert on_sets(binned(table), "score", sets, rows / 4).effect == pytest.approx(found / 4), "four rows of a request are one"
    nothing = on_sets(binned(table * [1, 1, 0]), "score", sets, float(table[:, :2].sum())).effect
    assert np.isnan(nothing).tolist() == [False, True, True], "where nothing varies"


def test_the_effect_on_bins_of_few_groups_or_of_none_counted_is_the_size_of_the_largest() -> None:
    few = np.zeros((OUTPUT_GROUPS, 2))
    few[:4] = 50, 30
    assert on_sets(binned(few), "score", np.eye(2), 320.0).effect.tolist() == [80, 80]
    for outputs in ({}, {"other": (1, 1)}, {"score": (1,) * OUTPUT_GROUPS}, {"score": (0,) * 2 * OUTPUT_GROUPS}):
        assert on_sets(Callers(asked={1: 30, 2: 10}, outputs=outputs), "score", np.eye(2), 20.0).effect.tolist() == [15, 15]
    assert on_sets(Callers(), "score", np.eye(2), 20.0).effect.tolist() == [1, 1], "each request was drawn for itself"


def test_the_best_step_is_found_for_each_of_many() -> None:
    assert best_step([np.array([5.0, 0.0]), np.array([1.0, 9.0])]) == pytest.approx([5 - math.log(2), 9 - math.log(6)])
