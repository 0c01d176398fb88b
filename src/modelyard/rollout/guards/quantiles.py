"""Guards on latencies: p50 to p99, bounded by a time, by a multiple of the champion's, or by so much more.

Hides how steps are put together. Pure; the statistics of buckets are `latency`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelyard.events import bucket_place
from modelyard.rollout.guards import callers, evalues, latency
from modelyard.rollout.guards.base import Finding, Stratum
from modelyard.rollout.guards.grammar import Guard

if TYPE_CHECKING:
    from modelyard.types import Array


def quantile(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """Of answered requests; in a shadow, of mirrored ones."""
    share = int(guard.metric[1:]) / 100
    buckets = [each.candidate.mirror.latencies if each.is_shadow else each.candidate.latencies for each in strata]
    counts, first = latency.filled([*buckets, *(each.champion.latencies for each in strata)])
    mine, other = counts[: len(strata)], counts[len(strata) :]
    steps = len(strata)

    def scaled(times: float) -> Array:
        taken = counts.copy()
        taken[[steps - 1, -1]] *= times
        return taken

    compares = guard.compares
    used = [step for step in range(steps) if mine[step].sum() and (other[step].sum() or not compares)]
    here = mine[used[-1]] if used else mine[:1].sum(axis=0) * 0
    there = other[used[-1]] if used and other[used[-1]].sum() else other.sum(axis=0)
    champion = float(latency.quantile(there, first, share))
    effects = _effects(strata, (champion, guard.bound(champion)) if compares else (guard.limit,))
    is_shared = any(each.is_shared for each in effects)

    def said(times: float) -> Array:
        """The counts by what they say: as many as if each request were its own caller's."""
        by = np.array([[each.mine for each in effects], [each.other for each in effects]])
        found: Array = scaled(times) / by.reshape(-1, 1)
        return found

    def compared(times: float, moved: latency.Moved, *, worse: bool) -> float:
        taken = said(times)
        test = latency.slower_than if worse else latency.faster_than
        found = list(test(taken[:steps], taken[steps:], first, share, moved))
        return float(callers.best_step(found) if is_shared else evalues.from_any_step(found, steps))

    together = [each.candidate.blocks for each in strata]
    squares, products = (_over(sums, first, counts.shape[1]) for sums in ([b.squares for b in together], [b.products for b in together]))
    numbers = np.array([each.count for each in together], dtype=np.float64)

    def bounded(times: float, *, worse: bool) -> float:
        """By requests, and where it is known how they lay together by seconds too: the lesser counts."""
        taken, factors = scaled(times)[:steps], np.ones(steps)
        factors[-1] = times
        by_requests = latency.slower if worse else latency.faster
        by_blocks = latency.slower_by_blocks if worse else latency.faster_by_blocks

        def blocks(start: int) -> latency.Blocks:
            weights = factors[start:]
            return latency.Blocks(float(weights @ numbers[start:]), weights @ squares[start:], weights @ products[start:])

        if is_shared:
            found = float(callers.best_step([by_requests(each, first, share, guard.limit) for each in said(times)[:steps]]))
        else:
            found = float(evalues.from_any_step(lambda start: by_requests(taken[start:].sum(axis=0), first, share, guard.limit), steps))
        if not numbers.any():
            return found
        seconds = [by_blocks(taken[start:].sum(axis=0), blocks(start), first, share, guard.limit) for start in range(steps)]
        return min(found, float(evalues.from_any_step(lambda start: np.asarray(seconds[start]), steps)))

    return Finding(
        estimate=float(latency.quantile(here, first, share)),
        champion=champion,
        limits=latency.limits(said(1.0)[used[-1]] if used else here, first, share, alpha),
        units="requests",
        requests=float(mine.sum()),
        champion_requests=float(other.sum()),
        failing=lambda times: compared(times, guard.bound, worse=True) if compares else bounded(times, worse=True),
        passing=lambda times: compared(times, guard.bound, worse=False) if compares else bounded(times, worse=False),
        worse=lambda: compared(1.0, lambda seconds: seconds, worse=True),
        broken_before=not compares and not math.isnan(champion) and champion > guard.limit,
        worth=(float(said(1.0)[:steps].sum()), float(said(1.0)[steps:].sum())) if is_shared else None,
    )


def _effects(strata: Sequence[Stratum], seconds: Sequence[float]) -> list[callers.Effects]:
    """By step, how much less requests say than their number of how many are slower than these."""
    places = [bucket_place(each) for each in seconds if math.isfinite(each) and each > 0]
    return [callers.ALONE if each.is_shadow else callers.slow(each.candidate.callers, each.champion.callers, places) for each in strata]


def _over(sums: Sequence[Mapping[int, int]], first: int, size: int) -> Array:
    """`sums` by bucket, of `size` buckets from `first` on."""
    found = np.zeros((len(sums), size))
    for row, each in enumerate(sums):
        for bucket, value in each.items():
            found[row, bucket - first] = value
    return found
