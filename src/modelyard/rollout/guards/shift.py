"""The guard on the distribution of predictions: how far the candidate's outputs lie from the champion's, in the champion's bins.

Hides the distance: the largest difference in share of any one bin, or of all bins up to one, over all outputs. For two classes that is the total
variation, for numbers the Kolmogorov-Smirnov distance on the bins; never more than the total variation. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelyard.rollout.guards import binned, callers, evalues
from modelyard.rollout.guards.base import Finding, Stratum
from modelyard.rollout.guards.grammar import Guard

if TYPE_CHECKING:
    from modelyard.rollout.guards.base import Callers
    from modelyard.types import Array


def prediction_shift(guard: Guard, strata: Sequence[Stratum], _alpha: float) -> Finding:
    """Above the bound when some set of bins differs by more, either way (the mean of their e-processes is one); below when all differ by less.

    The least of those e-processes is one against a distance of the bound or more.
    """
    steps = [step for step in map(_step, strata) if step is not None]
    limit = guard.limit

    def evidence(times: float, *, worse: bool) -> float:
        def either(two: evalues.Two) -> Array:
            more = evalues.exceeds(two, (1.0, limit if worse else -limit))
            return np.concatenate([more, evalues.falls_short(two, (1.0, -limit if worse else limit))])

        found = binned.together(steps, times, either)
        return float(evalues.mean_of(found) if worse else found.min())

    distances = [float(np.max(np.abs(two.hits / two.trials - two.other_hits / two.other_trials))) for two in (step.counts for step in steps)]
    return Finding(
        estimate=distances[-1] if distances else math.nan,
        champion=math.nan,
        limits=(math.nan, math.nan),
        units="requests",
        requests=float(sum(np.min(step.counts.trials) for step in steps)),
        champion_requests=float(sum(np.min(step.counts.other_trials) for step in steps)),
        failing=lambda times: evidence(times, worse=True),
        passing=lambda times: evidence(times, worse=False),
        worth=binned.worth(steps),
    )


def _step(stratum: Stratum) -> binned.Step | None:
    """Requests in each set of bins of each output, and all of them, of both; None without both."""
    candidate, champion = stratum.candidate, stratum.champion
    outputs, answered = binned.answers(stratum)
    names = [name for name, counts in outputs.items() if _is_like(counts, champion.outputs.get(name, ()))]
    if not names:
        return None
    mine = _in_sets(outputs, names, answered, candidate.callers)
    return binned.step(stratum, mine, _in_sets(champion.outputs, names, champion.requests - champion.errors, champion.callers))


def _is_like(counts: Sequence[int], others: Sequence[int]) -> bool:
    return len(counts) == len(others) and sum(counts) > 0 and sum(others) > 0


def _in_sets(outputs: Mapping[str, Sequence[int]], names: Sequence[str], requests: int, asked_by: Callers) -> binned.Hits:
    """Hits of each bin and of all bins up to each, and the trials: never more than requests, since rows of one request stand together."""
    hits, sizes, by = [], [], []
    for name in names:
        counts = np.array(outputs[name], dtype=np.float64)
        counts *= min(1.0, requests / counts.sum()) if requests > 0 else 1.0
        trials = float(counts.sum())
        sets = np.concatenate([np.eye(len(counts)), np.tri(len(counts))[1:-2]])
        hits.append(sets @ counts)
        sizes.append(np.full(len(sets), trials))
        by.append(callers.on_sets(asked_by, name, sets, trials))
    return binned.Hits(np.concatenate(hits), np.concatenate(sizes), callers.joined(by))
