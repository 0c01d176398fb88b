"""The guard on the distribution of predictions: how far the candidate's outputs lie from the champion's, in the champion's bins.

Hides the distance: the largest difference in share of any one bin, or of all bins up to one, over all outputs. For two classes that is the total
variation, for numbers the Kolmogorov-Smirnov distance on the bins; never more than the total variation. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelyard.rollout.guards import evalues
from modelyard.rollout.guards.base import Finding, Stratum
from modelyard.rollout.guards.grammar import Guard

if TYPE_CHECKING:
    from modelyard.types import Array


def prediction_shift(guard: Guard, strata: Sequence[Stratum], _alpha: float) -> Finding:
    """Above the bound when some set of bins differs by more, either way (the mean of their e-processes is one); below when all differ by less.

    The least of those e-processes is one against a distance of the bound or more.
    """
    pairs = [pair for pair in map(_pair, strata) if pair is not None]
    limit = guard.limit

    def evidence(times: float, *, worse: bool) -> float:
        steps = []
        for place, (mine, mine_all, other, other_all) in enumerate(pairs):
            factor = times if place == len(pairs) - 1 else 1.0
            counts = evalues.Two(factor * mine, factor * mine_all, factor * other, factor * other_all)
            more = evalues.exceeds(counts, (1.0, limit if worse else -limit))
            less = evalues.falls_short(counts, (1.0, -limit if worse else limit))
            steps.append(np.concatenate([more, less]))
        if not steps or any(step.shape != steps[0].shape for step in steps):
            return 0.0
        sets = evalues.from_any_step(steps, len(steps))
        return float(evalues.mean_of(sets) if worse else sets.min())

    distances = [float(np.max(np.abs(mine / mine_all - other / other_all))) for mine, mine_all, other, other_all in pairs]
    return Finding(
        estimate=distances[-1] if distances else math.nan,
        champion=math.nan,
        limits=(math.nan, math.nan),
        units="requests",
        requests=float(sum(float(pair[1].min()) for pair in pairs)),
        champion_requests=float(sum(float(pair[3].min()) for pair in pairs)),
        failing=lambda times: evidence(times, worse=True),
        passing=lambda times: evidence(times, worse=False),
    )


def _pair(stratum: Stratum) -> tuple[Array, Array, Array, Array] | None:
    """For each set of bins of each output: the candidate's hits and trials, the champion's hits and trials; None without both."""
    candidate, champion = stratum.candidate, stratum.champion
    mirror = candidate.mirror
    outputs, answered = candidate.outputs, candidate.requests - candidate.errors
    if stratum.is_shadow:
        outputs, answered = mirror.outputs, mirror.sent - mirror.failed
    names = [name for name, counts in outputs.items() if _is_like(counts, champion.outputs.get(name, ()))]
    if not names:
        return None
    mine, mine_all = _sets(outputs, names, answered)
    other, other_all = _sets(champion.outputs, names, champion.requests - champion.errors)
    return mine, mine_all, other, other_all


def _is_like(counts: Sequence[int], others: Sequence[int]) -> bool:
    return len(counts) == len(others) and sum(counts) > 0 and sum(others) > 0


def _sets(outputs: Mapping[str, Sequence[int]], names: Sequence[str], requests: int) -> tuple[Array, Array]:
    """Hits of each bin and of all bins up to each, and the trials: never more than requests, since rows of one request stand together."""
    hits, trials = [], []
    for name in names:
        counts = np.array(outputs[name], dtype=np.float64)
        rows = counts.sum()
        counts *= min(1.0, requests / rows) if requests > 0 else 1.0
        sets = np.concatenate([counts, np.cumsum(counts)[1:-2]])
        hits.append(sets)
        trials.append(np.full(len(sets), counts.sum()))
    return np.concatenate(hits), np.concatenate(trials)
