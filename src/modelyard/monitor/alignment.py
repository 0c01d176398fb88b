"""Columns that no longer go with the others though each looks as it did: rows joined wrongly upstream, a column shuffled or lagging.

Hides how two columns' dependence is measured (Cramér's V of their codes, corrected for chance: Bergsma 2013). Pure. It must not look at answers or
truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor.slicing import Column

if TYPE_CHECKING:
    from modelyard.types import Array

LEAST_ROWS = 300
COLUMNS = 24
STRONG = 0.2
"""A dependence weaker than this before is not one that can be lost."""
_KEPT = 0.65
"""What is left of a dependence that is lost, at most: half of the rows joined wrongly lose half of it."""


class Lost(NamedTuple):
    """`column` went with `partner` by a V of `before`; now by `after`."""

    column: str
    partner: str
    before: float
    after: float


def lost(columns: Sequence[Column], first: int) -> Lost | None:
    """Of rows in order, the column whose dependences on the others are gone from row `first` on: the one that lost most of them. None where none was
    lost, or the rows are too few to tell.
    """
    columns = columns[:COLUMNS]
    if not columns or min(first, len(columns[0].codes) - first) < LEAST_ROWS:
        return None
    losses: dict[int, list[Lost]] = {}
    kept: dict[int, float] = {}
    for one in range(len(columns)):
        for other in range(one + 1, len(columns)):
            before = dependence(columns[one], columns[other], slice(0, first))
            if before < STRONG:
                continue
            after = dependence(columns[one], columns[other], slice(first, None))
            for mine, theirs in ((one, other), (other, one)):
                if after <= _KEPT * before and before - after >= STRONG / 2:
                    losses.setdefault(mine, []).append(Lost(columns[mine].name, columns[theirs].name, before, after))
                else:
                    kept[mine] = max(kept.get(mine, 0.0), before)
    alone = {place: each for place, each in losses.items() if kept.get(place, 0.0) < STRONG}
    if not alone:
        return None
    most = max(alone, key=lambda place: (len(alone[place]), sum(each.before for each in alone[place])))
    return max(alone[most], key=lambda each: each.before)


def dependence(one: Column, other: Column, rows: slice) -> float:
    """Cramér's V of two coded columns, 0 where they are independent but for chance, 1 where one follows from the other."""
    a, b = one.codes[rows], other.codes[rows]
    table: Array = np.bincount(a * len(other.names) + b, minlength=len(one.names) * len(other.names)).reshape(len(one.names), -1).astype(np.float64)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    count, (r, c) = table.sum(), table.shape
    if count < 2 or min(r, c) < 2:
        return 0.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / count
    phi = float(((table - expected) ** 2 / expected).sum() / count)
    corrected = max(0.0, phi - (r - 1) * (c - 1) / (count - 1))
    least = min(r - (r - 1) ** 2 / (count - 1), c - (c - 1) ** 2 / (count - 1)) - 1
    return math.sqrt(corrected / least) if least > 0 else 0.0
