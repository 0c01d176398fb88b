"""Nearest neighbours in double.

Hides how neighbours are found by a matrix product: candidates by |t|² - 2 x·t, a few more than asked for, then exact distances among
them. Written here because the stock converter is wrong by distance and hundreds of times slower on many rows. Where several rows lie equally
far, scikit-learn's choice depends on its search tree; such rows differ, and parity refuses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from modelyard.runtime.convert.answers import Answer, of_prediction, of_probability

if TYPE_CHECKING:
    from modelyard.runtime.convert.graph import Graph

_SPARE = 16
"""Candidates beyond those asked for: rounding in the product may swap rows that lie almost equally far."""

_CELLS = 4_000_000
"""Distances held at once: 32 MB."""


def neighbours(graph: Graph, features: str, estimator: Any) -> Answer:
    """KNeighborsClassifier and KNeighborsRegressor, Euclidean, uniform or by distance."""
    if estimator.effective_metric_ != "euclidean" or estimator.weights not in ("uniform", "distance"):
        raise ValueError(f"{type(estimator).__name__} with metric {estimator.effective_metric_!r} and weights {estimator.weights!r} has no writer")
    stored = np.asarray(estimator._fit_X, np.float64)
    count, wanted = len(stored), int(estimator.n_neighbors)
    graph.bound(max(1, _CELLS // count))
    rows = graph.constant(stored)
    product = graph.node("Gemm", [features, rows, graph.constant((stored**2).sum(axis=1))], alpha=-2.0, transB=1)
    candidates = graph.nodes("TopK", [product, graph.constant([min(count, wanted + _SPARE)], "int64")], 2, largest=0, axis=1)[1]
    apart = graph.node("Sub", [graph.node("Unsqueeze", [features, graph.constant([1], "int64")]), graph.node("Gather", [rows, candidates], axis=0)])
    squares = graph.node("ReduceSumSquare", [apart, graph.constant([2], "int64")], keepdims=0)
    nearest, place = graph.nodes("TopK", [squares, graph.constant([wanted], "int64")], 2, largest=0, axis=1)
    chosen = graph.node("GatherElements", [candidates, place], axis=1)
    return _answer(graph, estimator, chosen, _weights(graph, estimator, nearest))


def _weights(graph: Graph, estimator: Any, squares: str) -> str | None:
    """[N, k, 1]: 1 / distance; where a stored row is met exactly, only such rows count."""
    if estimator.weights == "uniform":
        return None
    distance = graph.node("Sqrt", [squares])
    met = graph.node("Cast", [graph.node("Equal", [distance, graph.constant([0.0])])], to=TensorProto.DOUBLE)
    any_met = graph.node("Greater", [graph.node("ReduceMax", [met, graph.constant([1], "int64")], keepdims=1), graph.constant([0.0])])
    weight = graph.node("Where", [any_met, met, graph.node("Reciprocal", [distance])])
    return graph.node("Unsqueeze", [weight, graph.constant([2], "int64")])


def _answer(graph: Graph, estimator: Any, chosen: str, weights: str | None) -> Answer:
    is_classifier = hasattr(estimator, "classes_")
    if is_classifier:
        known = np.eye(len(estimator.classes_))[np.asarray(estimator._y).reshape(-1)]
    else:
        known = np.asarray(estimator._y, np.float64).reshape(len(estimator._fit_X), -1)
    found = graph.node("Gather", [graph.constant(known), chosen], axis=0)
    axis = graph.constant([1], "int64")
    if weights is None:
        value = graph.node("Div", [graph.node("ReduceSum", [found, axis], keepdims=0), graph.constant([float(estimator.n_neighbors)])])
    else:
        total = graph.node("ReduceSum", [weights, axis], keepdims=0)
        value = graph.node("Div", [graph.node("ReduceSum", [graph.node("Mul", [found, weights]), axis], keepdims=0), total])
    if is_classifier:
        return of_probability(graph, value)
    return of_prediction(graph, value, is_flat=np.ndim(estimator._y) == 1)
