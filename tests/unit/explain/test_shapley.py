"""Sampling Shapley values: when it ends, what it costs, and what it says of its error."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.errors import DeadlineExceeded
from modelyard.explain import shapley
from modelyard.explain.shapley import cost_exact, cost_round


class Product:
    """A game whose players depend on each other; it counts what it is asked."""

    def __init__(self, features: int = 6, rows: int = 10) -> None:
        random = np.random.default_rng(1)
        self.features, self.rows = features, rows
        self.x, self.background = random.normal(1, 1, features), random.normal(1, 1, (rows, features))
        self.asked = 0

    def value(self, masks: np.ndarray, rows: np.ndarray) -> np.ndarray:
        self.asked += len(rows)
        return np.asarray(np.where(masks, self.x, self.background[rows]).prod(axis=1))


def always() -> bool:
    return True


def test_the_error_falls_with_what_is_spent_and_holds() -> None:
    truth = shapley.exact(Product(), may_go_on=always)
    assert not truth.errors.any() and truth.is_exact
    few, many = (shapley.sampled(Product(), evaluations=cost, may_go_on=always) for cost in (500, 50_000))
    assert many.errors.max() < few.errors.max() / 2
    for values in (few, many):
        assert not values.is_exact
        assert (np.abs(values.contributions - truth.contributions) < 5 * values.errors + 1e-9).all()
        assert (values.base, values.value) == (pytest.approx(truth.base), pytest.approx(truth.value))


def test_antithetic_pairs_are_better_than_as_many_single_permutations() -> None:
    """What the method is for: on a game of pairs the reverse of a permutation cancels most of its error."""

    class Pairs(Product):
        def value(self, masks: np.ndarray, rows: np.ndarray) -> np.ndarray:
            chosen = np.where(masks, self.x, self.background[rows])
            return np.asarray(chosen[:, 0] * chosen[:, 1] + chosen[:, 2] * chosen[:, 3])

    truth = shapley.exact(Pairs(), may_go_on=always)
    values = shapley.sampled(Pairs(), evaluations=0, may_go_on=always)
    np.testing.assert_allclose(values.contributions, truth.contributions, atol=1e-12)


def test_it_ends_when_it_is_close_or_the_evaluations_are_spent() -> None:
    game = Product()
    values = shapley.sampled(game, evaluations=3_000, may_go_on=always)
    assert game.asked == values.evaluations <= 3_000
    one = cost_round(6, 10)
    close = shapley.sampled(game, evaluations=10**9, may_go_on=always)
    assert close.errors.max() <= shapley.CLOSE * np.abs(close.contributions).max() and close.evaluations < 10**7
    assert (close.evaluations - 20) % one == 0


def test_the_same_question_gets_the_same_answer() -> None:
    first, second = (shapley.sampled(Product(), evaluations=2_000, may_go_on=always) for _ in range(2))
    assert first.contributions.tolist() == second.contributions.tolist()


def test_time_that_is_up_early_is_an_error_and_later_an_end() -> None:
    with pytest.raises(DeadlineExceeded):
        shapley.sampled(Product(), evaluations=10**9, may_go_on=lambda: False)
    with pytest.raises(DeadlineExceeded):
        shapley.exact(Product(), may_go_on=lambda: False)
    looks = iter([True] * 7)
    values = shapley.sampled(Product(), evaluations=10**9, may_go_on=lambda: next(looks, False))
    assert values.evaluations < 2_000 and values.errors.max() > 0


def test_many_players_are_asked_in_parts() -> None:
    class Wide(Product):
        largest = 0

        def value(self, masks: np.ndarray, rows: np.ndarray) -> np.ndarray:
            self.largest = max(self.largest, len(rows))
            return np.asarray(np.where(masks, self.x, self.background[rows]).sum(axis=1))

    game = Wide(features=300, rows=64)
    values = shapley.sampled(game, evaluations=0, may_go_on=always)
    assert game.largest <= shapley.AT_ONCE
    np.testing.assert_allclose(values.contributions, game.x - game.background.mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("features", [1, 2])
def test_one_or_two_players(features: int) -> None:
    truth = shapley.exact(Product(features, 3), may_go_on=always)
    values = shapley.sampled(Product(features, 3), evaluations=0, may_go_on=always)
    np.testing.assert_allclose(values.contributions, truth.contributions, atol=1e-12)


def test_costs() -> None:
    assert cost_exact(3, 10) == 80 and cost_exact(500, 1) > 10**15
    assert cost_round(3, 10) == 40 and cost_round(1, 10) == 0
