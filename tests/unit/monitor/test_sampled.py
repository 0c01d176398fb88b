from __future__ import annotations

import numpy as np

from modelyard.monitor.base import Logged
from modelyard.monitor.sampled import places, sampled
from modelyard.types import Schema, TensorSpec

INPUTS = (TensorSpec(name="x", datatype="FP64", shape=(-1, 1)),)
CLASSES = Schema(inputs=INPUTS, outputs=(), layout="frame", task="classification", classes=("no", "yes"))
NUMBERS = Schema(inputs=INPUTS, outputs=(), layout="frame", task="regression")
TIMES = np.arange(3.0)
X = {"x": np.ones((3, 1))}


def test_classes_become_places() -> None:
    outputs = {"label": np.array(["yes", "no", "odd"], dtype=object), "probability": np.full((3, 2), 0.5, np.float32)}
    found = sampled(Logged(TIMES, X, outputs, np.array([1, -1, 0])), CLASSES)
    assert found is not None
    assert found.predicted.tolist() == [1, 0, -1] and found.truth.tolist() == [1, -1, 0] and found.probability.shape == (3, 2)
    assert found.take(np.array([2])).truth.tolist() == [0]


def test_without_labels_truth_is_unknown() -> None:
    found = sampled(Logged(TIMES, X, {"label": np.array(["yes"] * 3, dtype=object)}), CLASSES)
    assert found is not None and found.truth.tolist() == [-1] * 3 and not len(found.probability)
    numbers = sampled(Logged(TIMES, X, {"prediction": np.ones((3, 1))}), NUMBERS)
    assert numbers is not None and np.isnan(numbers.truth).all() and numbers.predicted.shape == (3,)


def test_what_has_no_single_answer_is_nothing() -> None:
    assert sampled(None, CLASSES) is None
    assert sampled(Logged(np.zeros(0), {}, {}), CLASSES) is None
    assert sampled(Logged(TIMES, X, {}), CLASSES) is None
    assert sampled(Logged(TIMES, X, {"prediction": np.ones((3, 2))}), NUMBERS) is None


def test_one_class_however_it_is_written() -> None:
    assert places(np.array([1.0, 0.0, 7.0]), (0, 1)).tolist() == [1, 0, -1]
    assert places(np.array(["1", "0"], dtype=object), (0, 1)).tolist() == [1, 0]
