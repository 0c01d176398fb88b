"""The guard on answers without a value (NaN, null): how often an output of the candidate has none, beside the champion.

Hides that each output is tested for itself and rows of one request count once. Pure. What an output is, and when it has no value, the profile says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelyard.rollout.guards import evalues
from modelyard.rollout.guards.base import Finding, Stratum
from modelyard.rollout.guards.grammar import Guard

if TYPE_CHECKING:
    from modelyard.types import Array

UNASKED = "missing<champion+1%"
"""What judges every version that answers beside a champion, though nobody asked for it: an answer without a value is none."""


def missing(guard: Guard, strata: Sequence[Stratum], _alpha: float) -> Finding:
    """Above the bound when some output is (the mean of their e-processes is one), below when all are (their least is one). The worst one is told."""
    pairs = [pair for pair in map(_pair, strata) if pair is not None and (pair.other_trials or not guard.compares)]
    line = {"ratio": (guard.limit, 0.0), "difference": (1.0, guard.limit)}.get(guard.form)

    def evidence(times: float, by: evalues.Line | None, *, worse: bool) -> float:
        taken = [*pairs[:-1], *(evalues.Two(*(times * each for each in pair)) for pair in pairs[-1:])]
        if not taken or len({np.shape(pair.hits) for pair in taken}) > 1:
            return 0.0

        def pooled(first: int) -> Array:
            test = evalues.above if worse else evalues.below
            return test(sum(pair.hits for pair in taken[first:]), sum(pair.trials for pair in taken[first:]), guard.limit)

        compared = evalues.exceeds if worse else evalues.falls_short
        steps = pooled if by is None else [compared(pair, by) for pair in taken]
        found = evalues.from_any_step(steps, len(taken))
        return float(evalues.mean_of(found) if worse else found.min())

    shares = np.asarray(pairs[-1].hits) / pairs[-1].trials if pairs else np.zeros(0)
    others = np.asarray(pairs[-1].other_hits) / pairs[-1].other_trials if pairs and pairs[-1].other_trials else np.full_like(shares, math.nan)
    # Of the bound, not of all: the champion may lack another output far more often, and rightly so.
    worst = int(np.argmax([share - guard.bound(other) for share, other in zip(shares, others, strict=True)])) if pairs else 0
    champion = float(others[worst]) if pairs else math.nan
    return Finding(
        estimate=float(shares[worst]) if pairs else math.nan,
        champion=champion,
        limits=(math.nan, math.nan),
        units="requests",
        requests=float(sum(pair.trials for pair in pairs)),
        champion_requests=float(sum(pair.other_trials for pair in pairs)),
        failing=lambda times: evidence(times, line, worse=True),
        passing=lambda times: evidence(times, line, worse=False),
        worse=lambda: evidence(1.0, (1.0, 0.0), worse=True),
        broken_before=line is None and champion > guard.limit,
    )


def _pair(stratum: Stratum) -> evalues.Two | None:
    """Requests whose answer lacks each output, and all of them, of both; None where no output of the candidate's is known."""
    candidate, champion = stratum.candidate, stratum.champion
    outputs, answered = candidate.outputs, candidate.requests - candidate.errors
    if stratum.is_shadow:
        outputs, answered = candidate.mirror.outputs, candidate.mirror.sent - candidate.mirror.failed
    names = sorted(name for name, counts in outputs.items() if sum(counts))
    if not names or answered <= 0:
        return None
    hits, trials = _lacking([outputs[name] for name in names], answered)
    others = [champion.outputs.get(name, ()) for name in names]
    if not all(map(sum, others)):
        return evalues.Two(hits, trials, np.zeros(len(names)), 0.0)
    return evalues.Two(hits, trials, *_lacking(others, champion.requests - champion.errors))


def _lacking(outputs: Sequence[Sequence[int]], answered: int) -> tuple[Array, float]:
    """By their counts, the missing ones last: never more than requests, since rows of one request stand together."""
    rows = min(sum(counts) for counts in outputs)
    trials = float(min(rows, answered))
    return np.array([counts[-1] / sum(counts) * trials for counts in outputs]), trials
