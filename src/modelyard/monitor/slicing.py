"""Finds the rows on which a model does worse: conjunctions of up to three conditions on its inputs.

Hides the search and its price. Half of the rows, drawn with a fixed seed, are searched (a beam over trees of conditions, by the t-statistic of the
loss inside against that of all); the slices that come out are tested on the other half, one-sided, with Holm's correction for how many there are. So
what is told holds at the level given, and its size is not that of the luckiest of thousands. Pure. It must not know what a loss is. Sources: Chung
et al. 2019 (Slice Finder), Holm 1979, Agresti and Caffo 2000.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor.breaks import chance_of_more

if TYPE_CHECKING:
    from modelyard.types import Array

DEPTH = 3
BEAM = 8
TESTED = 20
BINS = 8
CATEGORIES = 16
LEAST_ROWS = 30
"""In each half: a slice has twice as many at least."""
_LEAST_SHARE = 0.01
_LEAST_SCORE = 2.0
_GROWS = 1.1
_ALIKE = 0.7
_OWN = 0.5
_SEED = 20


class Column(NamedTuple):
    """One input, coded: `codes` of each row; `names` of each code. Codes 0 to `ordered` - 1 are an order, with `edges` between them; the others are
    values of their own, such as missing.
    """

    name: str
    codes: Array
    names: tuple[str, ...]
    ordered: int
    edges: tuple[float, ...] = ()


class Condition(NamedTuple):
    """Codes `low` to `high` of one column."""

    column: int
    low: int
    high: int


class Slice(NamedTuple):
    """Rows on which the loss is higher. `rows`, `loss` and `rest` (the loss on all others), the difference's limits and `p` (corrected) are those of
    the half that was not searched; `share` is of all rows. `columns` in the order in which they were found.
    """

    said: str
    columns: tuple[str, ...]
    rows: int
    share: float
    loss: float
    rest: float
    low: float
    high: float
    p: float


def find(columns: Sequence[Column], loss: Array, *, alpha: float, least: float = 0.0) -> tuple[Slice, ...]:
    """The slices whose loss is higher than on the other rows by more than `least`, at level `alpha` for all of them together; the largest loss that
    they add up to first.
    """
    count = len(loss)
    if count < 4 * LEAST_ROWS or not columns:
        return ()
    searched = np.zeros(count, dtype=bool)
    searched[np.random.default_rng(_SEED).permutation(count)[: count // 2]] = True
    grown = _grow([column.codes[searched] for column in columns], columns, loss[searched])
    others = np.flatnonzero(~searched)
    masks = [_mask(columns, conditions, others) for conditions in grown]
    level = alpha / max(1, len(grown))
    tested = [_tested(columns, conditions, mask, loss[others], level) for conditions, mask in zip(grown, masks, strict=True)]
    known = [(each, mask) for each, mask in zip(tested, masks, strict=True) if each is not None]
    adjusted = holm([each.p for each, _ in known])
    told = [(each._replace(p=p), mask) for (each, mask), p in zip(known, adjusted, strict=True) if p <= alpha and each.loss - each.rest > least]
    return tuple(_apart(sorted(told, key=lambda pair: -(pair[0].loss - pair[0].rest) * math.sqrt(pair[0].rows)), loss[others], least))


def coded(inputs: Mapping[str, Array], *, rows: int) -> tuple[Column, ...]:
    """The inputs that can be cut: one value per row. Numbers at their quantiles, texts by their commonest values."""
    columns = []
    for name, values in inputs.items():
        if values.size == rows:
            flat = values.reshape(rows)
            columns.append(_texts(name, flat) if flat.dtype == object or flat.dtype.kind == "b" else _numbers(name, flat.astype(np.float64)))
    return tuple(column for column in columns if len(column.names) > 1)


def said(columns: Sequence[Column], conditions: Iterable[Condition]) -> str:
    """The conditions in words: `age > 61.5 and city = 'Bonn'`."""
    return " and ".join(_phrase(columns[each.column], each) for each in conditions)


def difference(inside: Array, outside: Array, *, alpha: float) -> tuple[float, float, float]:
    """How much the mean is higher inside, and its limits at level `alpha`; of shares those of Agresti and Caffo. Both have rows."""
    if _is_share(inside) and _is_share(outside):
        centre, spread = 0.0, 0.0
        for values, sign in ((inside, 1.0), (outside, -1.0)):
            share = (float(values.sum()) + 1) / (len(values) + 2)
            centre += sign * share
            spread += share * (1 - share) / (len(values) + 2)
        middle = centre
    else:
        middle = float(inside.mean() - outside.mean())
        spread = sum(float(each.var(ddof=1)) / len(each) if len(each) > 1 else math.inf for each in (inside, outside))
    reach = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt(spread)
    return float(inside.mean() - outside.mean()), middle - reach, middle + reach


def holm(values: Sequence[float]) -> list[float]:
    """Chances corrected for how many they are, by Holm's step-down method."""
    adjusted = [1.0] * len(values)
    most = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        most = max(most, min(1.0, values[place] * (len(values) - rank)))
        adjusted[place] = most
    return adjusted


# -- coding ------------------------------------------------------------------------------------------------------------------------------------


def _numbers(name: str, values: Array) -> Column:
    is_present = np.isfinite(values)
    present = values[is_present]
    distinct = np.unique(present)
    if len(distinct) <= BINS:
        edges = (distinct[:-1] + distinct[1:]) / 2
    else:
        edges = np.unique(np.quantile(present, np.arange(1, BINS) / BINS))
        edges = edges[edges < distinct[-1]]
    codes = np.searchsorted(edges, values, side="left").astype(np.int64)
    ordered = len(edges) + 1
    codes[~is_present] = ordered
    names = tuple(str(place) for place in range(ordered))
    return Column(name, codes, (*names, "missing") if not is_present.all() else names, ordered, tuple(edges.tolist()))


def _texts(name: str, values: Array) -> Column:
    items = values.tolist()
    counts: dict[object, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    common = sorted((value for value in counts if value is not None), key=lambda value: (-counts[value], str(value)))[:CATEGORIES]
    codes: dict[object, int] = {value: place for place, value in enumerate(common)}
    names = [f"= {value!r}" for value in common]
    if len(common) + (None in counts) < len(counts):
        names.append("another value")
    other = len(common)
    if None in counts:
        codes[None] = len(names)
        names.append("missing")
    return Column(name, np.array([codes.get(item, other) for item in items], dtype=np.int64), tuple(names), 0)


def _phrase(column: Column, condition: Condition) -> str:
    if condition.low >= column.ordered:
        found = column.names[condition.low]
        return f"{column.name} {found}" if found.startswith("=") else f"{column.name} is {found}"
    low = f"{column.edges[condition.low - 1]:.4g}" if condition.low > 0 else ""
    high = f"{column.edges[condition.high]:.4g}" if condition.high < column.ordered - 1 else ""
    if low and high:
        return f"{low} < {column.name} <= {high}"
    return f"{column.name} > {low}" if low else f"{column.name} <= {high}" if high else f"{column.name} is known"


# -- searching ---------------------------------------------------------------------------------------------------------------------------------


def _grow(codes: Sequence[Array], columns: Sequence[Column], loss: Array) -> list[tuple[Condition, ...]]:
    """The conditions of the most promising slices, the best first; of slices that are nearly the same rows one."""
    count = len(loss)
    deviation = float(loss.std())
    if deviation == 0:
        return []
    least = max(LEAST_ROWS, math.ceil(_LEAST_SHARE * count))
    mean = float(loss.mean())
    pool: dict[tuple[Condition, ...], tuple[float, Array]] = {}
    beam: list[tuple[tuple[Condition, ...], float, Array]] = [((), 0.0, np.arange(count))]
    for _ in range(DEPTH):
        children: dict[tuple[Condition, ...], tuple[float, Array]] = {}
        for conditions, score, rows in beam:
            for condition, found in _cuts(codes, columns, loss, rows, mean=mean, least=least):
                reached = found / deviation
                grown = _joined(conditions, condition)
                if reached > max(_LEAST_SCORE, _GROWS * score) and grown not in children and grown not in pool:
                    picked = rows[(codes[condition.column][rows] >= condition.low) & (codes[condition.column][rows] <= condition.high)]
                    children[grown] = (reached, picked)
        best = sorted(children.items(), key=lambda each: (-each[1][0], len(each[0]), each[0]))
        pool.update(best[: 4 * BEAM])
        beam = [(conditions, score, rows) for conditions, (score, rows) in best[:BEAM]]
    chosen: list[tuple[tuple[Condition, ...], Array]] = []
    for conditions, (_, rows) in sorted(pool.items(), key=lambda each: (-each[1][0], len(each[0]), each[0])):
        if len(chosen) < TESTED and not any(_overlap(rows, other, count) > _ALIKE for _, other in chosen):
            chosen.append((conditions, rows))
    return [conditions for conditions, _ in chosen]


def _joined(conditions: Sequence[Condition], more: Condition) -> tuple[Condition, ...]:
    """All of them, two on one column as one."""
    others = [each for each in conditions if each.column != more.column]
    for each in conditions:
        if each.column == more.column:
            more = Condition(more.column, max(each.low, more.low), min(each.high, more.high))
    return tuple(sorted((*others, more)))


def _cuts(
    codes: Sequence[Array], columns: Sequence[Column], loss: Array, rows: Array, *, mean: float, least: int
) -> Iterable[tuple[Condition, float]]:
    """Every cut of these rows that leaves enough of them, and how far its loss lies above the mean of all, in root rows."""
    mine = loss[rows]
    for place, column in enumerate(columns):
        size = len(column.names)
        of = codes[place][rows]
        counts = np.bincount(of, minlength=size).astype(np.float64)
        sums = np.bincount(of, mine, minlength=size)
        for condition, count, total in _spans(place, column.ordered, counts, sums):
            if least <= count < len(rows):
                yield condition, (total - count * mean) / math.sqrt(count)


def _spans(place: int, ordered: int, counts: Array, sums: Array) -> Iterable[tuple[Condition, float, float]]:
    below, sums_below = np.cumsum(counts[:ordered]), np.cumsum(sums[:ordered])
    for cut in range(ordered - 1):
        yield Condition(place, 0, cut), float(below[cut]), float(sums_below[cut])
        yield Condition(place, cut + 1, ordered - 1), float(below[-1] - below[cut]), float(sums_below[-1] - sums_below[cut])
    for code in range(ordered, len(counts)):
        yield Condition(place, code, code), float(counts[code]), float(sums[code])


def _overlap(one: Array, other: Array, count: int) -> float:
    is_one, is_other = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    is_one[one], is_other[other] = True, True
    return float((is_one & is_other).sum()) / float((is_one | is_other).sum())


def _mask(columns: Sequence[Column], conditions: Sequence[Condition], rows: Array) -> Array:
    inside = np.ones(len(rows), dtype=bool)
    for each in conditions:
        codes = columns[each.column].codes[rows]
        inside &= (codes >= each.low) & (codes <= each.high)
    return inside


def _tested(columns: Sequence[Column], conditions: Sequence[Condition], inside: Array, loss: Array, alpha: float) -> Slice | None:
    mine, others = loss[inside], loss[~inside]
    if min(len(mine), len(others)) < LEAST_ROWS // 2:
        return None
    higher, low, high = difference(mine, others, alpha=alpha)
    if _is_share(mine) and _is_share(others):
        p = chance_of_more(int(others.sum()), len(others), int(mine.sum()), len(mine))
    else:
        spread = math.sqrt(float(mine.var(ddof=1)) / len(mine) + float(others.var(ddof=1)) / len(others))
        p = 1 - NormalDist().cdf(higher / spread) if spread > 0 else float(higher <= 0)
    names = tuple(dict.fromkeys(columns[each.column].name for each in conditions))
    return Slice(said(columns, conditions), names, len(mine), float(inside.mean()), float(mine.mean()), float(others.mean()), low, high, p)


def _apart(found: Sequence[tuple[Slice, Array]], loss: Array, least: float) -> Iterable[Slice]:
    """Those that do half as badly, at least, without the rows of the ones before: a slice of which a part does badly is not told beside that part."""
    taken = np.zeros(len(loss), dtype=bool)
    for each, inside in found:
        mine, others = loss[inside & ~taken], loss[~inside & ~taken]
        if min(len(mine), len(others)) < LEAST_ROWS // 2:
            continue
        higher, low, _ = difference(mine, others, alpha=0.05)
        if higher > max(least, _OWN * (each.loss - each.rest)) and low > 0:
            taken |= inside
            yield each


def _is_share(values: Array) -> bool:
    return bool(((values == 0) | (values == 1)).all())
