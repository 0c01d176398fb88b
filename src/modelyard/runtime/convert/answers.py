"""What a converted predictor gives, and the last steps that many models share: links, classes, labels.

Hides how a raw score becomes a probability and a probability a label in a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from modelyard.runtime.convert.graph import Graph
    from modelyard.types import Array

Link = str
"""Inverse of a loss's link: `identity`, `exp`, `sigmoid` (one score or independent ones), `softmax`."""


@dataclass(frozen=True)
class Answer:
    """Names of tensors: a classifier's `position` of the label among its classes [N] and `probability` [N, k], a regressor's `prediction`.

    `label` is set instead of `position` where a part made elsewhere gives the label itself.
    """

    prediction: str | None = None
    position: str | None = None
    probability: str | None = None
    label: str | None = None


def linked(graph: Graph, raw: str, link: Link) -> str:
    """`raw` through the inverse link, in double."""
    if link == "identity":
        return raw
    if link == "softmax":
        return graph.node("Softmax", [raw], axis=1)
    return graph.node({"exp": "Exp", "sigmoid": "Sigmoid"}[link], [raw])


def of_two(graph: Graph, positive: str) -> Answer:
    """A binary classifier from the probability [N, 1] of its second class."""
    negative = graph.node("Sub", [graph.constant([1.0]), positive])
    return of_probability(graph, graph.node("Concat", [negative, positive], axis=1))


def of_probability(graph: Graph, probability: str) -> Answer:
    """A classifier whose label is the first of its likeliest classes."""
    return Answer(probability=probability, position=graph.node("ArgMax", [probability], axis=1, keepdims=0))


def of_scores(graph: Graph, raw: str, link: Link, classes: int) -> Answer:
    """A boosted classifier from raw scores: [N, 1] for two classes, else [N, classes]."""
    if classes == 2:
        return of_two(graph, linked(graph, raw, "sigmoid"))
    return of_probability(graph, linked(graph, raw, link))


def of_decision(graph: Graph, decision: str, classes: int) -> Answer:
    """A classifier without probabilities, from decision values: [N, 1] and the sign for two classes, else [N, classes] and the largest."""
    if classes == 2:
        above = graph.node("Greater", [decision, graph.constant([0.0])])
        flat = graph.node("Reshape", [above, graph.constant([-1], "int64")])
        return Answer(position=graph.node("Cast", [flat], to=_INT64))
    return Answer(position=graph.node("ArgMax", [decision], axis=1, keepdims=0))


def of_prediction(graph: Graph, raw: str, *, link: Link = "identity", is_flat: bool = True) -> Answer:
    """A regressor from raw values [N, m]; [N] where `is_flat`."""
    value = linked(graph, raw, link)
    return Answer(prediction=graph.node("Reshape", [value, graph.constant([-1], "int64")]) if is_flat else value)


def labels(graph: Graph, answer: Answer, classes: Sequence[object] | Array) -> tuple[str, str]:
    """The tensor of labels and its element type (`int64`, `float64`, `bool` or `string`)."""
    kind = element(classes)
    if answer.label is not None:
        return answer.label, kind
    if answer.position is None:
        raise ValueError("the step gives no label")
    if kind == "int64" and list(classes) == list(range(len(classes))):
        return answer.position, kind
    return graph.node("Gather", [graph.constant(list(classes), kind), answer.position], axis=0), kind


def element(classes: Sequence[object] | Array) -> str:
    """How labels of these classes travel."""
    array = np.asarray(classes)
    if array.dtype.kind == "O" and all(isinstance(each, (bool, np.bool_)) for each in array):
        return "bool"
    return {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}.get(array.dtype.kind, "string")


_INT64 = 7
