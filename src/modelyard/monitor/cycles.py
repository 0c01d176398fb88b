"""How far a feature's distribution moves from hour to hour and day to day in an ordinary week: what drift has to exceed.

Hides how blocks of an hour and of a day are collected and compared with the mean of their week. Pure. It must not decide what is drift: streams that
are under suspicion are handed to it, and it learns nothing from them.

What is learnt is how far blocks stray from their own week's mean, never where that mean lies: a lasting distance from the reference is no cycle. Of
chance two things are told apart: what one block shows beyond three of its own standard errors, and how much more blocks differ from one another than
rows within them account for (the variance components of Fisher's analysis of variance). A week is seven days that were seen: a clock that jumps makes
it shorter by a day at most.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor.directions import directions
from modelyard.monitor.profile import Binner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelyard.monitor.directions import Directions
    from modelyard.monitor.profile import FeatureProfile, Profile
    from modelyard.types import Array

HOUR_S = 3600.0
DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
LENGTHS_S = (HOUR_S, DAY_S)
BLOCK_ROWS = 20
"""A block goes on until it has so many rows."""
_ERRORS = 3.0
_SELDOM = 7.0
"""A block's distance is larger by chance with probability e^-7 at most."""
_TYPICAL = 2.0
"""Blocks that differ by a deviation lie up to about so many of them from their mean (a sine: 1.4; weekends beside weekdays: 1.6)."""
_MEAN_BLOCKS = 12
_LEAST_BLOCKS = 3
_LEAST_EXPECTED = 5.0
_MOST_GROUPS = 1000


class Spread(NamedTuple):
    """What blocks of one length have shown: how many there were, the `sums` [mean, its square, its variance by chance][stream, direction], the
    `farthest` of the means [stream, direction], and how far one provably lay [stream, direction and distance].
    """

    blocks: int
    sums: Array
    farthest: Array
    proven: Array


class Cycles(NamedTuple):
    """What is carried from minute to minute.

    `at` is the latest minute, `seen_s` how much of the present week was seen; `weeks` were learnt from. `blocks` [length, stream, cell] and `total`
    [stream, cell] are rows of the present blocks, so long already, and of the week (last week's counting half). `spreads` are this week's, by length;
    `widths` [stream, direction and distance] the most of the weeks learnt.
    """

    at: float
    seen_s: float
    weeks: int
    lasted_s: tuple[float, ...]
    blocks: Array
    total: Array
    spreads: tuple[Spread, ...]
    widths: Array


def begin(known: Directions, widths: Array | None = None) -> Cycles:
    """Before the first minute; with `widths`, as if a week had been learnt."""
    streams, ways, cells = known.scores.shape
    lengths = len(LENGTHS_S)
    weeks, widths = (0, np.zeros((streams, ways + 1))) if widths is None else (1, widths)
    spreads = tuple(_nothing(known) for _ in LENGTHS_S)
    return Cycles(-np.inf, 0.0, weeks, (0.0,) * lengths, np.zeros((lengths, streams, cells)), np.zeros((streams, cells)), spreads, widths)


def key(feature: FeatureProfile) -> str:
    """By which a bundle, or a state, tells of a feature's cycles."""
    return f"{feature.role} {feature.kind} {feature.name}"


def learn(known: Directions, count: Callable[[Array], Array], times: Array) -> Array | None:
    """What rows of the reference teach that carry `times` (seconds since 1970, UTC; NaN: none): the widths [stream, direction and distance].

    By hours of the day, days of the week, hours of the week, months of the year, and single days and weeks; `count` gives the cells [stream, cell]
    of the rows at these places. None where the rows span less than a week.
    """
    is_known = np.isfinite(times)
    if not is_known.any() or np.ptp(times[is_known]) < WEEK_S:
        return None
    places = np.flatnonzero(is_known)
    usual = _shares(count(places))
    widths = np.zeros((len(known.features), known.scores.shape[1] + 1))
    for group in _groups(times[places]):
        spread, found = _nothing(known), np.unique(group)
        for each in found if len(found) <= _MOST_GROUPS else ():
            among = places[group == each]
            if len(among) >= BLOCK_ROWS:
                spread = _added(spread, count(among), usual, known)
        widths = np.maximum(widths, _width(spread, usual, known))
    return widths


def told(reference: Profile, inputs: Mapping[str, Array], outputs: Mapping[str, Array], times: Array) -> dict[str, tuple[float, ...]]:
    """What rows that `reference` profiles teach, by stream, as a bundle carries it; empty where they span less than a week."""
    known = directions(reference)

    def count(places: Array) -> Array:
        binner = Binner(reference)
        binner.add({name: values[places] for name, values in inputs.items()}, {name: values[places] for name, values in outputs.items()})
        return known.gather(binner.take()).astype(np.float64)

    widths = learn(known, count, times)
    if widths is None:
        return {}
    return {key(feature): tuple(float(f"{width:.4g}") for width in row) for feature, row in zip(known.features, widths.tolist(), strict=True)}


def grown(cycles: Cycles, known: Directions, counts: Array, start: float, *, first_s: float, suspected: Array) -> Cycles:
    """After one minute of `counts` that begins at `start`. The first week is `first_s` long; `suspected` [stream] are not learnt from."""
    passed = min(max(start - cycles.at, 0.0), DAY_S) if math.isfinite(cycles.at) else 0.0
    lasted_s = tuple(each + passed for each in cycles.lasted_s)
    cycles = cycles._replace(at=max(start, cycles.at), seen_s=cycles.seen_s + passed, lasted_s=lasted_s)
    for place, length_s in enumerate(LENGTHS_S):
        if cycles.lasted_s[place] >= length_s and cycles.blocks[place].sum(axis=1).max(initial=0.0) >= BLOCK_ROWS:
            cycles = _close_block(cycles, known, place)
    if cycles.seen_s >= (WEEK_S if cycles.weeks else first_s):
        cycles = _close_week(cycles, known, suspected)
    cycles.blocks[...] += counts  # in place: it was copied when it was read, and this runs every minute
    return cycles


def _close_block(cycles: Cycles, known: Directions, place: int) -> Cycles:
    block, blocks = cycles.blocks[place], cycles.blocks.copy()
    blocks[place] = 0.0
    rows = cycles.total.sum(axis=1).max(initial=0.0)
    has_mean = cycles.seen_s >= DAY_S or (cycles.weeks > 0 and rows >= _MEAN_BLOCKS * block.sum(axis=1).max(initial=0.0))
    usual = _shares(cycles.total) if has_mean and rows else None
    spreads, lasted_s = list(cycles.spreads), list(cycles.lasted_s)
    spreads[place], lasted_s[place] = _added(spreads[place], block, usual, known), 0.0
    total = cycles.total + block if place == 0 else cycles.total  # every row is in a block of the first length
    return cycles._replace(lasted_s=tuple(lasted_s), blocks=blocks, total=total, spreads=tuple(spreads))


def _close_week(cycles: Cycles, known: Directions, suspected: Array) -> Cycles:
    usual = _shares(cycles.total)
    learnt = np.where(suspected[:, None], 0.0, np.max([_width(spread, usual, known) for spread in cycles.spreads], axis=0))
    spreads = tuple(_nothing(known) for _ in LENGTHS_S)
    widths = np.maximum(cycles.widths, learnt)
    return cycles._replace(seen_s=0.0, weeks=cycles.weeks + 1, total=cycles.total / 2, spreads=spreads, widths=widths)


def _groups(times: Array) -> tuple[Array, ...]:
    hour = (times // HOUR_S).astype(np.int64)
    day = (times // DAY_S).astype(np.int64)
    month = times.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64) % 12
    return hour % 24, day % 7, hour % 168, month, day, day // 7


def _shares(counts: Array) -> Array:
    found: Array = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return found


def _nothing(known: Directions) -> Spread:
    streams, ways, _ = known.scores.shape
    return Spread(0, np.zeros((3, streams, ways)), np.full((streams, ways), -np.inf), np.full((streams, ways + 1), -np.inf))


def _added(spread: Spread, block: Array, usual: Array | None, known: Directions) -> Spread:
    """With the rows of one more block [stream, cell]; `usual` shares, where they are known, are what its distance is from.

    A block's own variance tells how far its mean may lie off by chance; one row of the reference's is added, so that few rows which happen to be
    alike prove nothing. Cells that a block is expected to hit fewer than five times have no part in the distance.
    """
    rows = np.maximum(block.sum(axis=1), 1.0)
    shares = block / rows[:, None]
    means = np.einsum("sdc,sc->sd", known.scores, shares)
    within = np.maximum(np.einsum("sdc,sc->sd", known.scores**2, shares) - means**2, 0.0)
    chance = (within + 1 / rows[:, None]) / rows[:, None]
    proven = spread.proven.copy()
    proven[:, :-1] = np.maximum(proven[:, :-1], means - _ERRORS * np.sqrt(chance))
    if usual is not None:
        is_common = rows[:, None] * known.shares >= _LEAST_EXPECTED
        squares = (is_common * (shares - usual) ** 2 / np.where(known.shares > 0, known.shares, 1.0)).sum(axis=1)
        freedom = np.maximum(is_common.sum(axis=1), 1)
        by_chance = (freedom + 2 * np.sqrt(_SELDOM * freedom) + 2 * _SELDOM) / rows  # Laurent and Massart (2000)
        beyond = np.sqrt(np.maximum(squares - by_chance, 0.0))
        proven[:, -1] = np.maximum(proven[:, -1], beyond)
    return Spread(spread.blocks + 1, spread.sums + np.stack((means, means**2, chance)), np.maximum(spread.farthest, means), proven)


def _width(spread: Spread, usual: Array, known: Directions) -> Array:
    """How far blocks stray from the `usual` shares [stream, direction and distance]: what one of them proved, or what is typical of all."""
    centre = np.einsum("sdc,sc->sd", known.scores, usual)
    found = np.maximum(spread.proven, 0.0)
    found[:, :-1] = np.maximum(spread.proven[:, :-1] - centre, 0.0)
    if spread.blocks >= _LEAST_BLOCKS:
        mean, square, chance = spread.sums / spread.blocks
        freedom = spread.blocks - 1
        between = (square - mean**2) * spread.blocks / freedom - chance * (1 + 2 * math.sqrt(2 / freedom))
        typical = _TYPICAL * np.sqrt(np.maximum(between, 0.0))
        found[:, :-1] = np.maximum(found[:, :-1], np.minimum(typical, np.maximum(spread.farthest - centre, 0.0)))
    return found
