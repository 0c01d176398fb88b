"""Whether the reference has rows like those that are asked about, and how many: what an estimate from it can rest on.

Hides the cells: the columns are cut at random, as often as the rows allow, some ways over, and the reference's rows in each cell are counted. Live
rows in cells that the reference hardly has weigh the few that it has heavily: `N / sum(live share² / reference share)` rows would, drawn like the
live ones, know as much as its N do (Kish's effective size of importance weights). It sees no more than these cuts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from modelyard.errors import MalformedPayload
from modelyard.monitor.estimate.trees import leaf

if TYPE_CHECKING:
    from modelyard.types import Array

WAYS = 16
DEEPEST = 8
ROWS_A_CELL = 30


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """The reference's `rows`, counted in the cells of each way of cutting: `columns` and `above` as in `trees.Trees`, `counts` [ways, 2^depth]."""

    rows: int
    depth: int
    columns: tuple[int, ...] = ()
    above: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()

    def check(self, columns: int) -> None:
        """Raises MalformedPayload where it counts no cells of so many columns."""
        ways = len(self.columns) // self.depth if 0 < self.depth <= DEEPEST else 0
        fits = len(self.columns) == len(self.above) == ways * self.depth and len(self.counts) == ways << self.depth and self.rows > 0
        if not fits or not all(0 <= place < columns for place in self.columns) or min((*self.counts, *self.above), default=0) < 0:
            raise MalformedPayload("the cells of an estimator do not fit together")


class Rests(NamedTuple):
    """What an estimate rests on: so many rows of the reference as if drawn like the live ones, and none for this share of the live ones."""

    effective: float
    unknown: float


def count(codes: Array, sizes: Sequence[int]) -> Support:
    """The cells of a reference's codes [columns, rows]."""
    rows = codes.shape[1]
    useful = [place for place, size in enumerate(sizes) if size > 1 and codes[place].min() < codes[place].max()]
    depth = min(DEEPEST, max(0, rows // ROWS_A_CELL).bit_length() - 1)
    if not useful or depth < 1:
        return Support(rows=rows, depth=0)
    draw = np.random.default_rng(3)
    columns: list[int] = []
    above: list[int] = []
    ends = {place: (int(codes[place].min()), int(codes[place].max())) for place in useful}
    for cut in range(WAYS * depth):
        place = useful[int(draw.integers(len(useful)))]
        low, high = ends[place]
        # Where a row lies, or anywhere, so that a thin tail is cut off as well.
        at = int(codes[place, int(draw.integers(rows))]) if cut % 2 else int(draw.integers(low, high))
        columns.append(place)
        above.append(min(at, high - 1))  # a cut above which nothing lies is none
    cells = [np.bincount(leaf(codes, columns[at : at + depth], above[at : at + depth]), minlength=1 << depth) for at in _starts(columns, depth)]
    return Support(rows=rows, depth=depth, columns=tuple(columns), above=tuple(above), counts=tuple(np.concatenate(cells).tolist()))


def rests(support: Support, codes: Array) -> Rests:
    """What the reference knows of live rows with codes [columns, rows]."""
    live = codes.shape[1]
    if support.depth < 1 or live < 2:
        return Rests(float(support.rows), 0.0)
    counts = np.asarray(support.counts, np.float64).reshape(-1, 1 << support.depth)
    effective, unknown = float(support.rows), 0.0
    for way, at in enumerate(_starts(support.columns, support.depth)):
        found = np.bincount(
            leaf(codes, support.columns[at : at + support.depth], support.above[at : at + support.depth]), minlength=1 << support.depth
        ).astype(np.float64)
        effective = min(effective, effective_rows(counts[way], found))
        unknown = max(unknown, float(found[counts[way] == 0].sum()) / live)
    return Rests(effective, unknown)


def together(support: Support, codes: Array, each: Array) -> float:
    """The sum over cells of the square of the sum of `each` row's value, the mean over all ways of cutting: how far live rows with codes
    [columns, rows] move a figure where what is believed of a cell is wrong for all of its rows alike.
    """
    if support.depth < 1:
        return float(each.sum()) ** 2
    sums = [
        np.bincount(leaf(codes, support.columns[at : at + support.depth], support.above[at : at + support.depth]), each)
        for at in _starts(support.columns, support.depth)
    ]
    return float(np.mean([(sum_ @ sum_) for sum_ in sums]))


def effective_rows(reference: Array, live: Array) -> float:
    """Kish's effective size of the reference, by cells, for live rows; the chance of the live rows themselves is taken out. At most all of it."""
    rows, n = float(reference.sum()), float(live.sum())
    if n < 2 or not rows:
        return rows
    squares = live * (live - 1) / (n * (n - 1))  # without bias for the squared share
    weight = float((squares * rows / np.maximum(reference, 0.5)).sum())
    return rows / max(weight, 1.0)


def _starts(columns: Sequence[int], depth: int) -> range:
    return range(0, len(columns), depth)
