"""Figures of quality where the truth is a chance: expected accuracy, AUC, precision, recall and F1, mean errors, and how far they may be off.

Hides the formulas. Pure. With chances of 0 and 1 they are the figures themselves. Of each, `labels` is the variance that the draw of the truths
leaves when the rows are known, `rows` the variance that the draw of the rows adds.

Sources: Guillory et al., "Predicting with confidence on unseen distributions" (ICCV 2021) and NannyML for the estimate from confidence; the AUC's
variances by first order, as DeLong et al. (1988).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array


class Expected(NamedTuple):
    """A figure and its two variances."""

    value: float
    labels: float
    rows: float


LOWER_IS_BETTER = ("mae", "rmse")


def binary(chance: Array, said: Array, score: Array) -> Mapping[str, Expected]:
    """Of two classes: `chance` of the second being true, whether it was `said`, and the `score` that ranks rows. What is undefined is left out."""
    found = {"accuracy": correct(np.where(said, chance, 1 - chance))["accuracy"]}
    if (ranked := _auc(chance, score)) is not None:
        found["auc"] = ranked
    yes = said.astype(np.float64)
    hits, named, true = yes * chance, yes.sum(), chance.sum()
    if named:
        found["precision"] = _ratio(hits, yes, np.where(said, 1.0, 0.0), np.zeros(len(yes)), chance)
    if true > 0:
        found["recall"] = _ratio(hits, chance, yes, np.ones(len(yes)), chance)
    if named + true > 0:
        found["f1"] = _ratio(2 * hits, yes + chance, 2 * yes, np.ones(len(yes)), chance)
    return found


def correct(chance: Array) -> Mapping[str, Expected]:
    """`accuracy`, from each answer's chance of being right."""
    n = len(chance)
    return {"accuracy": Expected(float(chance.mean()), float((chance * (1 - chance)).sum()) / n**2, float(chance.var()) / n)}


def errors(absolute: Array, squared: Array, kurtosis: float) -> Mapping[str, Expected]:
    """`mae` and `rmse`, from each answer's expected absolute and squared error; `kurtosis` is the mean fourth power by the mean square's square."""
    n = len(absolute)
    mae = Expected(float(absolute.mean()), float(np.maximum(squared - absolute**2, 0).sum()) / n**2, float(absolute.var()) / n)
    mean = float(squared.mean())
    root = mean**0.5
    slope = 0.25 / mean if mean > 0 else 0.0  # of the root, squared
    spread = max(kurtosis - 1.0, 0.0) * float((squared**2).sum()) / n**2
    return {"mae": mae, "rmse": Expected(root, slope * spread, slope * float(squared.var()) / n)}


def _ratio(top: Array, bottom: Array, top_slope: Array, bottom_slope: Array, chance: Array) -> Expected:
    """sum(top) / sum(bottom), whose slopes are by each row's chance."""
    whole = float(bottom.sum())
    value = float(top.sum()) / whole
    by_label = (top_slope - value * bottom_slope) / whole
    by_row = (top - value * bottom) / whole
    return Expected(value, float((by_label**2 * chance * (1 - chance)).sum()), float((by_row**2).sum()))


def _auc(chance: Array, score: Array) -> Expected | None:
    """Expected pairs in order by expected pairs, ties counted half, no row paired with itself."""
    _, inverse = np.unique(score, return_inverse=True)
    places = inverse.reshape(-1)
    other = 1 - chance
    positives, negatives = np.bincount(places, chance), np.bincount(places, other)
    below = (np.cumsum(negatives) - negatives / 2)[places] - other / 2  # negatives that a positive row beats
    over = (positives.sum() - np.cumsum(positives) + positives / 2)[places] - chance / 2  # positives that beat a negative row
    p, n = float(chance.sum()), float(other.sum())
    pairs = p * n - float((chance * other).sum())
    if pairs <= 1e-9 * max(1.0, len(chance)):
        return None
    value = float((chance * below).sum()) / pairs
    by_label = (below - over - value * ((n - other) - (p - chance))) / pairs
    by_row = (chance * below + other * over - value * (chance * (n - other) + other * (p - chance))) / pairs
    return Expected(value, float((by_label**2 * chance * other).sum()), float((by_row**2).sum()))
