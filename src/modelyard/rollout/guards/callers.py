"""How much less requests say than their number, where each caller keeps to one version: what was drawn are the callers, not their requests.

Hides the groups of callers (`events.Callers`) and the variance between them. Pure; numpy only.

A caller's requests are alike, so a hundred of one caller say little more than one. Callers are hashed into groups without regard to the version that
they were given; between groups of one version the sums differ as far as its callers do, whatever one caller's requests have to do with one another
(the delta method of cluster-randomised experiments: Deng, Lu and Litz, "Trustworthy analysis of online A/B tests", WSDM 2017). The ratio of that
variance to the one that independent requests would have is the design effect (Kish, "Survey Sampling", 1965), by which counts are divided before
they are tested. It is never taken for less than 1. Each group is weighed by what is left without it, as in the jackknife, so that a few large ones do
not hide behind the mean that they make.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard import events
from modelyard.events import GROUPS, HALF, OUTPUT_GROUPS

if TYPE_CHECKING:
    from modelyard.rollout.guards.base import Callers
    from modelyard.types import Array

LEAST_GROUPS = 10.0
"""Of fewer groups of equal size nothing is known of how far callers differ: then a share is tested as if they differed as far as they can."""


class Spread(NamedTuple):
    """The variance of an estimate by what groups of callers have to do with one another, and to how many groups of equal size they come."""

    variance: float
    groups: float

    @property
    def is_known(self) -> bool:
        """Whether there are enough of them."""
        return self.groups >= LEAST_GROUPS


class Effects(NamedTuple):
    """By what the counts of candidate and champion in one step are divided before they are tested.

    `is_shared`: callers keep to a version, and so steps share them.
    """

    mine: float = 1.0
    other: float = 1.0
    is_shared: bool = False


class OnSets(NamedTuple):
    """By set the design effect of one version in one step, NaN where nothing varies, and the most that it can be: the size of the largest group.

    1 where no groups were counted.
    """

    effect: Array
    most: Array


ALONE = Effects()
"""Where each request was drawn for itself."""


def spread(influence: Array, groups: Array) -> Spread:
    """Of an estimate to which each row adds its `influence` (which sum to 0), by the group of each row's caller; -1: a caller of its own."""
    placed = _placed(groups)
    return _spread(np.bincount(placed, influence, minlength=GROUPS), np.bincount(placed, minlength=GROUPS))


def effect(callers: Callers) -> Spread:
    """The design effect on a share of requests that failed (as a variance), of one version in one step; NaN where none or all have.

    Of few groups it is the size of the largest, as if all requests of a group were one: a total failure is found of the few callers that meet it.
    """
    asked, failed = _spread_out(callers.asked), _spread_out(callers.failed)
    total = float(asked.sum())
    if not total:
        return Spread(math.nan, 0.0)
    share = float(failed.sum()) / total
    found = _spread((failed - share * asked) / total, asked)
    if not found.is_known:
        return Spread(float(asked.max()), found.groups)
    alone = share * (1 - share) / total
    return Spread(found.variance / alone if alone > 0 else math.nan, found.groups)


def slow(mine: Callers, other: Callers, places: Sequence[float]) -> Effects:
    """As `effects`, on the share of answered requests that lie beyond some places among the buckets of latencies: where it is most.

    Of a place both ends of its half octave are looked at.
    """
    if not mine.took and not other.took:
        return ALONE
    halves = {int(place // HALF) + end for place in places for end in (0, 1)} or {0}
    found = [effects(*(_slower(each, half) for each in (mine, other))) for half in sorted(halves)]
    return Effects(
        mine=max(each.mine for each in found),
        other=max(each.other for each in found),
        is_shared=found[0].is_shared,
    )


def _slower(callers: Callers, half: int) -> events.Callers:
    asked, slower = np.zeros(GROUPS), np.zeros(GROUPS)
    for cell, count in callers.took.items():
        asked[cell % GROUPS] += count
        slower[cell % GROUPS] += count if cell // GROUPS >= half else 0
    return filled(asked, slower) if callers.took else events.Callers()


def effects(mine: Callers, other: Callers) -> Effects:
    """Of candidate and champion in one step; `ALONE` where no groups were counted.

    Of one that has no failure, or nothing else, the other's holds, but for no more than the size of its own largest group.
    """
    if not mine.asked and not other.asked:
        return ALONE
    found = [effect(each).variance if each.asked else 1.0 for each in (mine, other)]
    most = [float(max(each.asked.values(), default=1)) for each in (mine, other)]
    first, second = (min(found[1 - place], most[place]) if math.isnan(size) else size for place, size in enumerate(found))
    return Effects(
        mine=1.0 if math.isnan(first) else max(1.0, first),
        other=1.0 if math.isnan(second) else max(1.0, second),
        is_shared=True,
    )


def on_sets(callers: Callers, name: str, sets: Array, trials: float) -> OnSets:
    """Of the share of rows whose output `name` falls into each of `sets` [set, bin], of one version in one step.

    `trials` is as how many requests all these rows count. Of few groups the effect is the most that it can be, and so it is where a version's outputs
    were not counted by groups.
    """
    if not callers.asked:
        return OnSets(np.ones(len(sets)), np.ones(len(sets)))
    flat = np.array(callers.outputs.get(name, ()), dtype=np.float64)
    if flat.size != OUTPUT_GROUPS * sets.shape[1] or not flat.any():
        most = np.full(len(sets), trials * max(callers.asked.values()) / max(1, sum(callers.asked.values())))
        return OnSets(most, most)
    counts = flat.reshape(OUTPUT_GROUPS, -1)
    sizes = counts.sum(axis=1)
    rows, hits = sizes.sum(), sets @ counts.T
    share = hits.sum(axis=1) / rows
    variance, groups = _between((hits - share[:, None] * sizes) / rows, sizes)
    most = np.full(len(sets), trials * sizes.max() / rows)
    if groups < LEAST_GROUPS:
        return OnSets(most, most)
    alone = share * (1 - share) / trials
    with np.errstate(invalid="ignore", divide="ignore"):
        return OnSets(np.where(alone > 0, variance / alone, np.nan), most)


def joined(found: Sequence[OnSets]) -> OnSets:
    """Those of several outputs, one after the other."""
    return OnSets(*map(np.concatenate, zip(*found, strict=True)))


def counted(is_hit: Array, groups: Array) -> events.Callers:
    """Rows that count or not, by the groups of their callers; nothing where none of these stays with a version."""
    if not len(groups) or not (groups >= 0).any():
        return events.Callers()
    placed = _placed(groups)
    return filled(np.bincount(placed, minlength=GROUPS), np.bincount(placed, is_hit, minlength=GROUPS))


def filled(asked: Array, failed: Array) -> events.Callers:
    """Counts by group."""
    return events.Callers(asked=dict(enumerate(asked.astype(np.int64).tolist())), failed=dict(enumerate(failed.astype(np.int64).tolist())))


def _placed(groups: Array) -> Array:
    """Rows of their own are put into groups in turn: that is as good as by chance, and the same each time."""
    alone = np.flatnonzero(groups < 0)
    placed = groups.copy()
    placed[alone] = np.arange(len(alone)) % GROUPS
    return placed


def _spread(sums: Array, sizes: Array) -> Spread:
    total = float(sizes.sum())
    if not total:
        return Spread(math.nan, 0.0)
    variance, groups = _between(sums, sizes)
    return Spread(float(variance), groups)


def _between(sums: Array, sizes: Array) -> tuple[Array, float]:
    """The variance by the last axis of `sums`, groups of these `sizes`, and to how many of equal size they come."""
    total = float(sizes.sum())
    rest = 1 - sizes / total
    variance: Array = ((sums[..., rest > 0] / rest[rest > 0]) ** 2).sum(axis=-1)
    return variance, total**2 / float((sizes.astype(np.float64) ** 2).sum())


def _spread_out(counts: Mapping[int, int]) -> Array:
    found = np.zeros(GROUPS)
    found[list(counts)] = list(counts.values())
    return found


def best_step(evidence: Sequence[Array | float]) -> Array:
    """Of the e-processes of steps that the same callers may share, the one that says most, at its part of the level.

    As `evalues.from_any_step` weighs them; but their product holds only for steps that have nothing to do with one another.
    """
    weighed = [np.asarray(each) - math.log((place + 1) * (place + 2)) for place, each in enumerate(evidence)]
    found: Array = np.max(np.broadcast_arrays(np.zeros(()), *weighed), axis=0)
    return found
