"""Shapley values of a game: exact for few players, else by antithetic permutation sampling with its standard error.

Pure. The game is that of a prediction: players are features; a coalition's value is the mean answer over background rows in which the coalition's
features are those of the explained row (the interventional, or marginal, expectation). Laws (`tests/property/test_shapley_laws.py`): contributions
sum to v(all) - v(none) exactly; a player that changes nothing gets nothing; symmetric players get the same; the values are linear in the game.
Sources: Shapley 1953; Štrumbelj and Kononenko 2014 (sampling of permutations and background rows); Mitchell, Cooper, Frank and Holmes 2022
(antithetic permutations).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from modelyard.errors import DeadlineExceeded

if TYPE_CHECKING:
    from modelyard.explain.base import MayGoOn
    from modelyard.types import Array

AT_ONCE = 1024
"""Rows that are asked of the game together: memory is bounded, time is looked at in between, and the interpreter is never held for long."""

CLOSE = 0.01
"""Sampling ends when no contribution's standard error is above this share of the largest contribution."""

FEWEST_ROUNDS = 2
"""An error cannot be told from fewer."""

TRUSTED_ROUNDS = 8
"""Sampling does not call itself close before: what happens in few orders only is missed by few rounds, and so is the error that it makes."""


class Game(Protocol):
    """`features` players over `rows` background rows."""

    features: int
    rows: int

    def value(self, masks: Array, rows: Array) -> Array:
        """float64 [k]: for each of k coalitions (bool [k, features]) its value against one background row (int [k])."""
        ...


class Values(NamedTuple):
    """What was found: contributions and their standard errors (zeros where exact), v(none), v(all), and the rows that the game was asked for."""

    contributions: Array
    errors: Array
    base: float
    value: float
    evaluations: int
    is_exact: bool


def cost_exact(features: int, rows: int) -> int:
    """Evaluations of `exact`."""
    return int(2**features * rows) if features < 32 else 1 << 62


def cost_round(features: int, rows: int) -> int:
    """Evaluations of one round of `sampled`: each background row along a permutation and back."""
    return 2 * rows * max(features - 1, 0)


def exact(game: Game, *, may_go_on: MayGoOn) -> Values:
    """By enumeration of all coalitions. Raises DeadlineExceeded."""
    players, rows = game.features, game.rows
    subsets = np.arange(2**players, dtype=np.int64)
    is_in = (subsets[:, None] >> np.arange(players)) & 1 == 1
    worth = np.zeros(len(subsets))
    step = max(1, AT_ONCE // rows)
    for at in range(0, len(subsets), step):
        _go_on(may_go_on)
        part = is_in[at : at + step]
        found = game.value(np.repeat(part, rows, axis=0), np.tile(np.arange(rows), len(part)))
        worth[at : at + step] = found.reshape(-1, rows).mean(axis=1)
    sizes = is_in.sum(axis=1)
    weights = np.array([math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players) for size in range(players)])
    contributions = np.zeros(players)
    for player in range(players):
        without = subsets[~is_in[:, player]]
        contributions[player] = weights[sizes[without]] @ (worth[without | (1 << player)] - worth[without])
    base, value = float(worth[0]), float(worth[-1])
    return Values(_summing(contributions, value - base), np.zeros(players), base, value, cost_exact(players, rows), True)


def sampled(game: Game, *, evaluations: int, may_go_on: MayGoOn, seed: int = 0) -> Values:
    """By rounds of permutations, each background row once along a random permutation and once back, until the error is small or `evaluations` are
    spent or time is up. The same question gives the same answer. Raises DeadlineExceeded when that is before the second round.

    Every round uses all background rows, so that contributions sum to v(all) - v(none) whatever the permutations. The error is that of the
    permutations within background rows; the choice of the background is not part of it.
    """
    players, rows = game.features, game.rows
    random = np.random.default_rng(seed)
    ends = game.value(np.repeat([[False], [True]], rows, axis=0).repeat(players, axis=1), np.tile(np.arange(rows), 2))
    low, high = ends[:rows], ends[rows:]
    base, value = float(low.mean()), float(high.mean())
    spent = 2 * rows
    total, squares = np.zeros((rows, players)), np.zeros((rows, players))
    rounds = 0
    while True:
        if rounds >= FEWEST_ROUNDS:
            errors = _errors(total, squares, rounds)
            largest = np.abs(total.mean(axis=0) / rounds).max(initial=0.0)
            is_close = rounds >= TRUSTED_ROUNDS and errors.max(initial=0.0) <= CLOSE * largest
            if is_close or spent + cost_round(players, rows) > evaluations or not may_go_on():
                break
        found = _round(game, random, low, high, may_go_on)
        if found is None:
            if rounds < FEWEST_ROUNDS:
                raise DeadlineExceeded("the time given does not suffice for an explanation; ask for fewer rows, or allow more time")
            break
        total += found
        squares += found * found
        rounds += 1
        spent += cost_round(players, rows)
    contributions = _summing(total.mean(axis=0) / rounds, value - base)
    return Values(contributions, _errors(total, squares, rounds), base, value, spent, False)


def _round(game: Game, random: np.random.Generator, low: Array, high: Array, may_go_on: MayGoOn) -> Array | None:
    """[rows, players]: for each background row the mean of the contributions along one permutation and along its reverse; None when time is up."""
    players, rows = game.features, game.rows
    orders = random.permuted(np.tile(np.arange(players), (rows, 1)), axis=1)
    found = np.zeros((rows, players))
    step = max(1, AT_ONCE // max(1, 2 * (players - 1)))
    for at in range(0, rows, step):
        if not may_go_on():
            return None
        some = np.arange(at, min(at + step, rows))
        for order in (orders[some], orders[some, ::-1]):
            # place[b, i]: when player i joins along b's order; before step k a coalition holds the first k.
            place = np.empty_like(order)
            np.put_along_axis(place, order, np.broadcast_to(np.arange(players), order.shape), axis=1)
            masks = place[:, None, :] < np.arange(1, players)[None, :, None]
            inner = np.zeros((len(some), 0))
            if players > 1:
                inner = game.value(masks.reshape(-1, players), np.repeat(some, players - 1)).reshape(len(some), players - 1)
            path = np.concatenate([low[some, None], inner, high[some, None]], axis=1)
            steps = np.diff(path, axis=1)
            found[some] += np.take_along_axis(steps, place, axis=1) / 2
    return found


def _errors(total: Array, squares: Array, rounds: int) -> Array:
    """The standard error of the mean over background rows: the variance between rounds, row by row."""
    variance = np.maximum(0.0, squares - total * total / rounds) / (rounds - 1)
    errors: Array = np.sqrt(variance.sum(axis=0) / rounds) / len(total)
    return errors


def _summing(contributions: Array, total: float) -> Array:
    """`contributions` without what rounding left between their sum and `total`."""
    if not len(contributions) or not math.isfinite(total):
        return contributions
    fixed = contributions.copy()
    fixed[np.abs(fixed).argmax()] += total - math.fsum(fixed)
    return fixed


def _go_on(may_go_on: MayGoOn) -> None:
    if not may_go_on():
        raise DeadlineExceeded("the time given does not suffice for an explanation; ask for fewer rows, or allow more time")
