"""Guards on shares: of requests that failed, of rows that disagreed, of predictions that were right, of samples beyond a bound.

Hides how a bound on a share, on a ratio of two or on their difference becomes one line, and how steps are put together. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.events import Callers
from modelyard.rollout.guards import callers, evalues
from modelyard.rollout.guards.base import Finding, Stratum
from modelyard.rollout.guards.grammar import Guard

if TYPE_CHECKING:
    from modelyard.types import Array


NEGLIGIBLE = 0.001
"""A rate of errors that is shown to be lower passes any ratio that it does not fail: of two versions that never fail none could be shown."""


class Pair(NamedTuple):
    """Hits and trials of one step, the candidate's and the champion's; `effects` says by what these are divided where callers keep to a version."""

    hits: float
    trials: float
    other_hits: float = 0.0
    other_trials: float = 0.0
    effects: callers.Effects = callers.ALONE

    def times(self, factor: float) -> Pair:
        """As many times as much of the same."""
        return self._replace(
            hits=factor * self.hits, trials=factor * self.trials, other_hits=factor * self.other_hits, other_trials=factor * self.other_trials
        )

    def said(self) -> evalues.Two:
        """The counts by what they say: as many as if each request were its own caller's."""
        mine, other = self.effects.mine, self.effects.other
        return evalues.Two(self.hits / mine, self.trials / mine, self.other_hits / other, self.other_trials / other)


def error_rate(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """Of requests that were answered or failed by the server's or the model's fault."""
    pairs = []
    for each in strata:
        mine, other = each.candidate, each.champion
        hits, trials = (mine.mirror.failed, mine.mirror.sent) if each.is_shadow else (mine.errors, mine.requests)
        effects = callers.ALONE if each.is_shadow else callers.effects(mine.callers, other.callers)
        pairs.append(Pair(hits, trials, other.errors, other.requests, effects))
    finding = _finding(guard, pairs, alpha, units="requests")
    if guard.form != "ratio":
        return finding

    def passing(times: float) -> float:
        # Refutes that the candidate fails more than the ratio allows and more than NEGLIGIBLE: then both are e-processes, and so is their mean.
        return float(evalues.mean_of(np.array([finding.passing(times), _pooled(pairs, times, NEGLIGIBLE, worse=False)])))

    return finding._replace(passing=passing)


def disagreement(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """Of rows that were answered by both. Rows of one request stand or fall together, so each request counts once, by its share of rows."""
    pairs = []
    for each in strata:
        mirror = each.candidate.mirror
        requests = min(mirror.sent - mirror.failed, mirror.rows)
        pairs.append(Pair(mirror.disagreed * requests / mirror.rows if mirror.rows else 0.0, requests))
    return _finding(guard, pairs, alpha, units="compared requests")


def accuracy(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """Of predictions whose truth is known. Judged as the share of wrong ones."""
    pairs = []
    for each in strata:
        counts, found = [(0.0, 0.0)] * 2, [Callers()] * 2
        for place, labels in enumerate((each.candidate_labels, each.champion_labels)):
            if labels is not None:
                is_wrong = labels.truth != labels.predicted
                counts[place] = (float(np.sum(is_wrong)), float(len(labels.truth)))
                found[place] = callers.counted(is_wrong, labels.groups)
        pairs.append(Pair(*counts[0], *counts[1], callers.effects(*found)))
    return _finding(guard, pairs, alpha, units="labelled predictions")


def gauge(_guard: Guard, strata: Sequence[Stratum], _alpha: float) -> Finding:
    """Of a gauge's samples that lie beyond the bound, against a half: what is judged is the gauge's median over the time that it was asked.

    Nothing is known of a gauge's distribution, so only the sign of each sample counts. The level holds where, while the bound is kept, each sample is
    as likely within it as beyond it, whatever came before; a gauge that stays beyond for long while its median is within breaks that.
    """
    taken = [each.samples for each in strata if each.samples is not None]
    last = next((each for each in reversed(taken) if each.value is not None), None)
    value = math.nan if last is None or last.value is None else last.value
    champion = math.nan if last is None or last.champion is None else last.champion
    pairs = [Pair(each.broken, each.taken) for each in taken]
    return Finding(
        estimate=value,
        champion=champion,
        limits=(math.nan, math.nan),
        units="samples",
        requests=sum(pair.trials for pair in pairs),
        champion_requests=0.0,
        failing=lambda times: _pooled(pairs, times, 0.5, worse=True),
        passing=lambda times: _pooled(pairs, times, 0.5, worse=False),
    )


def _finding(guard: Guard, pairs: Sequence[Pair], alpha: float, *, units: str) -> Finding:
    """`pairs` count what should be rare. A guard that wants the metric high is on the share of the rest."""
    line = _line(guard)
    pairs_used = [pair for pair in pairs if pair.trials and (pair.other_trials or not guard.compares)]
    last = pairs_used[-1] if pairs_used else Pair(0, 0)
    champion = _rate([pair for pair in pairs if pair.other_trials], last)
    said = last.said()
    low, high = evalues.limits(float(said.hits), float(said.trials), alpha)
    estimate = last.hits / last.trials if last.trials else math.nan
    if guard.compares:

        def failing(times: float) -> float:
            return _compared(pairs, times, line, worse=True)

        def passing(times: float) -> float:
            return _compared(pairs, times, line, worse=False)
    else:

        def failing(times: float) -> float:
            return _pooled(pairs, times, line[1], worse=True)

        def passing(times: float) -> float:
            return _pooled(pairs, times, line[1], worse=False)

    is_flipped = not guard.wants_lower
    return Finding(
        estimate=1 - estimate if is_flipped else estimate,
        champion=1 - champion if is_flipped else champion,
        limits=(1 - high, 1 - low) if is_flipped else (low, high),
        units=units,
        requests=sum(pair.trials for pair in pairs),
        champion_requests=sum(pair.other_trials for pair in pairs),
        failing=failing,
        passing=passing,
        worse=lambda: _compared(pairs, 1.0, (1.0, 0.0), worse=True),
        broken_before=not guard.compares and champion > line[1],
        worth=_worth(pairs),
    )


def _line(guard: Guard) -> evalues.Line:
    """(factor, shift): what should be rare is bounded by factor · champion's + shift; an absolute bound is a shift alone."""
    limit = guard.limit
    if guard.wants_lower:
        return {"ratio": (limit, 0.0), "difference": (1.0, limit)}.get(guard.form, (0.0, limit))
    return {"ratio": (limit, 1 - limit), "difference": (1.0, -limit)}.get(guard.form, (0.0, 1 - limit))


def _rate(pairs: Sequence[Pair], last: Pair) -> float:
    """The champion's: in the last step, or over those in which it had any."""
    if last.other_trials:
        return last.other_hits / last.other_trials
    trials = sum(pair.other_trials for pair in pairs)
    return sum(pair.other_hits for pair in pairs) / trials if trials else math.nan


def _scaled(pairs: Sequence[Pair], times: float) -> list[Pair]:
    return [*pairs[:-1], *(pair.times(times) for pair in pairs[-1:])]


def _pooled(pairs: Sequence[Pair], times: float, bound: float, *, worse: bool) -> float:
    """An absolute bound is the same in each step, so its steps are counted together."""
    taken = _scaled(pairs, times)
    test = evalues.above if worse else evalues.below

    said = [pair.said() for pair in taken]
    if _is_shared(pairs):
        return float(callers.best_step([test(two.hits, two.trials, bound) for two in said]))

    def since(first: int) -> Array:
        return test(sum(two.hits for two in said[first:]), sum(two.trials for two in said[first:]), bound)

    return float(evalues.from_any_step(since, len(taken)))


def _compared(pairs: Sequence[Pair], times: float, line: evalues.Line, *, worse: bool) -> float:
    """The champion's share may change from step to step, and the split with it: so steps are never added up, but their evidence multiplied."""
    test = evalues.exceeds if worse else evalues.falls_short
    two = evalues.Two(*np.array([pair.said() for pair in _scaled(pairs, times)], dtype=np.float64).reshape(-1, 4).T)
    steps = list(test(two, line))
    return float(callers.best_step(steps) if _is_shared(pairs) else evalues.from_any_step(steps, len(pairs)))


def _worth(pairs: Sequence[Pair]) -> tuple[float, float] | None:
    said = [pair.said() for pair in pairs]
    return (float(sum(two.trials for two in said)), float(sum(two.other_trials for two in said))) if _is_shared(pairs) else None


def _is_shared(pairs: Sequence[Pair]) -> bool:
    """Whether steps share their callers, who keep to their version from one to the next."""
    return any(pair.effects.is_shared for pair in pairs)
