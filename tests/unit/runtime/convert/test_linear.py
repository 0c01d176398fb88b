"""Matrices in double: linear models, perceptrons, support vector regression."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from converting import converted
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron, PoissonRegressor, RidgeClassifier, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, LinearSVC, NuSVR

CLASSIFIERS = [
    LogisticRegression(),
    LinearDiscriminantAnalysis(),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(random_state=0),
    RidgeClassifier(),
    LinearSVC(),
    Perceptron(),
    MLPClassifier((5,), max_iter=5, random_state=0),
    MLPClassifier((5, 4), activation="tanh", max_iter=5, random_state=0),
]
REGRESSORS = [
    LinearRegression(),
    SGDRegressor(random_state=0),
    MLPRegressor(hidden_layer_sizes=(5,), activation="logistic", max_iter=5, random_state=0),
    SVR(),
    SVR(kernel="linear"),
    SVR(kernel="poly", degree=2, coef0=1.0),
    SVR(kernel="sigmoid", gamma=0.01),
    NuSVR(),
]


def fitted(model: Any, x: np.ndarray, y: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rounds do not converge, nor need they
        return make_pipeline(StandardScaler(), model).fit(x, y)


@pytest.mark.parametrize("classes", ["two", "three"])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=repr)
def test_classifiers(model: Any, classes: str, numbers: np.ndarray, two: np.ndarray, three: np.ndarray) -> None:
    found = converted(fitted(model, numbers, {"two": two, "three": three}[classes]), numbers)
    assert found.conversion.parity.labels_differing == 0
    assert all(difference.max_abs < 1e-12 for difference in found.conversion.parity.outputs.values())
    assert found.conversion.method == "trees and steps in double"


@pytest.mark.parametrize("model", REGRESSORS, ids=repr)
def test_regressors(model: Any, numbers: np.ndarray, target: np.ndarray) -> None:
    found = converted(fitted(model, numbers, target), numbers)
    assert found.conversion.parity.outputs["prediction"].max_abs < 1e-8
    assert found.conversion.method == "trees and steps in double"


def test_a_logarithmic_link(numbers: np.ndarray, target: np.ndarray) -> None:
    found = converted(fitted(PoissonRegressor(), numbers, np.abs(target) / 100), numbers)
    assert found.conversion.parity.outputs["prediction"].max_rel < 1e-12
