from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard.monitor.agreement import MARGIN, Agreement, spread
from modelyard.monitor.profile import Profile, measure_outputs
from modelyard.types import Schema, TensorSpec

REGRESSOR = Schema(inputs=(), outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),), layout="frame", task="regression")
PAIR = Schema(inputs=(), outputs=(TensorSpec(name="prediction", datatype="FP32", shape=(-1, 2)),), layout="frame", task="regression")
CLASSIFIER = Schema(
    inputs=(),
    outputs=(TensorSpec(name="label", datatype="BYTES", shape=(-1,)), TensorSpec(name="probability", datatype="FP32", shape=(-1, 2))),
    layout="frame",
    task="classification",
    classes=("no", "yes"),
)
OTHER = Schema(
    inputs=(),
    outputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,)), TensorSpec(name="y", datatype="FP64", shape=(-1,))),
    layout="tensors",
    task="other",
)


def agreement(schema: Schema, **outputs: Any) -> Agreement:
    return Agreement(schema, measure_outputs(outputs, schema))


def texts(*values: Any) -> np.ndarray:
    return np.array(values, dtype=object)


@pytest.mark.parametrize(
    "draw", [lambda rng: rng.normal(5, 3, 20_000), lambda rng: rng.lognormal(0, 1, 20_000), lambda rng: rng.uniform(-1, 1, 20_000)]
)
def test_the_spread_is_the_interquartile_range(draw: Any) -> None:
    values = draw(np.random.default_rng(0))
    (feature,) = measure_outputs({"prediction": values}, REGRESSOR).features
    low, high = np.quantile(values, [0.25, 0.75])
    assert spread(feature) == pytest.approx(high - low, rel=0.04)


@pytest.mark.parametrize(("values", "expected"), [([1.0] * 90 + [3.0] * 10, 2.0), ([4.0] * 10, 4.0), ([0.0] * 10, 1.0)])
def test_where_the_quartiles_are_one_there_is_still_a_spread(values: list[float], expected: float) -> None:
    (feature,) = measure_outputs({"prediction": np.array(values)}, REGRESSOR).features
    assert spread(feature) == pytest.approx(expected)


def test_numbers_agree_within_a_share_of_the_champions_range() -> None:
    known = np.linspace(0, 100, 10_001)
    found = agreement(REGRESSOR, prediction=known)
    margin = MARGIN * 50
    ours = np.array([10.0, 10.0, 10.0, np.nan, np.nan, np.inf, np.inf])
    theirs = np.array([10.0, 10 + 0.95 * margin, 10 - 1.1 * margin, np.nan, 5.0, np.inf, -np.inf])
    assert found.differ({"prediction": ours}, {"prediction": theirs}, 7).tolist() == [False, False, True, False, True, False, True]


def test_each_number_of_a_row_has_its_own_margin() -> None:
    rng = np.random.default_rng(1)
    found = agreement(PAIR, prediction=np.stack([rng.normal(0, 1, 5000), rng.normal(0, 1000, 5000)], axis=1).astype(np.float32))
    ours = np.zeros((3, 2), np.float32)
    assert found.differ({"prediction": ours}, {"prediction": ours + np.array([[0, 30], [0.03, 0], [0.3, 0]])}, 3).tolist() == [False, False, True]
    assert found.differ({"prediction": ours}, {"prediction": ours[:, :1]}, 3).all(), "answers of another shape"


def test_a_label_decides_and_probabilities_do_not() -> None:
    probability = np.array([[0.4, 0.6]] * 3, np.float32)
    found = agreement(CLASSIFIER, label=texts("yes", "no", "no"), probability=probability)
    ours = {"label": texts("yes", "yes", None), "probability": probability}
    theirs = {"label": texts("yes", "no", None), "probability": probability[:, ::-1]}
    assert found.differ(ours, theirs, 3).tolist() == [False, True, False]


def test_texts_and_numbers_of_any_other_model_are_both_compared() -> None:
    found = agreement(OTHER, text=texts("a", "b"), y=np.array([0.0, 10.0]))
    ours = {"text": texts("a", "a", "a"), "y": np.array([1.0, 1.0, 1.0])}
    assert found.differ(ours, {"text": texts("a", "b", "a"), "y": np.array([1.0, 1.0, 9.0])}, 3).tolist() == [False, True, True]


def test_without_a_profile_numbers_are_not_compared() -> None:
    assert not Agreement(REGRESSOR, Profile(features=())).is_known
    assert Agreement(CLASSIFIER, Profile(features=())).is_known
