"""Explaining a model: which number, against which background, and exact values on models whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.errors import DeadlineExceeded, InvalidInput
from modelyard.explain.base import Wanted
from modelyard.explain.predictions import FEATURES, Predictions
from modelyard.runtime.onnx import Onnx
from modelyard.types import Explanation, Schema, TensorSpec
from serving import GRID, LINE, SHOP, golden, graph

Arrays = Mapping[str, np.ndarray]


def always() -> bool:
    return True


def explainer(kind: str) -> tuple[Predictions, Onnx]:
    model, binding = graph(kind)
    schema = {"line": LINE, "shop": SHOP, "grid": GRID}[kind]
    runtime = Onnx(model, binding, schema)
    return Predictions(runtime.predict, schema, golden(kind)), runtime


def explain(kind: str, inputs: Arrays, *, evaluations: int = 100_000, **wanted: Any) -> list[Explanation]:
    return explainer(kind)[0].explain(inputs, Wanted(**wanted), evaluations=evaluations, may_go_on=always)


def line(*rows: tuple[float, int, float]) -> Arrays:
    a, b, c = zip(*rows, strict=True)
    return {"a": np.array([a], float).T, "b": np.array([b], np.int64).T, "c": np.array([c], np.float32).T}


@pytest.mark.parametrize("evaluations", [100_000, 500])
def test_a_linear_model_is_explained_exactly_with_missing_values_as_the_model_reads_them(evaluations: int) -> None:
    found = explain("line", line((1.0, 2, 0.5), (3.0, 4, float("nan"))), evaluations=evaluations)
    known = golden("line")
    rows = len(known["a"]) if found[0].background_rows == 64 else found[0].background_rows
    chosen = np.unique(np.linspace(0, 63, rows).astype(int))
    means = [known["a"][chosen].mean(), 10 * known["b"][chosen].mean(), 100 * np.nan_to_num(known["c"][chosen]).mean()]
    for each, (a, b, c) in zip(found, ((1.0, 20.0, 50.0), (3.0, 40.0, 0.0)), strict=True):
        np.testing.assert_allclose(each.contributions, np.array([a, b, c]) - means, rtol=1e-5)
        assert each.explained == {"output": "prediction"} and each.value == pytest.approx(a + b + c)
        assert sum(each.contributions) == pytest.approx(each.value - each.base, rel=1e-12)
        assert max(each.standard_errors) <= 1e-5 * max(map(abs, each.contributions))
    assert [each.method for each in found] == ["exact" if evaluations == 100_000 else "sampled"] * 2


def test_a_category_is_one_feature_and_a_product_is_shared() -> None:
    found = explain("shop", {"city": np.array([["paris"]], object), "size": np.array([[4.0]])})
    known = golden("shop")
    rate = np.where(known["city"] == "paris", 2.0, 1.0)
    size = known["size"]
    city = ((2 * size - rate * size).mean() + (2 * 4 - rate * 4).mean()) / 2
    np.testing.assert_allclose(found[0].contributions, [city, 8 - (rate * size).mean() - city], rtol=1e-9)


def test_a_classifier_is_explained_by_the_probability_of_the_class_predicted_or_asked_for() -> None:
    inputs = {"X": np.array([[9.0, 8.0, 7.0, 6.0]], np.float32)}
    (one,) = explain("grid", inputs)
    (asked,) = explain("grid", inputs, label=0)
    assert one.explained == {"output": "probability", "class": 1} and asked.explained == {"output": "probability", "class": 0}
    assert len(one.contributions) == 4 and one.contributions[0] > one.contributions[3]
    np.testing.assert_allclose(one.contributions, [-each for each in asked.contributions], atol=1e-6)
    _, runtime = explainer("grid")
    assert one.value == pytest.approx(runtime.predict(inputs)["probability"][0, 1])


def test_trees_sampled_agree_with_trees_enumerated() -> None:
    from sklearn.ensemble import GradientBoostingRegressor

    random = np.random.default_rng(0)
    x = random.normal(size=(300, 7))
    trees = GradientBoostingRegressor(n_estimators=30, random_state=0).fit(x, x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + (x[:, 3] > 0))
    spec = TensorSpec(name="X", datatype="FP64", shape=(-1, 7))
    schema = Schema(inputs=(spec,), outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),), layout="array", task="regression")
    model = Predictions(lambda inputs: {"prediction": trees.predict(inputs["X"])}, schema, {"X": x[:64]})
    rows = {"X": x[100:103]}
    truth = model.explain(rows, Wanted(), evaluations=3 * 2**7 * 64, may_go_on=always)
    close = model.explain(rows, Wanted(), evaluations=3 * 8_000, may_go_on=always)
    for exact, sampled in zip(truth, close, strict=True):
        assert (exact.method, sampled.method) == ("exact", "sampled")
        error = np.abs(np.array(exact.contributions) - sampled.contributions)
        assert (error <= 5 * np.array(sampled.standard_errors) + 1e-3 * max(map(abs, exact.contributions))).all()
        assert max(sampled.standard_errors) < 0.2 * max(map(abs, exact.contributions))
        assert sum(sampled.contributions) == pytest.approx(sampled.value - sampled.base, rel=1e-12)


def test_elements_and_outputs_by_name() -> None:
    outputs = (TensorSpec(name="text", datatype="BYTES", shape=(-1,)), TensorSpec(name="pair", datatype="FP32", shape=(-1, 2)))
    schema = msgspec.structs.replace(LINE, outputs=outputs, task="other")

    def predict(inputs: Arrays) -> dict[str, np.ndarray]:
        return {"text": np.array(["x"] * len(inputs["a"]), object), "pair": np.concatenate([inputs["a"], 2.0 * inputs["b"]], axis=1)}

    model = Predictions(predict, schema, golden("line"))
    inputs = line((1.0, 2, 0.5))
    (found,) = model.explain(inputs, Wanted(element=1), evaluations=10_000, may_go_on=always)
    assert found.explained == {"output": "pair", "element": 1} and found.contributions[0] == found.contributions[2] == 0.0
    for wanted, field in ((Wanted(output="text"), "output"), (Wanted(element=2), "element"), (Wanted(label="a"), "class")):
        with pytest.raises(InvalidInput) as caught:
            model.explain(inputs, wanted, evaluations=10_000, may_go_on=always)
        assert caught.value.field == field


def test_a_classifier_without_probabilities_is_explained_by_whether_it_answers_the_class() -> None:
    schema = msgspec.structs.replace(GRID, outputs=GRID.outputs[:1], classes=("no", "yes"))

    def predict(inputs: Arrays) -> dict[str, np.ndarray]:
        return {"label": np.where(inputs["X"][:, 0] > 5, "yes", "no").astype(object)}

    (found,) = Predictions(predict, schema, golden("grid")).explain(
        {"X": np.array([[9, 0, 0, 0]], np.float32)}, Wanted(), evaluations=10_000, may_go_on=always
    )
    assert found.explained == {"output": "label", "class": "yes"} and found.value == 1.0
    np.testing.assert_allclose(found.contributions, [1 - found.base, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("label", ["maybe", 7, True])
def test_a_class_that_is_not_one_is_refused_without_saying_it_again(label: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        explain("grid", {"X": np.zeros((1, 4), np.float32)}, label=label if label is not True else "1")
    assert caught.value.field == "class" and str(label) not in caught.value.message


def test_what_is_too_much_or_has_no_shape_is_refused() -> None:
    with pytest.raises(DeadlineExceeded):
        explain("line", line((1.0, 2, 0.5)), evaluations=10)
    for shape, size in (((-1, FEATURES + 1), FEATURES + 1), ((-1, -1), 3)):
        schema = msgspec.structs.replace(GRID, inputs=(TensorSpec(name="X", datatype="FP32", shape=shape),))
        model = Predictions(lambda inputs: {}, schema, {"X": np.zeros((8, size), np.float32)})
        with pytest.raises(InvalidInput):
            model.explain({"X": np.zeros((1, size), np.float32)}, Wanted(), evaluations=10**6, may_go_on=always)
