"""Columns as small whole numbers, which trees split and cells count, and whether a row lies where the reference has none.

Hides how a column is cut: a number at its distinct values, or at the quantiles and evenly over the range of the reference, a category by its place.
It must not be handed a tagged column: what it keeps of one are values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from modelyard.types import Scalar

if TYPE_CHECKING:
    from modelyard.types import Array

CODES = 64
"""A column has at most this many codes beside 0, which stands for missing, and for a category that is rare or unseen."""
BEYOND = 0.05
"""A number further outside the reference than this share of its range lies where nothing is known."""
RARE = 5


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one column is coded.

    `source` and `element` say which element of a row of which tensor; of role `answer` it is what the model said. A number's code is one more than
    the `edges` that it reaches, a category's one more than its place. `low` and `high` bound what is known of a number; `has_missing`
    says that missing values (of categories also rare ones, beside which an unseen one is nothing new) were among the reference.
    """

    role: Literal["input", "answer"]
    source: str
    element: int = 0
    edges: tuple[float, ...] = ()
    categories: tuple[Scalar, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    has_missing: bool = False

    @property
    def size(self) -> int:
        """How many codes there are, 0 among them."""
        return 2 + len(self.edges) if self.categories is None else 1 + len(self.categories)


def learn_number(empty: Column, values: Array) -> Column:
    """`empty` with edges for these numbers (NaN: missing)."""
    given = np.asarray(values, np.float64)
    present = np.sort(given[np.isfinite(given)])
    if not len(present):
        return msgspec.structs.replace(empty, has_missing=True)
    distinct = np.unique(present)
    if len(distinct) <= CODES:
        edges = distinct[:-1] / 2 + distinct[1:] / 2
    else:
        wide = CODES // 4  # cuts as far apart as each other, so that a thin tail is told from the rest
        low, high = distinct[0] / wide, distinct[-1] / wide
        even = [low * (wide - step) + high * step for step in range(1, wide)]
        edges = np.unique(np.concatenate([present[np.arange(1, CODES - wide) * len(present) // (CODES - wide)], even]))
        edges = edges[(edges > distinct[0]) & (edges <= distinct[-1])]
    with np.errstate(over="ignore"):
        margin = BEYOND * (distinct[-1] - distinct[0])
        low, high = np.nan_to_num([distinct[0] - margin, distinct[-1] + margin]).tolist()
    return msgspec.structs.replace(empty, edges=tuple(edges.tolist()), low=low, high=high, has_missing=len(present) < len(given))


def learn_category(empty: Column, values: Array, order: Array) -> Column:
    """`empty` with the commonest categories in these values, in the order of the mean of `order` over their rows."""
    counts: Counter[Any] = Counter()
    for value, count in Counter(values.tolist()).items():
        counts[_key(value)] += count
    del counts[None]
    common = sorted((value for value, count in counts.items() if count >= RARE), key=lambda value: (-counts[value], str(value)))[:CODES]
    place = {value: number for number, value in enumerate(common)}
    sums = np.bincount(looked_up(values, lambda value: place.get(_key(value), len(common))), order, len(common) + 1).tolist()
    ranked = sorted(common, key=lambda value: (sums[place[value]] / (counts[value] + RARE), str(value)))
    return msgspec.structs.replace(empty, categories=tuple(ranked), has_missing=sum(counts[value] for value in common) < len(values))


def code(columns: Sequence[Column], inputs: Mapping[str, Array], answers: Mapping[str, Array], rows: int) -> tuple[Array, Array]:
    """Codes [columns, rows], and of each row whether it lies outside the reference in any column. A tensor that is not there is all missing."""
    codes = np.zeros((len(columns), rows), dtype=np.uint8)
    outside = np.zeros(rows, dtype=bool)
    for place, column in enumerate(columns):
        side = inputs if column.role == "input" else answers
        if column.source not in side:
            outside |= not column.has_missing
            continue
        values = element(side[column.source], column.element, rows)
        codes[place], is_outside = _coded_number(column, values) if column.categories is None else _coded_category(column, values)
        outside |= is_outside
    return codes, outside


def element(values: Array, place: int, rows: int) -> Array:
    """One element of each row."""
    return values if values.ndim == 1 else values.reshape(rows, -1)[:, place]


def looked_up(values: Array, of: Callable[[Any], int]) -> Array:
    """A whole number for each value; each distinct one is asked about once."""
    listed = values.tolist()
    found = {value: of(value) for value in dict.fromkeys(listed)}
    return np.fromiter(map(found.__getitem__, listed), np.int64, len(listed))


def numbers(values: Array) -> Array:
    """As float64; what is missing, or no number, is NaN."""
    if values.dtype != object:
        return values.astype(np.float64)
    return np.array([value if isinstance(value, int | float) else np.nan for value in values.tolist()], dtype=np.float64)


def _coded_number(column: Column, values: Array) -> tuple[Array, Array]:
    given = numbers(values)
    gone = np.isnan(given)
    codes = 1 + np.searchsorted(np.asarray(column.edges), given, side="right")
    codes[gone] = 0
    with np.errstate(invalid="ignore"):
        outside = (given < column.low) | (given > column.high)
    return codes, outside if column.has_missing else outside | gone


def _coded_category(column: Column, values: Array) -> tuple[Array, Array]:
    places = {_key(category): place for place, category in enumerate(column.categories or (), start=1)}
    codes = looked_up(values, lambda value: places.get(_key(value), 0))
    return codes, (codes == 0) & (not column.has_missing)


def _key(value: Any) -> Any:
    """One key for a category whatever type a file or a log gave it; None for missing."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    return None if math.isnan(number) else number
