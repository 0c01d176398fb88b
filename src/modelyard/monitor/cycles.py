"""How far a feature's distribution moves from hour to hour in an ordinary week: what drift has to exceed.

Hides how blocks of at least an hour are collected and compared with the mean of their week. Pure. It must not decide what is drift: streams that are
under suspicion are handed to it, and it learns nothing from them.

What is learnt is how far the hours stray from their own week's mean, never where that mean lies: a lasting distance from the reference is no cycle.
Only what a block shows by three standard errors counts, so that the noise of a week's hours is not taken for a cycle. A week is seven days that were
seen: a clock that jumps makes it shorter by a day at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor.directions import directions
from modelyard.monitor.profile import Binner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelyard.monitor.directions import Directions
    from modelyard.monitor.profile import FeatureProfile, Profile
    from modelyard.types import Array

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
BLOCK_S = 3600.0
BLOCK_ROWS = 200
_ERRORS = 3.0
_MEAN_BLOCKS = 12
_LEAST_ROWS = 50
_LEAST_EXPECTED = 5.0


class Cycles(NamedTuple):
    """What is carried from minute to minute.

    `at` is the latest minute, `seen_s` how much of the present week was seen, `block_s` of the present block; `weeks` were learnt from. `block` and
    `total` [stream, cell] are rows of the present block and of the week (last week's counting half). `farthest` [stream, direction and distance] is
    the most of this week, `widths` the most of the weeks learnt, above the week's mean.
    """

    at: float
    seen_s: float
    block_s: float
    weeks: int
    block: Array
    total: Array
    farthest: Array
    widths: Array


def begin(known: Directions, widths: Array | None = None) -> Cycles:
    """Before the first minute; with `widths`, as if a week had been learnt."""
    streams, ways, cells = known.scores.shape
    shape = (streams, ways + 1)
    nothing = np.zeros((streams, cells))
    weeks, widths = (0, np.zeros(shape)) if widths is None else (1, widths)
    return Cycles(-np.inf, 0.0, 0.0, weeks, nothing, nothing.copy(), np.full(shape, -np.inf), widths)


def key(feature: FeatureProfile) -> str:
    """By which a bundle, or a state, tells of a feature's cycles."""
    return f"{feature.role} {feature.kind} {feature.name}"


def learn(known: Directions, count: Callable[[Array], Array], times: Array) -> Array | None:
    """What rows of the reference teach that carry `times` (seconds since 1970, UTC; NaN: none): the widths [stream, direction and distance].

    By hours of the day, days of the week, hours of the week and months of the year; `count` gives the cells [stream, cell] of the rows at these
    places. None where the rows span less than a week.
    """
    is_known = np.isfinite(times)
    if not is_known.any() or np.ptp(times[is_known]) < WEEK_S:
        return None
    places = np.flatnonzero(is_known)
    total = count(places)
    usual = total / np.maximum(total.sum(axis=1), 1.0)[:, None]
    widths = np.zeros((len(known.features), known.scores.shape[1] + 1))
    for group in _groups(times[places]):
        for each in np.unique(group):
            among = places[group == each]
            if len(among) >= _LEAST_ROWS:
                widths = np.maximum(widths, _beyond(count(among), usual, known))
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


def _groups(times: Array) -> tuple[Array, ...]:
    seconds = times.astype("datetime64[s]")
    hour = (times // BLOCK_S).astype(np.int64)
    day = (times // DAY_S).astype(np.int64)
    month = seconds.astype("datetime64[M]").astype(np.int64) % 12
    return hour % 24, day % 7, hour % 168, month


def _noise(rows: Array, known: Directions) -> Array:
    """By how much a block's mean of each score may lie off by chance [stream, direction]; the second part is of rare things (Bernstein)."""
    found: Array = _ERRORS / np.sqrt(rows)[:, None] + _ERRORS**2 * known.scores.max(axis=2) / (3 * rows)[:, None]
    return found


def _beyond(block: Array, usual: Array, known: Directions) -> Array:
    """How far the rows of a block [stream, cell] provably lie from the `usual` shares [stream, cell], by direction and as a distance.

    Cells that a block is expected to hit fewer than five times have no part in the distance.
    """
    rows = np.maximum(block.sum(axis=1), 1.0)
    moved = block / rows[:, None] - usual
    found = np.zeros((len(block), known.scores.shape[1] + 1))
    found[:, :-1] = np.einsum("sdc,sc->sd", known.scores, moved) - _noise(rows, known)
    is_common = rows[:, None] * known.shares >= _LEAST_EXPECTED
    squares = (is_common * moved**2 / np.where(known.shares > 0, known.shares, 1.0)).sum(axis=1)
    freedom = np.maximum(is_common.sum(axis=1), 1)
    found[:, -1] = np.sqrt(np.maximum(squares - (freedom + _ERRORS * np.sqrt(2 * freedom)) / rows, 0.0))
    return np.maximum(found, 0.0)


def grown(cycles: Cycles, known: Directions, counts: Array, start: float, *, first_s: float, suspected: Array) -> Cycles:
    """After one minute of `counts` that begins at `start`. The first week is `first_s` long; `suspected` [stream] are not learnt from."""
    passed = min(max(start - cycles.at, 0.0), DAY_S) if np.isfinite(cycles.at) else 0.0
    at = max(start, cycles.at)
    cycles = cycles._replace(at=at, seen_s=cycles.seen_s + passed, block_s=cycles.block_s + passed)
    if cycles.block_s >= BLOCK_S and cycles.block.sum(axis=1).max(initial=0.0) >= BLOCK_ROWS:
        cycles = _close_block(cycles, known)
    if cycles.seen_s >= (WEEK_S if cycles.weeks else first_s):
        cycles = _close_week(cycles, known, suspected)
    cycles.block[...] += counts  # in place: it was copied when it was read, and this runs every minute
    return cycles


def _close_block(cycles: Cycles, known: Directions) -> Cycles:
    rows = np.maximum(cycles.block.sum(axis=1), 1.0)
    means = np.einsum("sdc,sc->sd", known.scores, cycles.block / rows[:, None]) - _noise(rows, known)
    farthest = cycles.farthest.copy()
    farthest[:, :-1] = np.maximum(farthest[:, :-1], means)
    seen = cycles.total.sum(axis=1)
    has_mean = cycles.seen_s >= DAY_S or (cycles.weeks > 0 and seen.max(initial=0.0) >= _MEAN_BLOCKS * rows.max(initial=0.0))
    if has_mean and seen.any():
        usual = cycles.total / np.maximum(seen, 1.0)[:, None]
        farthest[:, -1] = np.maximum(farthest[:, -1], _beyond(cycles.block, usual, known)[:, -1])
    return cycles._replace(block_s=0.0, block=np.zeros_like(cycles.block), total=cycles.total + cycles.block, farthest=farthest)


def _close_week(cycles: Cycles, known: Directions, suspected: Array) -> Cycles:
    shares = cycles.total / np.maximum(cycles.total.sum(axis=1), 1.0)[:, None]
    usual = np.zeros_like(cycles.widths)
    usual[:, :-1] = np.einsum("sdc,sc->sd", known.scores, shares)
    learnt = np.where(suspected[:, None], 0.0, np.maximum(cycles.farthest - usual, 0.0))
    return cycles._replace(
        seen_s=0.0,
        weeks=cycles.weeks + 1,
        total=cycles.total / 2,
        farthest=np.full_like(cycles.farthest, -np.inf),
        widths=np.maximum(cycles.widths, learnt),
    )
