"""How predictors nest: every ensemble, search and wrapper through its members' own writers, or refused with its name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from converting import converted
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard.errors import Unconvertible


def forest(**changes: Any) -> RandomForestClassifier:
    return RandomForestClassifier(**{"n_estimators": 5, "random_state": 0, **changes})


def trees() -> RandomForestRegressor:
    return RandomForestRegressor(5, random_state=0)


CLASSIFIERS = {
    "soft vote": VotingClassifier([("a", forest()), ("b", LogisticRegression())], voting="soft", weights=[1, 3]),
    "bagging": BaggingClassifier(n_estimators=3, max_features=0.7, random_state=0),
    "stack": StackingClassifier([("a", forest()), ("b", LogisticRegression())], cv=3, passthrough=True),
    "calibrated": CalibratedClassifierCV(forest(), cv=3),
    "search": GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=2),
}
REGRESSORS = {
    "vote": VotingRegressor([("a", trees()), ("b", Ridge())]),
    "bagging": BaggingRegressor(n_estimators=3, random_state=0),
    "stack": StackingRegressor([("a", trees()), ("b", Ridge())], cv=3),
    "target scaled": TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
    "constant": DummyRegressor(),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_made_of_others(name: str, numbers: np.ndarray, two: np.ndarray) -> None:
    found = converted(CLASSIFIERS[name].fit(numbers[:, [0, 2]], two), numbers[:, [0, 2]])
    assert found.conversion.parity.outputs["probability"].max_abs < 1e-12
    assert "skl2onnx" not in found.conversion.method


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_made_of_others(name: str, numbers: np.ndarray, target: np.ndarray) -> None:
    found = converted(REGRESSORS[name].fit(numbers[:, [0, 2]], target), numbers[:, [0, 2]])
    assert found.conversion.parity.outputs["prediction"].max_rel < 1e-9


def test_a_target_through_a_logarithm(numbers: np.ndarray, target: np.ndarray) -> None:
    model = TransformedTargetRegressor(trees(), func=np.log1p, inverse_func=np.expm1).fit(numbers, np.abs(target))
    assert converted(model, numbers).conversion.parity.outputs["prediction"].max_rel < 1e-9


def test_several_outputs_per_row(numbers: np.ndarray, target: np.ndarray) -> None:
    both = np.c_[target, -target]
    separate = MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=3)).fit(numbers, both)
    together = RandomForestRegressor(4, random_state=0).fit(numbers, both)
    for model in (separate, together, Ridge().fit(numbers, both)):
        found = converted(model, numbers)
        assert found.schema.outputs[0].shape == (-1, 2)
        assert found.runtime.predict({"X": numbers[:3]})["prediction"].shape == (3, 2)


def test_a_hard_vote_is_refused_with_what_would_convert(numbers: np.ndarray, two: np.ndarray) -> None:
    model = VotingClassifier([("a", forest()), ("b", LogisticRegression())]).fit(numbers[:, [0, 2]], two)
    with pytest.raises(Unconvertible, match="voting='soft' has"):
        converted(model, numbers[:, [0, 2]])


def test_text_without_an_encoder_is_refused_by_column(people: pd.DataFrame, churned: np.ndarray) -> None:
    model = make_pipeline("passthrough", RandomForestClassifier(2)).fit(people[["income"]], churned)
    model.steps[0] = ("passthrough", "passthrough")

    class Anything(RandomForestClassifier):
        def predict(self, X: Any) -> Any:
            return np.zeros(len(X), int)

        def predict_proba(self, X: Any) -> Any:
            return np.tile([1.0, 0.0], (len(X), 1))

    Anything.__module__ = "sklearn.mine"
    Anything.__name__ = "RandomForestClassifier"
    model = Anything(2).fit(people[["income"]], churned)
    del model.feature_names_in_
    with pytest.raises(Unconvertible, match=r"given text \(city\) without an encoder"):
        converted(model, people[["city"]])


def test_a_class_of_ones_own_is_refused_by_name(numbers: np.ndarray, two: np.ndarray) -> None:
    class Mine(RandomForestClassifier):
        """Changes the answers, so that its parent's converter would be wrong."""

        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(X)[:, ::-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Mine(3, random_state=0).fit(numbers, two)
    with pytest.raises(Unconvertible, match="Mine has no converter"):
        converted(model, numbers)
