"""The axioms of Shapley values, on games drawn at random: exact enumeration holds them exactly, sampling within its own error."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.explain import shapley
from modelyard.explain.shapley import Game, Values


class Table:
    """A game given by its value for each coalition and background row."""

    def __init__(self, worth: np.ndarray) -> None:
        self.worth = worth
        self.rows, coalitions = worth.shape
        self.features = coalitions.bit_length() - 1

    def value(self, masks: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.worth[rows, masks @ (1 << np.arange(self.features))])


def always() -> bool:
    return True


def exact(game: Game) -> Values:
    return shapley.exact(game, may_go_on=always)


def sampled(game: Game, *, evaluations: int = 20_000, seed: int = 0) -> Values:
    return shapley.sampled(game, evaluations=evaluations, may_go_on=always, seed=seed)


REAL = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def games(draw: st.DrawFn, *, players: int | None = None, rows: int | None = None) -> Table:
    players = draw(st.integers(1, 5)) if players is None else players
    rows = draw(st.integers(1, 4)) if rows is None else rows
    size = rows * 2**players
    return Table(np.array(draw(st.lists(REAL, min_size=size, max_size=size))).reshape(rows, -1))


def brute(game: Table) -> np.ndarray:
    """The definition: the mean over all orders of what each player adds."""
    worth = game.worth.mean(axis=0)
    orders = list(itertools.permutations(range(game.features)))
    found = np.zeros(game.features)
    for order in orders:
        coalition = 0
        for player in order:
            found[player] += worth[coalition | 1 << player] - worth[coalition]
            coalition |= 1 << player
    return found / len(orders)


@given(games())
@settings(deadline=None, max_examples=60)
def test_enumeration_is_the_definition(game: Table) -> None:
    np.testing.assert_allclose(exact(game).contributions, brute(game), rtol=1e-9, atol=1e-6)


@given(games())
@settings(deadline=None, max_examples=60)
def test_contributions_sum_to_the_answer_less_the_base(game: Table) -> None:
    for values in (exact(game), sampled(game, evaluations=0)):
        total = values.value - values.base
        assert abs(math.fsum(values.contributions) - total) <= 4 * np.spacing(max(abs(total), np.abs(values.contributions).max(), 1e-300))
        assert math.isclose(values.base, game.worth[:, 0].mean(), rel_tol=1e-12, abs_tol=1e-9)
        assert math.isclose(values.value, game.worth[:, -1].mean(), rel_tol=1e-12, abs_tol=1e-9)


@given(games(), st.data())
@settings(deadline=None, max_examples=40)
def test_a_player_that_changes_nothing_gets_nothing(game: Table, data: st.DataObject) -> None:
    player = data.draw(st.integers(0, game.features - 1))
    subsets = np.arange(2**game.features)
    game.worth = game.worth[:, subsets & ~(1 << player)]
    for values in (exact(game), sampled(game, evaluations=0)):
        assert abs(values.contributions[player]) <= 1e-6 and values.errors[player] <= 1e-6


@given(games(players=4), st.data())
@settings(deadline=None, max_examples=40)
def test_players_that_may_change_places_get_the_same(game: Table, data: st.DataObject) -> None:
    one, other = data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=2, unique=True))
    subsets = np.arange(16)
    swapped = subsets & ~(1 << one | 1 << other) | (subsets >> one & 1) << other | (subsets >> other & 1) << one
    game.worth = (game.worth + game.worth[:, swapped]) / 2
    contributions = exact(game).contributions
    np.testing.assert_allclose(contributions[one], contributions[other], atol=1e-6)


@given(st.data(), REAL)
@settings(deadline=None, max_examples=40)
def test_the_values_of_a_sum_of_games_are_the_sums_of_their_values(data: st.DataObject, factor: float) -> None:
    first, second = data.draw(games(players=3, rows=2)), data.draw(games(players=3, rows=2))
    factor = factor / 1e6
    both = Table(first.worth + factor * second.worth)
    np.testing.assert_allclose(exact(both).contributions, exact(first).contributions + factor * exact(second).contributions, rtol=1e-9, atol=1e-6)


@given(games(rows=3), st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_sampling_lies_within_its_error(game: Table, seed: int) -> None:
    values = sampled(game, seed=seed)
    assert (np.abs(values.contributions - brute(game)) <= 6 * values.errors + 1e-6 * max(1.0, np.abs(game.worth).max() * 0.2)).all()


@given(st.lists(REAL, min_size=6, max_size=6), st.lists(st.lists(REAL, min_size=6, max_size=6), min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_an_additive_game_is_found_without_error(row: list[float], background: list[list[float]]) -> None:
    x, others = np.array(row), np.array(background)

    class Linear:
        features, rows = 6, len(others)

        def value(self, masks: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return np.asarray(np.where(masks, x, others[rows]).sum(axis=1))

    for values in (exact(Linear()), sampled(Linear(), evaluations=0)):
        np.testing.assert_allclose(values.contributions, x - others.mean(axis=0), rtol=1e-6, atol=1e-3)
