"""scikit-learn's trees come out to the last bit, or nearly: of every kind, with missing values, one class or many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from converting import converted
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor

from modelyard.errors import Unconvertible

CLASSIFIERS = [
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(10, random_state=0),
    ExtraTreesClassifier(10, random_state=0),
    GradientBoostingClassifier(n_estimators=10, random_state=0),
    HistGradientBoostingClassifier(max_iter=10),
]
REGRESSORS = [
    DecisionTreeRegressor(max_depth=1),
    ExtraTreeRegressor(random_state=0),
    RandomForestRegressor(10, random_state=0),
    ExtraTreesRegressor(10, random_state=0),
    GradientBoostingRegressor(n_estimators=10, loss="huber"),
    GradientBoostingRegressor(n_estimators=10, init="zero"),
    HistGradientBoostingRegressor(max_iter=10),
    HistGradientBoostingRegressor(max_iter=10, loss="absolute_error"),
]


@pytest.mark.parametrize("classes", ["two", "three"])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=repr)
def test_classifiers(model: Any, classes: str, numbers: np.ndarray, two: np.ndarray, three: np.ndarray) -> None:
    found = converted(model.fit(numbers, {"two": two, "three": three}[classes]), numbers)
    assert found.conversion.parity.outputs["probability"].max_abs < 1e-14
    assert found.conversion.parity.labels_differing == 0


@pytest.mark.parametrize("model", REGRESSORS, ids=repr)
def test_regressors(model: Any, numbers: np.ndarray, target: np.ndarray) -> None:
    assert converted(model.fit(numbers, target), numbers).conversion.parity.outputs["prediction"].max_rel < 1e-10


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_a_logarithmic_link(loss: str, numbers: np.ndarray, target: np.ndarray) -> None:
    model = HistGradientBoostingRegressor(loss=loss, max_iter=10).fit(numbers, np.abs(target) + 1)
    assert converted(model, numbers).conversion.parity.outputs["prediction"].max_rel < 1e-12


def test_the_exponential_loss_has_half_the_link(numbers: np.ndarray, two: np.ndarray) -> None:
    model = GradientBoostingClassifier(loss="exponential", n_estimators=5).fit(numbers, two)
    assert converted(model, numbers).conversion.parity.outputs["probability"].max_abs < 1e-14


def test_a_start_from_another_model_is_refused_with_what_converts(numbers: np.ndarray, target: np.ndarray) -> None:
    model = GradientBoostingRegressor(n_estimators=2, init=LinearRegression()).fit(numbers, target)
    with pytest.raises(Unconvertible, match=r"init=LinearRegression starts from another model"):
        converted(model, numbers)


@pytest.mark.parametrize("kind", ["category", "text", "numbers"])
def test_histogram_boosting_with_categories_missing_and_unknown(kind: str, people: pd.DataFrame, churned: np.ndarray) -> None:
    frame = people[["age", "city", "plan", "children"]].copy()
    if kind == "category":
        frame = frame.astype({"city": "category", "plan": "category"})
        model = HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5)
    elif kind == "text":
        model = HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5, categorical_features=["city", "plan"])
    else:
        frame = frame[["age", "children"]]
        model = HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5, categorical_features=[1])
    found = converted(model.fit(frame, churned), frame)
    assert found.conversion.parity.outputs["probability"].max_abs < 1e-14
    assert found.conversion.parity.probes == (64 if kind != "numbers" else 0)


def test_labels_of_every_type(numbers: np.ndarray, two: np.ndarray) -> None:
    for labels, kind in ((two == "yes", np.bool_), ((two == "yes") + 1.0, np.float64), (np.where(two == "yes", 7, -3), np.int64), (two, object)):
        found = converted(RandomForestClassifier(3, random_state=0).fit(numbers, labels), numbers)
        answer = found.runtime.predict({"X": numbers[:5]})["label"]
        assert answer.dtype == kind
        assert answer.tolist() == found.original.model.predict(numbers[:5]).tolist()
