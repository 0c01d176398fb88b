"""From raw scores to labels."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from modelyard.runtime.convert.answers import Answer, element, labels, of_decision, of_prediction, of_scores
from modelyard.runtime.convert.graph import Graph

RAW = np.array([[0.0], [2.0], [-1.0]])


def run(write: object, raw: np.ndarray, kind: int, width: int | None) -> np.ndarray:
    graph = Graph()
    tensor = graph.join(graph.matrix("X", "float64", raw.shape[1]))
    model, _ = graph.finish([("y", write(graph, tensor), kind, width)])  # type: ignore[operator]
    return onnxruntime.InferenceSession(model).run(None, {"X": raw})[0]


def test_two_classes_share_one_probability_and_a_tie_is_the_first() -> None:
    probability = run(lambda graph, raw: of_scores(graph, raw, "softmax", 2).probability, RAW, TensorProto.DOUBLE, 2)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-RAW[:, 0])))
    label = run(lambda graph, raw: labels(graph, of_scores(graph, raw, "softmax", 2), ["no", "yes"])[0], RAW, TensorProto.STRING, None)
    assert label.tolist() == ["no", "yes", "no"]


def test_a_decision_is_its_sign_or_its_largest() -> None:
    two = run(lambda graph, raw: labels(graph, of_decision(graph, raw, 2), [10, 20])[0], RAW, TensorProto.INT64, None)
    assert two.tolist() == [10, 20, 10]
    three = run(lambda graph, raw: of_decision(graph, raw, 3).position, np.array([[1.0, 3, 2], [5, 5, 1]]), TensorProto.INT64, None)
    assert three.tolist() == [1, 0]


def test_a_regressor_answers_flat_unless_told() -> None:
    assert run(lambda graph, raw: of_prediction(graph, raw, link="exp").prediction, RAW, TensorProto.DOUBLE, None).shape == (3,)
    assert run(lambda graph, raw: of_prediction(graph, raw, is_flat=False).prediction, RAW, TensorProto.DOUBLE, 1).shape == (3, 1)


@pytest.mark.parametrize(
    ("classes", "expected"), [([1, 2], "int64"), (["a"], "string"), ([True, False], "bool"), (np.array([True], object), "bool"), ([0.5], "float64")]
)
def test_how_labels_travel(classes: list[object], expected: str) -> None:
    assert element(classes) == expected


def test_a_step_that_gives_no_label() -> None:
    with pytest.raises(ValueError, match="gives no label"):
        labels(Graph(), Answer(), [1])
