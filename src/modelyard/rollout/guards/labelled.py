"""Guards on what labels say of a model: AUC, mean absolute and root mean square error. (Accuracy is a share.)

Hides the estimates, what each row has to do with them, and their variances: between rows, or between groups of callers where these keep to a version.
Pure. Their level is asymptotic: it holds in the limit of a late first look, so nothing is said before `LEAST` labels (of each class, for an AUC,
`LEAST_OF_A_CLASS`); where nothing varies `unvaried` says what there is to say.

Sources: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating characteristic curves" (Biometrics
1988), by Sun and Xu's ranks (IEEE Signal Processing Letters 2014); Obuchowski, "Nonparametric analysis of clustered ROC curve data" (Biometrics
1997); Waudby-Smith et al., "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.rollout.guards import callers, evalues, unvaried
from modelyard.rollout.guards.base import Finding, Labelled, Stratum
from modelyard.rollout.guards.grammar import Guard
from modelyard.rollout.guards.unvaried import Losses

if TYPE_CHECKING:
    from modelyard.types import Array

LEAST = 100
LEAST_OF_A_CLASS = 30
_STILL = 1e-9
"""A deviation of so little of the reach is the rounding of numbers, and none."""


class Estimate(NamedTuple):
    """An estimate from so many `labels` and its variance; NaN where there are too few, or too few callers.

    `alone` is the variance that it would have if each row were its own caller's, `trials` how many independent losses it is the mean of. `shares`:
    callers keep to a version, and so steps share them.
    """

    value: float
    variance: float
    labels: float
    alone: float = math.nan
    trials: float = 0.0
    shares: bool = False

    @property
    def worth(self) -> float:
        """As how many labels of different callers these count; 0 of too few callers."""
        if not self.shares or not self.alone > 0:
            return self.labels
        return self.labels * self.alone / self.variance if math.isfinite(self.variance) else 0.0


NONE = Estimate(math.nan, math.nan, 0)


class _Measure(NamedTuple):
    """What is estimated of labels, and how far its losses reach: from the estimate to the mean loss as a share of the reach, and back."""

    of: Callable[[Labelled], Estimate]
    loss: Callable[[float, float], float]
    value: Callable[[float, float], float]


class _Step(NamedTuple):
    mine: Estimate
    other: Estimate


def auc(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """Of the score of the second of two classes, with ties counted half."""
    return _finding(guard, strata, alpha, _Measure(area, lambda value, _: 1 - value, lambda loss, _: 1 - loss))


def mae(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """The mean of |truth - predicted|."""
    measure = _Measure(_mean_absolute, lambda value, reach: value / reach, lambda loss, reach: loss * reach)
    return _finding(guard, strata, alpha, measure)


def rmse(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """The root of the mean of (truth - predicted)², its variance by linearisation."""
    measure = _Measure(_root_mean_square, lambda value, reach: (max(0.0, value) / reach) ** 2, lambda loss, reach: math.sqrt(loss) * reach)
    return _finding(guard, strata, alpha, measure)


def area(labels: Labelled) -> Estimate:
    """The area under the ROC curve with DeLong's variance, in n log n; NaN with other than two classes, or fewer than `LEAST_OF_A_CLASS` of one."""
    truth, score = np.asarray(labels.truth), np.asarray(labels.score, dtype=np.float64)
    classes = np.unique(truth)
    if len(classes) != 2 or len(score) != len(truth):
        return Estimate(math.nan, math.nan, len(truth))
    positive = truth == classes[1]
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < LEAST_OF_A_CLASS:
        return Estimate(math.nan, math.nan, len(truth))
    ranks = _ranks(score)
    over = (ranks[positive] - _ranks(score[positive])) / n  # of each positive: the share of negatives below it
    under = 1 - (ranks[~positive] - _ranks(score[~positive])) / m
    influence = np.empty(len(truth))
    influence[positive], influence[~positive] = (over - over.mean()) / m, (under - under.mean()) / n
    alone = float(over.var(ddof=1) / m + under.var(ddof=1) / n)
    return _estimate(labels, float(over.mean()), influence, alone, trials=min(m, n))


def _mean_absolute(labels: Labelled) -> Estimate:
    losses = np.abs(_errors(labels))
    if len(losses) < LEAST:
        return Estimate(math.nan, math.nan, len(losses))
    return _estimate(labels, *_mean(losses), trials=len(losses))


def _root_mean_square(labels: Labelled) -> Estimate:
    losses = _errors(labels) ** 2
    if len(losses) < LEAST:
        return Estimate(math.nan, math.nan, len(losses))
    square, influence, alone = _mean(losses)
    root = math.sqrt(square)
    slope = 1 / (2 * root) if root > 0 else 0.0
    return _estimate(labels, root, slope * influence, slope**2 * alone, trials=len(losses))


def _mean(losses: Array) -> tuple[float, Array, float]:
    """The mean, what each has to do with it, and its variance."""
    mean, count = float(losses.mean()), len(losses)
    return mean, (losses - mean) / count, float(losses.var(ddof=1)) / count


def _estimate(labels: Labelled, value: float, influence: Array, alone: float, *, trials: float) -> Estimate:
    groups, count = np.asarray(labels.groups), len(influence)
    if not len(groups) or not (groups >= 0).any():
        return Estimate(value, alone, count, alone, trials)
    found = callers.spread(influence, groups)
    return Estimate(value, max(alone, found.variance) if found.is_known else math.nan, count, alone, trials, shares=True)


def _finding(guard: Guard, strata: Sequence[Stratum], alpha: float, measure: _Measure) -> Finding:
    steps = [_Step(*(NONE if labels is None else measure.of(labels) for labels in (each.candidate_labels, each.champion_labels))) for each in strata]
    reach = _reach(strata, is_score=guard.metric == "auc")
    is_shared = any(step.mine.shares or step.other.shares for step in steps)

    def evidence(times: float, by: Guard, *, worse: bool) -> float:
        scaled = [*steps[:-1], *(_times(step, times) for step in steps[-1:])]
        found = [_evidence(step, by, measure, reach, worse=worse) for step in scaled]
        return float(callers.best_step(found)) if is_shared else float(evalues.from_any_step([np.asarray(each) for each in found], len(found)))

    known = [step for step in steps if math.isfinite(step.mine.value) and (not guard.compares or math.isfinite(step.other.value))]
    mine, other = known[-1] if known else _Step(NONE, NONE)
    champion = other.value if math.isfinite(other.value) else next((each.value for _, each in reversed(steps) if math.isfinite(each.value)), math.nan)
    sign = 1.0 if guard.wants_lower else -1.0
    same = guard.same()
    return Finding(
        estimate=mine.value,
        champion=champion,
        limits=_limits(mine, alpha, measure, reach),
        units="labelled predictions",
        requests=sum(step.mine.labels for step in steps),
        champion_requests=sum(step.other.labels for step in steps),
        failing=lambda times: evidence(times, guard, worse=True),
        passing=lambda times: evidence(times, guard, worse=False),
        worse=lambda: evidence(1.0, same, worse=True),
        broken_before=not guard.compares and sign * (champion - guard.limit) > 0,
        least=LEAST,
        worth=(sum(step.mine.worth for step in steps), sum(step.other.worth for step in steps)) if is_shared else None,
    )


def _times(step: _Step, factor: float) -> _Step:
    """As many times as much of the same."""

    def more(each: Estimate) -> Estimate:
        return each._replace(labels=factor * each.labels, variance=each.variance / factor, alone=each.alone / factor, trials=factor * each.trials)

    return _Step(more(step.mine), more(step.other))


def _evidence(step: _Step, guard: Guard, measure: _Measure, reach: float, *, worse: bool) -> float:
    """Of one step, that the candidate is worse than its bound, or that it is better."""
    mine, other = step
    if mine.labels < LEAST or not math.isfinite(mine.variance) or (guard.compares and not math.isfinite(other.variance)):
        return 0.0
    if _is_still(mine, reach) or (guard.compares and _is_still(other, reach)):
        return _unvaried(step, guard, measure, reach, worse=worse)
    factor = (guard.limit if guard.form == "ratio" else 1.0) if guard.compares else 0.0
    variance = mine.variance + factor**2 * other.variance
    excess = mine.value - (guard.bound(other.value) if guard.compares else guard.limit)
    sign = 1.0 if guard.wants_lower == worse else -1.0
    # As many as there would be if each row were its own caller's, and had the same variance.
    return evalues.mean_exceeds(sign * excess, variance, mine.labels * mine.alone / variance)


def _unvaried(step: _Step, guard: Guard, measure: _Measure, reach: float, *, worse: bool) -> float:
    # How far the callers differ of a version whose rows do not vary nobody knows: the effect of the other's holds, as on shares.
    effect = max((each.variance / each.alone for each in step if guard.compares and not _is_still(each, reach)), default=1.0)
    mine, other = (Losses(measure.loss(each.value, reach), each.trials / effect) for each in step)

    def bound(share: float) -> float:
        found = guard.bound(measure.value(share, reach) if guard.compares else math.nan)
        return measure.loss(found, reach) if found >= 0 or guard.metric == "auc" else -1.0

    compared = other if guard.compares else None
    if worse:
        return unvaried.above(mine, compared, bound)
    found = unvaried.below(mine, compared, bound)
    if guard.form != "ratio" or not guard.wants_lower or not _is_still(step.mine, reach):
        return found
    return float(evalues.mean_of(np.array([found, unvaried.below(mine, None, lambda _: unvaried.NEGLIGIBLE)])))


def _is_still(estimate: Estimate, reach: float) -> bool:
    return math.sqrt(estimate.alone * estimate.labels) <= _STILL * reach


def _reach(strata: Sequence[Stratum], *, is_score: bool) -> float:
    """How far a loss can reach: of an area 1, of an error the distance of the farthest two among all truths and predictions."""
    if is_score:
        return 1.0
    known = [labels for each in strata for labels in (each.candidate_labels, each.champion_labels) if labels is not None]
    return unvaried.reach([np.asarray(values, dtype=np.float64) for labels in known for values in (labels.truth, labels.predicted)])


def _limits(estimate: Estimate, alpha: float, measure: _Measure, reach: float) -> tuple[float, float]:
    if not math.isfinite(estimate.variance):
        return math.nan, math.nan
    if _is_still(estimate, reach):
        ends = unvaried.limits(Losses(measure.loss(estimate.value, reach), estimate.trials), alpha)
        low, high = sorted(measure.value(end, reach) for end in ends)
        return low, high
    half = _half(estimate, alpha)
    return estimate.value - half, estimate.value + half


def _half(estimate: Estimate, alpha: float) -> float:
    """Half the width of the asymptotic confidence sequence: where `mean_exceeds` either way reaches 2 / `alpha`."""
    low, high = 0.0, 100 * math.sqrt(estimate.variance)
    observations = estimate.labels * estimate.alone / estimate.variance
    for _ in range(40):
        middle = (low + high) / 2
        is_enough = evalues.mean_exceeds(middle, estimate.variance, observations) >= math.log(2 / alpha)
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def _errors(labels: Labelled) -> Array:
    return np.asarray(labels.truth, dtype=np.float64) - np.asarray(labels.predicted, dtype=np.float64)


def _ranks(values: Array) -> Array:
    """From 1, ties by their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
