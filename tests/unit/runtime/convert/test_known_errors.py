"""What converters are known to get wrong comes out right here, or is refused.

Where the stock converter can be asked, it still gets it wrong: the tests prove something.
"""

from __future__ import annotations

import warnings
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from converting import converted, learnt
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from modelyard.runtime.convert import convert
from modelyard.runtime.convert.graph import Graph
from modelyard.runtime.convert.stock import predict as stock
from modelyard.runtime.data import read
from modelyard.runtime.onnx import Onnx
from modelyard.runtime.originals import adapt
from modelyard.runtime.originals.onnx import OnnxModel
from modelyard.runtime.parity import Parity, prove
from modelyard.types import Tolerance


def stock_parity(model: Any, x: np.ndarray) -> Parity:
    """What the stock converter's float32 graph makes of the same rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"zipmap": False} if hasattr(model, "classes_") else None
        graph = to_onnx(model, x[:1].astype(np.float32), options=options, target_opset={"": 18, "ai.onnx.ml": 3})
    table, _ = read(x)
    original = adapt(model)
    schema = learnt(original, table)
    given = OnnxModel(graph.SerializeToString())
    answers = Onnx(given.served, given.bind(table), schema).predict(table.columns)
    renamed = dict(zip([spec.name for spec in schema.outputs], [each.reshape(len(x), -1) for each in answers.values()], strict=True))
    expected = {name: each.reshape(len(x), -1) for name, each in original.predict(table).items()}
    return prove(expected, renamed, schema, Tolerance())


@pytest.fixture(scope="module")
def wide() -> tuple[np.ndarray, np.ndarray]:
    """Values so close to each other, far from 0, that float32 cannot tell them apart."""
    rng = np.random.default_rng(3)
    x = np.c_[1e7 + rng.normal(size=1500), 1e-3 * rng.normal(size=1500), 1e5 * rng.normal(size=1500)]
    return x, (x[:, 0] - 1e7 + 1e3 * x[:, 1] > 0).astype(int)


def test_a_scaler_before_a_forest_over_a_wide_range(wide: tuple[np.ndarray, np.ndarray]) -> None:
    """microsoft/onnxruntime#4130."""
    x, y = wide
    model = make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)).fit(x, y)
    assert converted(model, x).conversion.parity.outputs["probability"].max_abs < 1e-14
    assert not stock_parity(model, x).passed


def test_thresholds_of_histogram_boosting_are_float64(wide: tuple[np.ndarray, np.ndarray]) -> None:
    """onnx/sklearn-onnx#1192."""
    x, _ = wide
    model = HistGradientBoostingRegressor(max_iter=20).fit(x, x[:, 0] - 1e7)
    assert converted(model, x).conversion.parity.outputs["prediction"].max_abs < 1e-12
    assert not stock_parity(model, x).passed


def test_numbers_and_text_before_xgboost(people: pd.DataFrame, churned: np.ndarray) -> None:
    """onnx/sklearn-onnx#1150."""
    numbers, texts = ["age", "income", "children"], ["city", "plan"]
    encoder = ColumnTransformer(
        [("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers), ("texts", OneHotEncoder(handle_unknown="ignore"), texts)]
    )
    model = make_pipeline(encoder, xgboost.XGBClassifier(n_estimators=20, n_jobs=1)).fit(people, churned)
    found = converted(model, people)
    assert found.conversion.parity.outputs["probability"].max_abs < 3e-7
    assert found.conversion.parity.labels_differing == 0


def test_lightgbm_compares_and_adds_in_double(wide: tuple[np.ndarray, np.ndarray]) -> None:
    """lightgbm-org/LightGBM#4372."""
    x, _ = wide
    model = lightgbm.LGBMRegressor(n_estimators=50, n_jobs=1, verbose=-1).fit(x, x[:, 0])
    found = converted(model, x)
    assert found.conversion.parity.outputs["prediction"].max_rel < 1e-15
    in_float32 = found.runtime.predict({"X": x.astype(np.float32).astype(np.float64)})["prediction"]
    assert not np.allclose(in_float32, model.predict(x), rtol=0, atol=1e-3)  # what a float32 input would cost


def test_a_forest_trained_with_missing_values(wide: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = wide
    holes = x.copy()
    holes[::3, 1] = np.nan
    model = RandomForestClassifier(20, random_state=0).fit(holes, y)
    assert converted(model, holes).conversion.parity.outputs["probability"].max_abs < 1e-14
    assert not stock_parity(model, holes).passed


def split_by_missing() -> tuple[np.ndarray, np.ndarray]:
    """Data whose best split is missing or not: the tree then holds a threshold of infinity."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    x[::2, 0] = np.nan
    return x, np.isnan(x[:, 0]).astype(int)


def test_a_threshold_of_infinity_comes_out_right_and_never_reaches_the_stock_converter() -> None:
    """In double the stock converter does not return on it."""
    x, y = split_by_missing()
    tree = DecisionTreeClassifier(random_state=0).fit(x, y)
    assert np.isinf(tree.tree_.threshold).any()
    for model in (tree, RandomForestClassifier(5, random_state=0).fit(x, y), BaggingClassifier(tree, 3, random_state=0).fit(x, y)):
        assert converted(model, x).conversion.parity.labels_differing == 0
        graph = Graph("double")
        with pytest.raises(ValueError, match="thresholds of ±inf"):
            stock(graph, graph.matrix("X", "float64", 2), model)


def test_a_stock_graph_of_ensembles_is_chosen_only_when_every_row_agrees(numbers: np.ndarray, two: np.ndarray) -> None:
    table, _ = read(numbers)
    original = adapt(AdaBoostClassifier(n_estimators=3, random_state=0).fit(numbers, two))
    found = convert(original, table, learnt(original, table), tolerance=Tolerance())
    assert found.method == "stock converter in float32, with skl2onnx for AdaBoostClassifier"
    assert [attempt.chosen for attempt in found.attempts] == [False, True]
    assert "cannot load this graph" in found.attempts[0].reason
