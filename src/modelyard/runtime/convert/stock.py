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

if TYPE_CHECKING:
    from onnx import ModelProto

    from modelyard.runtime.convert.graph import Columns, Graph

MOST_NEIGHBOURS = 20_000
"""Above so many stored rows a nearest-neighbour graph, which compares with every one of them, takes tens of milliseconds per row."""


def transform(graph: Graph, columns: Columns, step: Any, mode: str) -> Columns:
    """The columns that skl2onnx's graph for this transformer makes."""
    made = _included(graph, columns, step, mode)[0]
    double = graph.node("Cast", [made], to=TensorProto.DOUBLE)
    return graph.split(double, len(step.get_feature_names_out()), "float64")


def predict(graph: Graph, columns: Columns, step: Any, mode: str) -> Answer:
    """What skl2onnx's graph for this predictor answers."""
    made = _included(graph, columns, step, mode)
    if not hasattr(step, "classes_"):
        flat = graph.node("Reshape", [made[0], graph.constant([-1], "int64")])
        return Answer(prediction=graph.node("Cast", [flat], to=TensorProto.DOUBLE))
    has_probability = hasattr(step, "predict_proba")
    probability = graph.node("Cast", [made[1]], to=TensorProto.DOUBLE) if has_probability else None
    kind = np.asarray(step.classes_).dtype.kind
    label = made[0] if kind in "OUS" else graph.node("Cast", [made[0]], to=TensorProto.INT64)
    return Answer(label=label, probability=probability)


def _included(graph: Graph, columns: Columns, step: Any, mode: str) -> list[str]:
    graph.stock.add(type(step).__name__)
    _refuse_known(step, mode, graph)
    is_text = columns[0].kind == "string"
    tensor = graph.join(columns)
    if mode == "single" and not is_text:
        tensor = graph.node("Cast", [tensor], to=TensorProto.FLOAT)
    return graph.include(converted(step, len(columns), is_text=is_text, mode=mode), {"X": tensor})


def converted(step: Any, width: int, *, is_text: bool, mode: str) -> ModelProto:
    """skl2onnx's own model for the step, over one input X of `width` columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the converters warn of, parity judges
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

        kind = StringTensorType if is_text else FloatTensorType if mode == "single" else DoubleTensorType
        options = {id(step): {"zipmap": False}} if hasattr(step, "classes_") and hasattr(step, "predict_proba") else None
        return convert_sklearn(step, initial_types=[("X", kind([None, width]))], options=options, target_opset={"": OPSET, "ai.onnx.ml": 3})


def _refuse_known(step: Any, mode: str, graph: Graph) -> None:
    """Raise for what is known to hang, or to be right but too slow to serve."""
    stored = getattr(step, "n_samples_fit_", 0)
    if stored > MOST_NEIGHBOURS:
        raise ValueError(f"{type(step).__name__} compares with {stored:,} stored rows for each answer; above {MOST_NEIGHBOURS:,} it is not converted")
    if stored:
        graph.bound(max(1, 2_000_000 // stored))
    if mode != "single" and _has_infinite_threshold(step, 0):
        raise ValueError(f"{type(step).__name__} holds trees with thresholds of ±inf, on which the stock converter does not return in double")


def _has_infinite_threshold(step: Any, depth: int) -> bool:
    if depth > 8 or step is None:
        return False
    if hasattr(step, "tree_"):
        return bool(np.isinf(step.tree_.threshold).any())
    if hasattr(step, "_predictors"):
        return any(np.isinf(each.nodes["num_threshold"]).any() for stage in step._predictors for each in stage)
    parts: list[Any] = []
    for name in ("estimators_", "estimator_", "final_estimator_", "calibrated_classifiers_", "estimator", "steps", "named_estimators_"):
        part = getattr(step, name, None)
        if isinstance(part, np.ndarray):
            part = part.ravel().tolist()
        if isinstance(part, dict):
            part = list(part.values())
        parts += part if isinstance(part, (list, tuple)) else [part]
    parts = [each[1] if isinstance(each, tuple) and len(each) == 2 else each for each in parts]
    return any(_has_infinite_threshold(each, depth + 1) for each in parts if each is not None and not isinstance(each, str))
