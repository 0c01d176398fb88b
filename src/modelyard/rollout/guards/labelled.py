"""Guards on what labels say of a model: AUC, mean absolute and root mean square error. (Accuracy is a share.)

Hides the estimates and their variances. Pure. Their level is asymptotic: it holds in the limit of a late first look, so nothing is said before
`LEAST` labels (of each class, for an AUC, `LEAST_OF_A_CLASS`).

Sources: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating characteristic curves" (Biometrics
1988), by Sun and Xu's ranks (IEEE Signal Processing Letters 2014); Waudby-Smith et al., "Time-uniform central limit theory and asymptotic
confidence sequences" (Annals of Statistics 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.rollout.guards import evalues
from modelyard.rollout.guards.base import Finding, Labelled, Stratum
from modelyard.rollout.guards.grammar import Guard

if TYPE_CHECKING:
    from modelyard.types import Array

LEAST = 100
LEAST_OF_A_CLASS = 30


class Estimate(NamedTuple):
    """An estimate from so many `labels` and its variance; NaN where there are too few."""

    value: float
    variance: float
    labels: float


NONE = Estimate(math.nan, math.nan, 0)


def auc(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """Of the score of the second of two classes, with ties counted half."""
    return _finding(guard, strata, alpha, area)


def mae(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """The mean of |truth - predicted|."""
    return _finding(guard, strata, alpha, lambda labels: _mean(np.abs(_errors(labels))))


def rmse(guard: Guard, strata: Sequence[Stratum], alpha: float) -> Finding:
    """The root of the mean of (truth - predicted)², its variance by linearisation."""
    return _finding(guard, strata, alpha, lambda labels: _root(_mean(_errors(labels) ** 2)))


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
    return Estimate(float(over.mean()), float(over.var(ddof=1) / m + under.var(ddof=1) / n), m + n)


def _finding(guard: Guard, strata: Sequence[Stratum], alpha: float, measured: Callable[[Labelled], Estimate]) -> Finding:
    pairs = [tuple(NONE if labels is None else measured(labels) for labels in (each.candidate_labels, each.champion_labels)) for each in strata]
    sign = 1.0 if guard.wants_lower else -1.0

    def evidence(times: float, factor: float, shift: float, direction: float, *, compares: bool) -> float:
        steps: list[Array] = []
        for place, (mine, other) in enumerate(pairs):
            more = times if place == len(pairs) - 1 else 1.0
            variance = mine.variance + (factor**2 * other.variance if compares else 0.0)
            excess = mine.value - (factor * other.value if compares else 0.0) - shift
            is_known = math.isfinite(variance) and math.isfinite(excess) and variance > 0 and mine.labels * more >= LEAST
            found = evalues.mean_exceeds(direction * excess, variance / more, more * mine.labels * mine.variance / variance) if is_known else 0.0
            steps.append(np.asarray(found))
        return float(evalues.from_any_step(steps, len(steps)))

    factor = guard.limit if guard.form == "ratio" else 1.0
    shift = 0.0 if guard.form == "ratio" else guard.limit
    known = [(mine, other) for mine, other in pairs if math.isfinite(mine.value) and (not guard.compares or math.isfinite(other.value))]
    mine, other = known[-1] if known else (NONE, NONE)
    champion = other.value if math.isfinite(other.value) else next((each.value for _, each in reversed(pairs) if math.isfinite(each.value)), math.nan)
    reach = _reach(mine, alpha)
    return Finding(
        estimate=mine.value,
        champion=champion,
        limits=(mine.value - reach, mine.value + reach),
        units="labelled predictions",
        requests=sum(mine.labels for mine, _ in pairs),
        champion_requests=sum(other.labels for _, other in pairs),
        failing=lambda times: evidence(times, factor, shift, sign, compares=guard.compares),
        passing=lambda times: evidence(times, factor, shift, -sign, compares=guard.compares),
        worse=lambda: evidence(1.0, 1.0, 0.0, sign, compares=True),
        broken_before=not guard.compares and sign * (champion - guard.limit) > 0,
        least=LEAST,
    )


def _reach(estimate: Estimate, alpha: float) -> float:
    """Half the width of the asymptotic confidence sequence: where `mean_exceeds` either way reaches 2 / `alpha`."""
    if not estimate.variance > 0:
        return math.nan
    low, high = 0.0, 100 * math.sqrt(estimate.variance)
    for _ in range(40):
        middle = (low + high) / 2
        is_enough = evalues.mean_exceeds(middle, estimate.variance, estimate.labels) >= math.log(2 / alpha)
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def _errors(labels: Labelled) -> Array:
    return np.asarray(labels.truth, dtype=np.float64) - np.asarray(labels.predicted, dtype=np.float64)


def _mean(values: Array) -> Estimate:
    count = len(values)
    return Estimate(float(values.mean()), float(values.var(ddof=1)) / count, count) if count >= LEAST else Estimate(math.nan, math.nan, count)


def _root(square: Estimate) -> Estimate:
    value = math.sqrt(square.value) if square.value > 0 else square.value
    return Estimate(value, square.variance / (4 * square.value) if square.value > 0 else math.nan, square.labels)


def _ranks(values: Array) -> Array:
    """From 1, ties by their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
