"""How much each input counts for a model's answers: how far they move when that input's values are dealt out anew among the rows.

Hides how many rows are asked. It needs no label, and says nothing of whether the model is right. An input that the model does not look at has exactly
0: every other number that goes in stays the same, so that every answer does.

Source: permutation importance, Fisher, Rudin and Dominici, "All models are wrong, but many are useful" (JMLR 2019), of answers, not of errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from modelyard.monitor.profile import FeatureProfile, Profile
    from modelyard.types import Array, Schema

ROWS = 2_000
AGAIN_ROWS = 20_000
"""An input that moved no answer among `ROWS` rows is asked about with so many before it is said not to count."""
FEATURES = 512
"""Of more inputs than this (an image) nobody asks one by one."""
SECONDS = 5.0
LEAST_ROWS = 50

Predict = Callable[[Mapping[str, "Array"]], Mapping[str, "Array"]]


def measure(predict: Predict, inputs: Mapping[str, Array], profile: Profile, schema: Schema) -> dict[str, float]:
    """Each profiled input's share of how far answers move, by name; they sum to 1. Empty where nobody can tell: too many inputs, or a model too slow.

    `predict` answers rows as they go in. Inputs without a profile (tag `drop`) have no share.
    """
    features = [each for each in profile.features if each.role == "input"]
    rows = len(next(iter(inputs.values()), ()))
    if not features or len(features) > FEATURES or rows < 2:
        return {}
    first = _spread(rows, min(rows, LEAST_ROWS))
    started = time.perf_counter()
    predict({name: array[first] for name, array in inputs.items()})
    row_s = (time.perf_counter() - started) / len(first)
    count = min(rows, ROWS, int(SECONDS / len(features) / max(row_s, 1e-9)))
    if count < min(rows, LEAST_ROWS):
        return {}
    again = min(rows, AGAIN_ROWS, max(count, int(SECONDS / len(features) / max(row_s, 1e-9))))
    moved = _moved(predict, inputs, features, schema, _spread(rows, count))
    still = [each for each in features if moved[each.name] == 0]
    if still and again > count:
        moved |= _moved(predict, inputs, still, schema, _spread(rows, again))
    total = sum(moved.values())
    return {name: amount / total for name, amount in moved.items()} if total > 0 else {}


def _moved(predict: Predict, inputs: Mapping[str, Array], features: Sequence[FeatureProfile], schema: Schema, chosen: Array) -> dict[str, float]:
    """By feature, how far answers to the chosen rows move."""
    draw = np.random.default_rng(0)
    order = draw.permutation(len(chosen))
    asked = {name: array[chosen] for name, array in inputs.items()}
    before = predict(asked)
    found = {}
    for feature in features:
        values = asked[feature.source]
        if values.ndim == 1 or values[0].size == 1:
            dealt = values[order]
        else:
            dealt = values.copy()
            flat = dealt.reshape(len(dealt), -1)
            flat[:, feature.element] = flat[order, feature.element]
        found[feature.name] = _distance(before, predict({**asked, feature.source: dealt}), schema)
    return found


def _distance(before: Mapping[str, Array], after: Mapping[str, Array], schema: Schema) -> float:
    """The mean distance of two answers: of probabilities half the sum of their differences, of numbers in mean distances from their median, of
    anything else the share that changed. The sum over outputs."""
    total = 0.0
    for spec in schema.outputs:
        one, other = (np.asarray(answers[spec.name]).reshape(len(answers[spec.name]), -1) for answers in (before, after))
        if one.shape != other.shape:
            return 1.0
        if spec.name == "label" and "probability" in before:  # which follows from its probabilities
            continue
        if one.dtype.kind in "fiu" and spec.name != "label":
            total += _gap(one.astype(np.float64), other.astype(np.float64), is_share=spec.name == "probability")
        else:
            total += float((one != other).any(axis=1).mean())
    return total


def _gap(one: Array, other: Array, *, is_share: bool) -> float:
    """The mean distance of numbers, in units of their own spread; one that came or went, or is infinite on one side, is one such unit away."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    known = np.where(np.isfinite(one), one, np.nan)
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(one - other))
    spread = np.full(one.shape[1], 2.0) if is_share else _deviation(known)
    scaled = gaps / np.where(spread > 0, spread, 1.0)
    return float(np.where(np.isfinite(scaled), scaled, 1.0).mean(axis=0).sum())


def _deviation(values: Array) -> Array:
    """The mean distance from the median of each column's numbers; 0 for none."""
    found = np.zeros(values.shape[1])
    for place, column in enumerate(values.T):
        present = column[~np.isnan(column)]
        found[place] = np.abs(present - np.median(present)).mean() if len(present) else 0.0
    return found


def _spread(rows: int, count: int) -> Array:
    """So many rows, evenly spread."""
    return np.arange(count) * rows // count
