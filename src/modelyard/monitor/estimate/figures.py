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
    """A figure and its two variances. `spread` says of each row what its truth's standard deviation does to the figure: `labels` is the sum of its
    squares.
    """

    value: float
    labels: float
    rows: float
    spread: Array


class _Part(NamedTuple):
    """A figure, and its slopes by each row's chance and by each row's weight."""

    value: float
    by_label: Array
    by_row: Array


LOWER_IS_BETTER = ("mae", "rmse")


def binary(chance: Array, said: Array, score: Array) -> Mapping[str, Expected]:
    """Of two classes: `chance` of the second being true, whether it was `said`, and the `score` that ranks rows. What is undefined is left out."""
    right = correct(np.where(said, chance, 1 - chance))["accuracy"]
    found = {"accuracy": right._replace(spread=np.where(said, right.spread, -right.spread))}
    deviation = np.sqrt(chance * (1 - chance))
    return found | {name: _told(each, each.by_label * deviation) for name, each in _parts(chance, said, score).items()}


def macro(chances: Array, said: Array, scores: Array) -> Mapping[str, Expected]:
    """Of more classes: the mean over them of each one's AUC, precision, recall and F1 beside all others.

    `chances` [rows, classes] sum to 1 in each row, `said` is the place of the class that was answered, `scores` [rows, classes] rank rows for each.
    A figure that is undefined for one class is left out.
    """
    classes = range(chances.shape[1])
    parts = [_parts(chances[:, place], said == place, scores[:, place]) for place in classes]
    found = {}
    for name in parts[0]:
        each = [part[name] for part in parts if name in part]
        if len(each) < len(parts):
            continue
        slopes = np.stack([one.by_label for one in each], axis=1) / len(parts)
        # One of the classes is true: their chances hang together (a multinomial draw).
        variance = (slopes**2 * chances).sum(axis=1) - (slopes * chances).sum(axis=1) ** 2
        mean = _Part(float(np.mean([one.value for one in each])), slopes, np.mean([one.by_row for one in each], axis=0))
        found[name] = _told(mean, np.sqrt(np.maximum(variance, 0.0)))
    return found


def correct(chance: Array) -> Mapping[str, Expected]:
    """`accuracy`, from each answer's chance of being right."""
    n = len(chance)
    spread = np.sqrt(chance * (1 - chance)) / n
    return {"accuracy": Expected(float(chance.mean()), float((spread**2).sum()), float(chance.var()) / n, spread)}


def errors(absolute: Array, squared: Array, kurtosis: float) -> Mapping[str, Expected]:
    """`mae` and `rmse`, from each answer's expected absolute and squared error; `kurtosis` is the mean fourth power by the mean square's square."""
    n = len(absolute)
    spread = np.sqrt(np.maximum(squared - absolute**2, 0)) / n
    mae = Expected(float(absolute.mean()), float((spread**2).sum()), float(absolute.var()) / n, spread)
    mean = float(squared.mean())
    slope = 0.25 / mean if mean > 0 else 0.0  # of the root, squared
    spread = np.sqrt(slope * max(kurtosis - 1.0, 0.0)) * squared / n
    return {"mae": mae, "rmse": Expected(mean**0.5, float((spread**2).sum()), slope * float(squared.var()) / n, spread)}


def _told(part: _Part, spread: Array) -> Expected:
    return Expected(part.value, float((spread**2).sum()), float((part.by_row**2).sum()), spread)


def _parts(chance: Array, said: Array, score: Array) -> dict[str, _Part]:
    """AUC, precision, recall and F1 of one class beside all others; what is undefined is left out."""
    found = {}
    if (ranked := _auc(chance, score)) is not None:
        found["auc"] = ranked
    yes = said.astype(np.float64)
    hits, named, true = yes * chance, yes.sum(), chance.sum()
    if named:
        found["precision"] = _ratio(hits, yes, yes, np.zeros(len(yes)))
    if true > 0:
        found["recall"] = _ratio(hits, chance, yes, np.ones(len(yes)))
    if named + true > 0:
        found["f1"] = _ratio(2 * hits, yes + chance, 2 * yes, np.ones(len(yes)))
    return found


def _ratio(top: Array, bottom: Array, top_slope: Array, bottom_slope: Array) -> _Part:
    """sum(top) / sum(bottom), whose slopes are by each row's chance."""
    whole = float(bottom.sum())
    value = float(top.sum()) / whole
    return _Part(value, (top_slope - value * bottom_slope) / whole, (top - value * bottom) / whole)


def _auc(chance: Array, score: Array) -> _Part | None:
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
    return _Part(value, by_label, by_row)
