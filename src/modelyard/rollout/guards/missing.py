"""The guard on answers without a value (NaN, null): how often an output of the candidate has none, beside the champion.

Hides that each output is tested for itself and rows of one request count once. Pure. What an output is, and when it has no value, the profile says.
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

UNASKED = "missing<champion+1%"
"""What judges every version that answers beside a champion, though nobody asked for it: an answer without a value is none."""


def missing(guard: Guard, strata: Sequence[Stratum], _alpha: float) -> Finding:
    """Above the bound when some output is (the mean of their e-processes is one), below when all are (their least is one). The worst one is told."""
    steps = [step for step in map(_step, strata) if step is not None and (step.counts.other_trials or not guard.compares)]
    pairs = [step.counts for step in steps]
    line = {"ratio": (guard.limit, 0.0), "difference": (1.0, guard.limit)}.get(guard.form)

    def evidence(times: float, by: evalues.Line | None, *, worse: bool) -> float:
        def absolute(two: evalues.Two) -> Array:
            return (evalues.above if worse else evalues.below)(two.hits, two.trials, guard.limit)

        def compared(two: evalues.Two) -> Array:
            return (evalues.exceeds if worse else evalues.falls_short)(two, by or (1.0, 0.0))

        found = binned.together(steps, times, absolute if by is None else compared, adds_up=by is None)
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
        worth=binned.worth(steps),
    )


def _step(stratum: Stratum) -> binned.Step | None:
    """Requests whose answer lacks each output, and all of them, of both; None where no output of the candidate's is known."""
    candidate, champion = stratum.candidate, stratum.champion
    outputs, answered = binned.answers(stratum)
    names = sorted(name for name, counts in outputs.items() if sum(counts))
    if not names or answered <= 0:
        return None
    mine = _lacking(outputs, names, answered, candidate.callers)
    if not all(sum(champion.outputs.get(name, ())) for name in names):
        return binned.step(stratum, mine, binned.Hits(np.zeros(len(names)), 0.0, callers.OnSets(np.ones(len(names)), np.ones(len(names)))))
    return binned.step(stratum, mine, _lacking(champion.outputs, names, champion.requests - champion.errors, champion.callers))


def _lacking(outputs: Mapping[str, Sequence[int]], names: Sequence[str], answered: int, asked_by: Callers) -> binned.Hits:
    """By their counts, the missing ones last: never more than requests, since rows of one request stand together."""
    counts = [outputs[name] for name in names]
    trials = float(min(answered, *map(sum, counts)))
    by = [callers.on_sets(asked_by, name, np.eye(len(each))[-1:], trials) for name, each in zip(names, counts, strict=True)]
    return binned.Hits(np.array([each[-1] / sum(each) * trials for each in counts]), trials, callers.joined(by))
