"""How well answers fit labels, in the figures that everybody knows.

Hides formulas, in numpy alone. Pure. It says nothing of data that the model has not seen: whoever shows a figure says on which rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from modelyard.errors import InvalidInput

if TYPE_CHECKING:
    from modelyard.types import Array, Scalar, Schema


def figures(schema: Schema, outputs: Mapping[str, Array], labels: Array) -> dict[str, float]:
    """`accuracy` and, of two classes, `auc`; or `mae` and `r2`. Empty for a model that is neither classifier nor regressor. Raises InvalidInput."""
    if schema.task == "classification":
        given, true = _names(outputs["label"]), _names(labels)
        found = {"accuracy": float((given == true).mean())}
        if schema.classes is not None and len(schema.classes) == 2 and "probability" in outputs:
            score = auc(true == _name(schema.classes[1]), outputs["probability"][:, 1])
            found |= {} if score is None else {"auc": score}
        return found
    if schema.task == "regression" and "prediction" in outputs:
        predicted = np.asarray(outputs["prediction"], np.float64)
        try:
            true = np.asarray(labels, np.float64).reshape(predicted.shape)
        except (ValueError, TypeError) as error:
            raise InvalidInput("the labels of a regression are one number per row and output", field="labels", rule="type") from error
        spread = float(((true - true.mean(axis=0)) ** 2).sum())
        found = {"mae": float(np.abs(true - predicted).mean())}
        return found | ({"r2": 1.0 - float(((true - predicted) ** 2).sum()) / spread} if spread > 0 else {})
    return {}


def _names(labels: Array) -> Array:
    return np.array([_name(label) for label in labels.tolist()], dtype=object)


def _name(label: Scalar) -> str:
    """A label as text: 1, 1.0 and True are the same one, since a file or a missing value may have changed the type of its column."""
    return label if isinstance(label, str) else repr(float(label))


def auc(positive: Array, scores: Array) -> float | None:
    """Area under the ROC curve by the Mann-Whitney statistic, ties counted half; None when one class is absent."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse.reshape(-1)]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
