"""The stock scikit-learn converters, for steps that have no writer of ours.

Hides skl2onnx and its element types. They are often silently wrong, so what they write counts only once parity has been proved on
every row; and some never return, so those cases are refused before they are called.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from modelyard.runtime.convert.answers import Answer
from modelyard.runtime.convert.graph import OPSET
from modelyard.runtime.originals.base import parts

if TYPE_CHECKING:
    from onnx import ModelProto

    from modelyard.runtime.convert.graph import Columns, Graph

MOST_NEIGHBOURS = 20_000
"""Above so many stored rows a nearest-neighbour graph, which compares with every one of them, takes tens of milliseconds per row."""


def transform(graph: Graph, columns: Columns, step: Any) -> Columns:
    """The columns that skl2onnx's graph for this transformer makes."""
    made = _included(graph, columns, step)[0]
    double = graph.node("Cast", [made], to=TensorProto.DOUBLE)
    return graph.split(double, len(step.get_feature_names_out()), "float64")


def predict(graph: Graph, columns: Columns, step: Any) -> Answer:
    """What skl2onnx's graph for this predictor answers."""
    made = _included(graph, columns, step)
    if not hasattr(step, "classes_"):
        prediction = graph.node("Cast", [made[0]], to=TensorProto.DOUBLE)
        has_several = getattr(step, "n_outputs_", 1) > 1 or np.ndim(getattr(step, "_y", 0)) == 2
        return Answer(prediction=prediction if has_several else graph.node("Reshape", [prediction, graph.constant([-1], "int64")]))
    has_probability = hasattr(step, "predict_proba")
    probability = graph.node("Cast", [made[1]], to=TensorProto.DOUBLE) if has_probability else None
    kind = np.asarray(step.classes_).dtype.kind
    label = made[0] if kind in "OUS" else graph.node("Cast", [made[0]], to=TensorProto.INT64)
    return Answer(label=label, probability=probability)


def _included(graph: Graph, columns: Columns, step: Any) -> list[str]:
    graph.stock.add(type(step).__name__)
    _refuse_known(graph, step)
    is_text = columns[0].kind == "string"
    tensor = graph.join(columns)
    if graph.mode == "single" and not is_text:
        tensor = graph.node("Cast", [tensor], to=TensorProto.FLOAT)
    return graph.include(_converted(step, len(columns), is_text=is_text, is_single=graph.mode == "single"), {"X": tensor})


def _converted(step: Any, width: int, *, is_text: bool, is_single: bool) -> ModelProto:
    """skl2onnx's own model for the step, over one input X of `width` columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the converters warn of, parity judges
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

        kind = StringTensorType if is_text else FloatTensorType if is_single else DoubleTensorType
        options = {id(step): {"zipmap": False}} if hasattr(step, "classes_") and hasattr(step, "predict_proba") else None
        return convert_sklearn(step, initial_types=[("X", kind([None, width]))], options=options, target_opset={"": OPSET, "ai.onnx.ml": 3})


def _refuse_known(graph: Graph, step: Any) -> None:
    """Raise for what is known to hang, or to be right but too slow to serve."""
    stored = getattr(step, "n_samples_fit_", 0)
    if stored > MOST_NEIGHBOURS:
        raise ValueError(f"{type(step).__name__} compares with {stored:,} stored rows for each answer; above {MOST_NEIGHBOURS:,} it is not converted")
    if stored:
        graph.bound(max(1, 2_000_000 // stored))
    if graph.mode != "single" and _has_infinite_threshold(step):
        raise ValueError(f"{type(step).__name__} holds trees with thresholds of ±inf, on which the stock converter does not return in double")


def _has_infinite_threshold(step: Any) -> bool:
    """Whether a tree anywhere inside splits at ±inf, as trees do that were trained with missing values."""
    for part in parts(step):
        if hasattr(part, "tree_") and np.isinf(part.tree_.threshold).any():
            return True
        if any(np.isinf(each.nodes["num_threshold"]).any() for stage in getattr(part, "_predictors", ()) for each in stage):
            return True
    return False
