"""Boosted trees over coded columns, in numpy: a correction of what is believed of each row already, no larger than other rows bear out.

Hides the growing. All nodes of one level split at the same code of the same column (symmetric trees), so that a row's leaf is a number of `depth`
bits and a tree is a handful of numbers, data and no code. How many trees there are is chosen by rows that did not grow them.

Sources: Friedman, "Stochastic gradient boosting" (2002); symmetric trees: Prokhorenkova et al., "CatBoost" (NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from modelyard.errors import MalformedPayload

if TYPE_CHECKING:
    from modelyard.types import Array

DIGITS = 6
DEEPEST = 8


class Trees(msgspec.Struct, frozen=True, kw_only=True):
    """A sum of symmetric trees, one behind the other. Bit `i` of a row's leaf says whether its code of `columns[i]` is above `above[i]`."""

    depth: int
    columns: tuple[int, ...] = ()
    above: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def check(self, columns: int) -> None:
        """Raises MalformedPayload where it is no sum of trees over so many columns."""
        count = len(self.columns) // self.depth if 0 < self.depth <= DEEPEST else -1
        fits = len(self.columns) == len(self.above) == count * self.depth and len(self.values) == count << self.depth
        if not fits or not all(0 <= place < columns for place in self.columns) or not all(0 <= cut < 256 for cut in self.above):
            raise MalformedPayload("the trees of an estimator do not fit together")

    def __call__(self, codes: Array) -> Array:
        """What the trees give for rows of codes [columns, rows]."""
        total = np.zeros(codes.shape[1])
        values = np.asarray(self.values).reshape(-1, 1 << self.depth)
        for tree, at in enumerate(range(0, len(self.columns), self.depth)):
            total += values[tree][leaf(codes, self.columns[at : at + self.depth], self.above[at : at + self.depth])]
        return total


class Growing(NamedTuple):
    """How trees are grown: at most so many a fold, of so many levels; each adds a `rate` of what it finds in the next `share` of the rows, at most
    `rows` of them, among `columns` drawn ones, and a leaf's finding counts beside `prior` rows that found nothing."""

    trees: int = 150
    depth: int = 5
    rate: float = 0.15
    share: float = 0.5
    rows: int = 12_000
    columns: int = 12
    prior: float = 10.0
    folds: int = 3
    patience: int = 12
    beyond: float = 2.5
    """Figures are means over many rows, in which what is wrong for one row either way cancels, and what is wrong for all does not: so many times the
    trees that would suit single rows best are kept."""
    sure: float = 3.0
    """The gain on rows that did not grow them must be so many times its standard error, or there are no trees."""


class Rows(NamedTuple):
    """Codes [columns, rows], below `sizes`, what is believed of each row already, and the truth."""

    codes: Array
    sizes: Sequence[int]
    margin: Array
    truth: Array

    def take(self, rows: Array) -> Rows:
        """Some of them."""
        return Rows(self.codes[:, rows], self.sizes, self.margin[rows], self.truth[rows])


class Loss(NamedTuple):
    """Of a margin and the truth, by row: gradient and curvature, and the loss itself."""

    slopes: Callable[[Array, Array], tuple[Array, Array]]
    of: Callable[[Array, Array], Array]


def sigmoid(margin: Array) -> Array:
    """1 / (1 + e^-margin)."""
    return 0.5 * (1.0 + np.tanh(0.5 * margin))


def _logistic_slopes(margin: Array, truth: Array) -> tuple[Array, Array]:
    p = sigmoid(margin)
    return p - truth, p * (1 - p)


LOGISTIC = Loss(_logistic_slopes, lambda margin, truth: np.logaddexp(0.0, margin) - truth * margin)
SQUARED = Loss(lambda margin, truth: (margin - truth, np.ones(len(truth))), lambda margin, truth: (margin - truth) ** 2)


def fit(rows: Rows, loss: Loss, growing: Growing = Growing()) -> Trees:  # noqa: B008
    """Trees that, added to the margin, bring it closer to the truth also on rows that did not grow them; none where nothing does.

    Each fold of the rows is left out once; the mean of what the others grew is kept. The same arguments give the same trees on one machine.
    """
    fold = np.random.default_rng(0).permutation(len(rows.truth)) % growing.folds
    grown = [_Grown(rows, loss, growing, fold == held) for held in range(growing.folds)]
    for each in grown:
        each.grow()
    shortest = min(len(each.curve) for each in grown)
    best = int(np.argmin(np.mean([each.curve[:shortest] for each in grown], axis=0)))
    gains = np.concatenate([each.gains(best) for each in grown])
    is_sure = gains.mean() > growing.sure * gains.std() / len(gains) ** 0.5
    kept = [tree for each in grown for tree in each.trees[: round(growing.beyond * best)]] if is_sure else []
    return Trees(
        depth=growing.depth,
        columns=tuple(place for columns, _, _ in kept for place in columns),
        above=tuple(cut for _, above, _ in kept for cut in above),
        values=tuple(float(f"{value / growing.folds:.{DIGITS}g}") for _, _, values in kept for value in values.tolist()),
    )


def levels(codes: Array, size: int, margin: Array, truth: Array, loss: Loss) -> tuple[float, ...]:
    """For each code of one column what its rows, taken together, still lack: added to the margin, they are right on average."""
    found = np.zeros(size)
    for _ in range(3):  # Newton's steps
        slope, curvature = loss.slopes(margin + found[codes], truth)
        found -= np.bincount(codes, slope, size) / (np.bincount(codes, curvature, size) + 1.0)
    return tuple(float(f"{value:.{DIGITS}g}") for value in found.tolist())


class _Grown:
    """Trees that grow, one by one, over the rows that are not `held`; `curve` is the loss on those after 0, 1, … trees."""

    def __init__(self, rows: Rows, loss: Loss, growing: Growing, held: Array) -> None:
        self._loss, self._growing = loss, growing
        self._draw = np.random.default_rng(1)
        own = self._draw.permutation(np.flatnonzero(~held))
        self._rows, self._held = rows.take(own), rows.take(np.flatnonzero(held))
        self._block = max(1, min(round(growing.share * len(own)), growing.rows))
        self.trees: list[tuple[list[int], list[int], Array]] = []
        self._before = self._held.margin.copy()
        self.curve = [float(loss.of(self._before, self._held.truth).mean())]

    def grow(self) -> None:
        """Trees until none of the last ones helped."""
        growing = self._growing
        while len(self.trees) < growing.trees and len(self.trees) < growing.beyond * int(np.argmin(self.curve)) + growing.patience:
            columns, above, values = self._next()
            for side in (self._rows, self._held):
                np.add(side.margin, values[leaf(side.codes, columns, above)], out=side.margin)
            self.trees.append((columns, above, values))
            self.curve.append(float(self._loss.of(self._held.margin, self._held.truth).mean()))

    def gains(self, count: int) -> Array:
        """By how much so many trees lower the loss of each row that did not grow them."""
        after = self._before.copy()
        for columns, above, values in self.trees[:count]:
            after += values[leaf(self._held.codes, columns, above)]
        found: Array = self._loss.of(self._before, self._held.truth) - self._loss.of(after, self._held.truth)
        return found

    def _next(self) -> tuple[list[int], list[int], Array]:
        growing, rows = self._growing, self._rows
        start = len(self.trees) * self._block % max(len(rows.truth) - self._block + 1, 1)
        block = slice(start, start + self._block)
        codes = rows.codes[:, block]
        slope, curvature = self._loss.slopes(rows.margin[block], rows.truth[block])
        penalty = growing.prior * float(curvature.mean())
        among = sorted(self._draw.permutation(len(rows.sizes))[: growing.columns].tolist())
        leaves = np.zeros(codes.shape[1], dtype=np.int64)
        columns: list[int] = []
        above: list[int] = []
        for _ in range(growing.depth):
            place, cut = self._split(codes, among, leaves, (slope, curvature), penalty)
            columns.append(place)
            above.append(cut)
            leaves = leaf(codes, columns, above).astype(np.int64)
        count = 1 << growing.depth
        sums, weights = np.bincount(leaves, slope, count), np.bincount(leaves, curvature, count)
        return columns, above, -growing.rate * sums / (weights + penalty)

    def _split(self, codes: Array, among: Sequence[int], leaves: Array, slopes: tuple[Array, Array], penalty: float) -> tuple[int, int]:
        """The column and the code that split all nodes best."""
        best, found = -np.inf, (0, 0)
        nodes = int(leaves.max()) + 1
        for place in among:
            size = self._rows.sizes[place]
            if size < 2:
                continue
            at = leaves * size + codes[place]
            sums, weights = (np.bincount(at, each, nodes * size).reshape(nodes, size).cumsum(axis=1) for each in slopes)
            left, light = sums[:, :-1], weights[:, :-1]
            right, heavy = sums[:, -1:] - left, weights[:, -1:] - light
            gain = (left**2 / (light + penalty) + right**2 / (heavy + penalty)).sum(axis=0)
            cut = int(np.argmax(gain))
            if gain[cut] > best:
                best, found = float(gain[cut]), (place, cut)
        return found


def leaf(codes: Array, columns: Sequence[int], above: Sequence[int]) -> Array:
    """Of each row of codes [columns, rows] the number whose bit `i` says whether its code of `columns[i]` is above `above[i]`; of 8 bits at most."""
    found = np.zeros(codes.shape[1], dtype=np.uint8)
    for level, (place, cut) in enumerate(zip(columns, above, strict=True)):
        found |= (codes[place] > cut).view(np.uint8) << np.uint8(level)
    return found
