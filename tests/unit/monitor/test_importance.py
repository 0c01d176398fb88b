"""monitor.importance: how much each input counts, and exactly nothing for what the model does not look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from modelyard.monitor import importance, profile
from modelyard.types import Schema, TensorSpec

FRAME = Schema(
    inputs=tuple(TensorSpec(name=name, datatype="FP64", shape=(-1, 1)) for name in ("big", "small", "unused", "rare")),
    outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),),
    layout="frame",
    task="regression",
)
ARRAY = Schema(
    inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 3)),),
    outputs=(TensorSpec(name="label", datatype="BYTES", shape=(-1,)), TensorSpec(name="probability", datatype="FP64", shape=(-1, 2))),
    layout="array",
    task="classification",
    classes=("no", "yes"),
)


def frame(rows: int = 10_000) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    columns = {name: draw.normal(size=(rows, 1)) for name in ("big", "small", "unused")}
    return {**columns, "rare": (np.arange(rows) % 2_500 == 1).astype(float)[:, None]}


def answer(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"prediction": (3 * inputs["big"] + inputs["small"] + 50 * (inputs["rare"] > 0) + 0 * inputs["unused"])[:, 0]}


def measured(predict: Any, inputs: Any, schema: Schema) -> dict[str, float]:
    return importance.measure(predict, inputs, profile.measure(inputs, schema), schema)


def test_shares_follow_what_moves_answers_and_sum_to_one() -> None:
    found = measured(answer, frame(), FRAME)
    assert sum(found.values()) == pytest.approx(1)
    assert found["big"] / found["small"] == pytest.approx(3, rel=0.1)


def test_a_column_that_is_not_looked_at_has_exactly_nothing_and_a_rarely_used_one_more() -> None:
    found = measured(answer, frame(), FRAME)
    assert found["unused"] == 0.0 and found["rare"] > 0


def test_elements_of_an_array_are_asked_one_by_one() -> None:
    def predict(inputs: Mapping[str, Any]) -> dict[str, Any]:
        p = 1 / (1 + np.exp(-2 * inputs["X"][:, 1]))
        return {"label": np.where(p > 0.5, "yes", "no").astype(object), "probability": np.column_stack([1 - p, p])}

    found = measured(predict, {"X": np.random.default_rng(0).normal(size=(3_000, 3))}, ARRAY)
    assert found == {"X[0]": 0.0, "X[1]": 1.0, "X[2]": 0.0}


def test_the_values_that_are_asked_with_are_never_changed() -> None:
    given = {"X": np.random.default_rng(0).normal(size=(300, 3))}
    before = given["X"].copy()
    schema = Schema(inputs=ARRAY.inputs, outputs=FRAME.outputs, layout="array", task="regression")
    measured(lambda inputs: {"prediction": inputs["X"].sum(axis=1)}, given, schema)
    assert np.array_equal(given["X"], before)


def test_labels_alone_are_compared_as_they_are() -> None:
    schema = Schema(inputs=FRAME.inputs[:2], outputs=ARRAY.outputs[:1], layout="frame", task="classification", classes=("no", "yes"))
    given = {name: values for name, values in frame(1_000).items() if name in ("big", "small")}
    found = measured(lambda inputs: {"label": np.where(inputs["big"][:, 0] > 0, "yes", "no").astype(object)}, given, schema)
    assert found == {"big": 1.0, "small": 0.0}


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_few_rows(rows: int) -> None:
    given = frame(rows)
    found = measured(answer, given, FRAME)
    assert found == {} or sum(found.values()) == pytest.approx(1)


def test_nobody_can_tell_of_a_slow_model_an_image_or_one_that_always_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured(lambda inputs: {"prediction": np.zeros(len(inputs["big"]))}, frame(500), FRAME) == {}
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 600)),), outputs=FRAME.outputs, layout="array", task="regression")
    assert measured(lambda inputs: {"prediction": inputs["X"].sum(axis=1)}, {"X": np.ones((100, 600))}, schema) == {}
    monkeypatch.setattr(importance, "SECONDS", 0.0)
    assert measured(answer, frame(500), FRAME) == {}


def test_missing_answers_and_infinite_ones_are_distances_too() -> None:
    given = frame(1_000)

    def odd(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"prediction": np.where(inputs["big"][:, 0] > 1, np.nan, np.where(inputs["small"][:, 0] > 1, np.inf, inputs["big"][:, 0]))}

    found = measured(odd, given, FRAME)
    assert found["unused"] == 0 and found["big"] > 0 and found["small"] > 0 and np.isfinite(list(found.values())).all()
