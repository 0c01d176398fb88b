"""XGBoost, LightGBM and CatBoost: every task, categories, missing values, their own boosters."""

from __future__ import annotations

import json
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from converting import converted
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from modelyard.errors import Unconvertible
from modelyard.runtime.convert.boosters import lightgbm_categorical, xgboost_categories

FEW: dict[str, Any] = {"n_estimators": 15, "max_depth": 4, "n_jobs": 1}
LIGHT: dict[str, Any] = {"n_estimators": 15, "n_jobs": 1, "verbose": -1, "min_child_samples": 5}
QUIET: dict[str, Any] = {"iterations": 15, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}


@pytest.fixture(scope="module")
def holes(numbers: np.ndarray) -> np.ndarray:
    """The numbers with missing values."""
    found = numbers.copy()
    found[::5, 0] = np.nan
    found[::3, 3] = np.nan
    return found


@pytest.fixture(scope="module")
def codes(three: np.ndarray) -> np.ndarray:
    return three // 10


@pytest.fixture(scope="module")
def categories(people: pd.DataFrame) -> pd.DataFrame:
    return people[["age", "city", "children", "plan"]].astype({"city": "category", "children": "category", "plan": "category"})


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    "make", [lambda: xgboost.XGBClassifier(**FEW), lambda: lightgbm.LGBMClassifier(**LIGHT), lambda: catboost.CatBoostClassifier(**QUIET)]
)
def test_classifiers_with_missing_values(make: Any, several: bool, holes: np.ndarray, codes: np.ndarray) -> None:
    found = converted(make().fit(holes, codes if several else codes > 0), holes)
    assert found.conversion.parity.outputs["probability"].max_abs < 3e-7
    assert found.conversion.parity.labels_differing == 0
    assert found.conversion.method == "trees and steps in double"


@pytest.mark.parametrize(
    "make",
    [
        lambda: xgboost.XGBRegressor(**FEW),
        lambda: xgboost.XGBRegressor(**FEW, booster="dart", rate_drop=0.3, random_state=0),
        lambda: xgboost.XGBRFRegressor(**FEW),
        lambda: lightgbm.LGBMRegressor(**LIGHT),
        lambda: lightgbm.LGBMRegressor(**LIGHT, boosting_type="rf", bagging_freq=1, bagging_fraction=0.7),
        lambda: catboost.CatBoostRegressor(**QUIET),
        lambda: catboost.CatBoostRegressor(**QUIET, grow_policy="Lossguide"),
        lambda: catboost.CatBoostRegressor(**QUIET, nan_mode="Max"),
    ],
)
def test_regressors_with_missing_values(make: Any, holes: np.ndarray, target: np.ndarray) -> None:
    assert converted(make().fit(holes, target), holes).conversion.parity.outputs["prediction"].rows_over == 0


def test_xgboost_adds_as_the_original_does_to_the_last_bit(holes: np.ndarray, target: np.ndarray) -> None:
    model = xgboost.XGBRegressor(n_estimators=60, n_jobs=1).fit(holes, target)
    assert converted(model, holes).conversion.parity.outputs["prediction"].max_abs == 0.0


@pytest.mark.parametrize("objective", ["count:poisson", "reg:gamma", "reg:tweedie", "reg:logistic"])
def test_xgboost_links(objective: str, numbers: np.ndarray, target: np.ndarray) -> None:
    y = np.abs(target) / np.abs(target).max() if objective == "reg:logistic" else np.abs(target) + 1
    assert converted(xgboost.XGBRegressor(**FEW, objective=objective).fit(numbers, y), numbers).conversion.parity.passed


@pytest.mark.parametrize("objective", ["poisson", "tweedie", "quantile"])
def test_lightgbm_links(objective: str, numbers: np.ndarray, target: np.ndarray) -> None:
    assert converted(lightgbm.LGBMRegressor(**LIGHT, objective=objective).fit(numbers, np.abs(target)), numbers).conversion.parity.passed


def test_a_value_that_means_missing(numbers: np.ndarray, codes: np.ndarray) -> None:
    x = numbers.copy()
    x[::4, 0] = -999
    assert converted(xgboost.XGBClassifier(**FEW, missing=-999.0).fit(x, codes), x).conversion.parity.labels_differing == 0


def test_early_stopping_keeps_the_best_rounds(numbers: np.ndarray, two: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(400) > 0.5).astype(int)
    model = xgboost.XGBClassifier(n_estimators=50, early_stopping_rounds=3, n_jobs=1).fit(
        numbers, y, eval_set=[(numbers[:50], 1 - y[:50])], verbose=False
    )
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    assert converted(model, numbers).conversion.parity.passed


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("make", [lambda: xgboost.XGBClassifier(**FEW, enable_categorical=True), lambda: lightgbm.LGBMClassifier(**LIGHT)])
def test_pandas_categories_of_text_and_of_numbers(make: Any, bare: bool, categories: pd.DataFrame, churned: np.ndarray) -> None:
    model = make().fit(categories, churned)
    if bare:
        model = model.get_booster() if hasattr(model, "get_booster") else model.booster_
    found = converted(model, categories)
    assert found.conversion.parity.outputs["probability"].max_abs < 3e-7
    assert {given.graph for given in found.conversion.binding.inputs} == {"numbers", "strings"}


def test_many_categories(churned: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    names = np.array([f"k{number}" for number in range(90)])
    code = rng.integers(0, 90, 600)
    frame = pd.DataFrame({"k": pd.Categorical(names[code], categories=names[::-1]), "x": rng.normal(size=600)})
    y = (np.sin(code) + frame["x"] > 0).astype(int)
    for model in (lightgbm.LGBMClassifier(**LIGHT, min_data_per_group=1, cat_smooth=1), xgboost.XGBClassifier(**FEW, enable_categorical=True)):
        assert converted(model.fit(frame, y), frame).conversion.parity.labels_differing == 0


def test_a_sparse_matrix_makes_zeros_missing_for_xgboost(people: pd.DataFrame, churned: np.ndarray) -> None:
    """onnx/sklearn-onnx#1150: numbers and text into XGBoost. The encoder hands on a sparse matrix, whose zeros XGBoost takes for missing."""
    for threshold in (1.0, 0.0):
        encoder = ColumnTransformer(
            [("text", OneHotEncoder(handle_unknown="ignore"), ["city", "plan"])], remainder="passthrough", sparse_threshold=threshold
        )
        found = converted(make_pipeline(encoder, xgboost.XGBClassifier(**FEW)).fit(people, churned), people)
        assert found.conversion.parity.outputs["probability"].max_abs < 3e-7
        assert found.conversion.parity.probes == 64


def test_stored_categories_are_read_from_the_models() -> None:
    frame = pd.DataFrame({"x": [1.0, 2, 3, 4] * 10, "k": pd.Categorical(["ef", "b", "ef", "c"] * 10, categories=["ef", "c", "b"])})
    model = xgboost.XGBClassifier(**FEW, enable_categorical=True).fit(frame, [0, 1, 0, 1] * 10)
    assert xgboost_categories(json.loads(model.get_booster().save_raw("json"))) == {1: ["ef", "c", "b"]}
    light = lightgbm.LGBMClassifier(**LIGHT).fit(frame, [0, 1, 0, 1] * 10)
    assert lightgbm_categorical(light.booster_) == [1]


def test_names_that_xgboost_cuts_off_are_taken_from_the_data_or_refused() -> None:
    frame = pd.DataFrame({"k": pd.Categorical(["é", "b", "é", "c"] * 10, categories=["é", "c", "b"])})
    model = xgboost.XGBClassifier(**FEW, enable_categorical=True).fit(frame, [0, 1, 0, 1] * 10)
    document = json.loads(model.get_booster().save_raw("json"))
    assert xgboost_categories(document, {0: ["é", "c", "b"]}) == {0: ["é", "c", "b"]}
    with pytest.raises(ValueError, match="cut off"):
        xgboost_categories(document)
    with pytest.raises(ValueError, match="cut off"):
        xgboost_categories(document, {0: ["é", "b", "cc"]})


def test_what_has_no_graph_is_refused_by_name(people: pd.DataFrame, numbers: np.ndarray, two: np.ndarray, churned: np.ndarray) -> None:
    texts = people[["plan", "age"]].fillna({"age": 0})
    with pytest.raises(Unconvertible, match="statistics of categorical features"):
        converted(catboost.CatBoostClassifier(**QUIET, cat_features=["plan"]).fit(texts, churned), texts)
    with pytest.raises(Unconvertible, match="gblinear booster has no trees"):
        converted(xgboost.XGBClassifier(booster="gblinear", n_estimators=3).fit(numbers, two == "yes"), numbers)
