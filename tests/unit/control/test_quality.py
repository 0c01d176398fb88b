"""Quality figures, against those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.control.quality import auc, figures
from modelyard.errors import InvalidInput
from modelyard.types import Schema, TensorSpec


def schema(task: str, classes: tuple[object, ...] | None = None) -> Schema:
    spec = TensorSpec(name="x", datatype="FP64", shape=(-1, 1))
    return Schema(inputs=(spec,), outputs=(spec,), layout="frame", task=task, classes=classes)  # type: ignore[arg-type]


def test_auc_is_scikit_learns_ties_included() -> None:
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(0)
    for _ in range(20):
        labels, scores = draw.random(200) < 0.3, np.round(draw.random(200), 1)
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_needs_both_classes() -> None:
    assert auc(np.ones(3, bool), np.arange(3.0)) is None


def test_a_classifier_is_told_by_accuracy_and_auc() -> None:
    outputs = {"label": np.array(["a", "b", "b"], object), "probability": np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])}
    assert figures(schema("classification", ("a", "b")), outputs, np.array(["a", "b", "a"], object)) == {"accuracy": pytest.approx(2 / 3), "auc": 0.5}


def test_integers_read_as_floats_are_the_same_labels() -> None:
    outputs = {"label": np.array([0, 1]), "probability": np.array([[0.9, 0.1], [0.4, 0.6]])}
    assert figures(schema("classification", (0, 1)), outputs, np.array([0.0, 1.0])) == {"accuracy": 1.0, "auc": 1.0}


def test_a_regressor_is_told_by_error_and_r2() -> None:
    from sklearn.metrics import mean_absolute_error, r2_score

    draw = np.random.default_rng(1)
    true, predicted = draw.random((50, 2)), draw.random((50, 2))
    found = figures(schema("regression"), {"prediction": predicted}, true)
    assert found["mae"] == pytest.approx(mean_absolute_error(true, predicted))
    assert found["r2"] == pytest.approx(r2_score(true, predicted, multioutput="variance_weighted"))


def test_constant_labels_have_no_r2_and_other_models_no_figure() -> None:
    assert figures(schema("regression"), {"prediction": np.ones(3)}, np.ones(3)) == {"mae": 0.0}
    assert figures(schema("other"), {"y": np.ones(3)}, np.ones(3)) == {}


def test_labels_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="labels"):
        figures(schema("regression"), {"prediction": np.ones(2)}, np.array(["a", "b"], object))
