"""Logged rows as the search for slices and the explanation of failures read them: classes by their place, answers and truth side by side.

Hides how a class is written: 1, 1.0 and "1" are one. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor.base import Logged

if TYPE_CHECKING:
    from modelyard.types import Array, Scalar, Schema


class Sampled(NamedTuple):
    """Predictions with their inputs, a row each, in the order in which they were answered. `truth`, `predicted` and `probability` are as of
    Labelled, but `truth` is -1 (of a number: NaN) where no label has come.
    """

    times: Array
    inputs: Mapping[str, Array]
    truth: Array
    predicted: Array
    probability: Array

    def take(self, rows: Array) -> Sampled:
        """Those rows."""
        probability = self.probability[rows] if len(self.probability) else self.probability
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        return Sampled(self.times[rows], inputs, self.truth[rows], self.predicted[rows], probability)


def sampled(logged: Logged | None, schema: Schema) -> Sampled | None:
    """`logged` in that form; None where there is no row, or no answer of one value a row."""
    if logged is None or not len(logged.times):
        return None
    count = len(logged.times)
    if schema.task == "classification" and schema.classes is not None:
        if "label" not in logged.outputs:
            return None
        predicted = places(logged.outputs["label"], schema.classes)
        truth = np.full(count, -1, dtype=np.int64) if logged.truth is None else logged.truth
        probability = logged.outputs.get("probability")
        is_whole = probability is not None and probability.shape == (count, len(schema.classes))
        return Sampled(logged.times, logged.inputs, truth, predicted, probability.astype(np.float64) if is_whole else np.zeros((0, 0)))  # type: ignore[union-attr]
    answer = logged.outputs.get("prediction")
    if answer is None or answer.size != count or answer.dtype == object:
        return None
    truth = np.full(count, np.nan) if logged.truth is None else logged.truth
    return Sampled(logged.times, logged.inputs, truth, answer.reshape(count).astype(np.float64), np.zeros((0, 0)))


def places(values: Array, classes: tuple[Scalar, ...]) -> Array:
    """Each value's place among the classes, -1 for none."""
    known = {_text(value): place for place, value in enumerate(classes)}
    return np.array([known.get(_text(value), -1) for value in values.tolist()], dtype=np.int64)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
