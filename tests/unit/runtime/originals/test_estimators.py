"""Estimators as originals: task, classes, outputs, packages, titles, and the frames they are asked with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from converting import converted
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from xgboost import XGBClassifier

from modelyard.errors import Unconvertible
from modelyard.runtime.data import Table, read
from modelyard.runtime.originals import adapt


def test_a_classifier_says_its_classes_and_probabilities(numbers: np.ndarray, two: np.ndarray) -> None:
    original = adapt(RandomForestClassifier(2).fit(numbers, two))
    assert (original.task, original.classes, original.kind) == ("classification", ("no", "yes"), "scikit-learn")
    assert [(spec.name, spec.datatype, spec.shape) for spec in original.outputs] == [("label", "BYTES", (-1,)), ("probability", "FP64", (-1, 2))]
    assert {"scikit-learn", "numpy", "scipy"} == set(original.packages)
    answers = original.predict(read(numbers)[0])
    assert answers["label"].dtype == object
    assert answers["probability"].shape == (400, 2)


def test_a_classifier_without_probabilities_answers_labels_alone(numbers: np.ndarray, two: np.ndarray) -> None:
    original = adapt(LinearSVC().fit(numbers[:, [0, 2]], two == "yes"))
    assert [(spec.name, spec.datatype) for spec in original.outputs] == [("label", "BOOL")]
    assert original.predict(read(numbers[:, [0, 2]])[0]).keys() == {"label"}


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda x, y: LinearRegression().fit(x, y), (-1,)),
        (lambda x, y: LinearRegression().fit(x, y[:, None]), (-1, 1)),
        (lambda x, y: RandomForestRegressor(2).fit(x, np.c_[y, y]), (-1, 2)),
        (lambda x, y: GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [1.0]}, cv=2).fit(x, np.c_[y, y, y]), (-1, 3)),
    ],
)
def test_a_regressor_says_its_shape(make: Any, shape: tuple[int, ...], numbers: np.ndarray, target: np.ndarray) -> None:
    original = adapt(make(numbers, target))
    assert original.outputs[0].shape == shape
    assert original.predict(read(numbers)[0])["prediction"].shape[1:] == shape[1:]


def test_titles_and_packages_of_what_is_nested(people: pd.DataFrame, churned: np.ndarray) -> None:
    encoder = ColumnTransformer([("t", OneHotEncoder(handle_unknown="ignore"), ["plan"])], remainder="passthrough")
    model = make_pipeline(encoder, LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1)).fit(people[["plan", "income"]], churned)
    original = adapt(model)
    assert original.title == "Pipeline(ColumnTransformer, LGBMClassifier)"
    assert {"lightgbm", "scikit-learn"} < set(original.packages)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (RandomForestClassifier(), "is not fitted"),
        (XGBClassifier(), "is not fitted"),
        (StandardScaler(), "does not predict"),
        ("a text that is no file", None),
        (object(), "builtins.object is not a model"),
        ({"weights": [1]}, "builtins.dict is not a model"),
    ],
)
def test_what_is_no_fitted_model_is_refused_by_name(model: Any, reason: str | None) -> None:
    with pytest.raises(Exception) as refused:
        adapt(model)
    if reason:
        assert isinstance(refused.value, Unconvertible)
        assert reason in str(refused.value)


def test_several_labels_per_row_are_refused(numbers: np.ndarray) -> None:
    model = RandomForestClassifier(2).fit(numbers, np.c_[numbers[:, 0] > 0, numbers[:, 2] > 1])
    with pytest.raises(Unconvertible, match="one classifier per label"):
        adapt(model)


def test_a_model_of_an_array_is_asked_about_a_frame_without_its_names(numbers: np.ndarray, two: np.ndarray) -> None:
    model = RandomForestClassifier(2, random_state=0).fit(numbers, two)
    found = converted(model, pd.DataFrame(numbers, columns=list("abcd")))
    assert found.conversion.binding.inputs[0].inputs == ("a", "b", "c", "d")


@pytest.mark.parametrize("library", ["polars", "dict"])
def test_frames_of_other_libraries(library: str, people: pd.DataFrame, churned: np.ndarray) -> None:
    frame = people[["income", "children"]]
    other: Any = pl.DataFrame({name: frame[name].to_numpy() for name in frame})
    for model in (
        RandomForestClassifier(2, random_state=0),
        LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1),
        XGBClassifier(n_estimators=2, n_jobs=1),
    ):
        original = adapt(model.fit(frame, churned))
        table, _ = read(other)
        if library == "dict":
            columns = {name: column[:, 0] for name, column in table.columns.items()}
            table = Table(columns, table.columns, table.kinds, layout="frame", rows=table.rows)
        np.testing.assert_allclose(original.predict(table)["probability"], model.predict_proba(frame), atol=1e-7)


def test_text_without_a_frame_library_says_what_is_missing(people: pd.DataFrame, churned: np.ndarray) -> None:
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), RandomForestClassifier(2)).fit(people[["plan"]], churned)
    table, _ = read(people[["plan"]])
    bare = Table({"plan": table.columns["plan"][:, 0]}, table.columns, table.kinds, layout="frame", rows=table.rows)
    with pytest.raises(Unconvertible, match="column 'plan' is text"):
        adapt(model).predict(bare)
