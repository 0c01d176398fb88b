"""Models that are matrices: linear and generalised linear models, multi-layer perceptrons, support vector regression.

Hides their fitted attributes; everything is computed in double, as the originals do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.runtime.convert.answers import Answer, linked, of_decision, of_prediction, of_probability, of_two

if TYPE_CHECKING:
    from modelyard.runtime.convert.graph import Graph

REGRESSORS = {
    "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "LarsCV", "Lasso", "LassoCV",
    "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVR", "MultiTaskElasticNet", "MultiTaskLasso",
    "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "PassiveAggressiveRegressor", "QuantileRegressor", "Ridge", "RidgeCV",
    "SGDRegressor", "TheilSenRegressor",
}  # fmt: skip
LOG_LINKED = {"GammaRegressor", "PoissonRegressor"}
DECIDERS = {"LinearSVC", "PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV"}


def scores(graph: Graph, features: str, estimator: Any) -> str:
    """[N, m]: the linear part, one column per row of `coef_`."""
    coefficients = np.asarray(estimator.coef_, np.float64)
    matrix = coefficients.reshape(1, -1) if coefficients.ndim == 1 else coefficients
    if hasattr(estimator.coef_, "toarray"):
        matrix = estimator.coef_.toarray()
    product = graph.node("MatMul", [features, graph.constant(matrix.T)])
    return graph.node("Add", [product, graph.constant(np.asarray(estimator.intercept_, np.float64).reshape(-1))])


def regressor(graph: Graph, features: str, estimator: Any) -> Answer:
    """A linear regressor, of one output or several."""
    return of_prediction(graph, scores(graph, features, estimator), is_flat=np.ndim(estimator.coef_) == 1)


def log_linked(graph: Graph, features: str, estimator: Any) -> Answer:
    """A generalised linear model with a log link."""
    return of_prediction(graph, scores(graph, features, estimator), link="exp")


def logistic(graph: Graph, features: str, estimator: Any) -> Answer:
    """LogisticRegression: sigmoid for two classes, softmax for more (or one against the rest, where it was trained so)."""
    raw = scores(graph, features, estimator)
    if len(estimator.classes_) == 2:
        return of_two(graph, linked(graph, raw, "sigmoid"))
    if getattr(estimator, "multi_class", None) == "ovr" or getattr(estimator, "solver", "") == "liblinear":
        return of_probability(graph, _normalised(graph, linked(graph, raw, "sigmoid")))
    return of_probability(graph, linked(graph, raw, "softmax"))


def discriminant(graph: Graph, features: str, estimator: Any) -> Answer:
    """LinearDiscriminantAnalysis: sigmoid for two classes, softmax for more."""
    raw = scores(graph, features, estimator)
    if len(estimator.classes_) == 2:
        return of_two(graph, linked(graph, raw, "sigmoid"))
    return of_probability(graph, linked(graph, raw, "softmax"))


def stochastic(graph: Graph, features: str, estimator: Any) -> Answer:
    """SGDClassifier: probabilities for the log loss, labels alone for the others."""
    raw = scores(graph, features, estimator)
    if estimator.loss == "log_loss":
        if len(estimator.classes_) == 2:
            return of_two(graph, linked(graph, raw, "sigmoid"))
        return of_probability(graph, _normalised(graph, linked(graph, raw, "sigmoid")))
    if hasattr(estimator, "predict_proba"):
        raise ValueError(f"SGDClassifier(loss={estimator.loss!r}) has probabilities without a converter; loss='log_loss' converts")
    return of_decision(graph, raw, len(estimator.classes_))


def decider(graph: Graph, features: str, estimator: Any) -> Answer:
    """A linear classifier without probabilities."""
    return of_decision(graph, scores(graph, features, estimator), len(estimator.classes_))


def _normalised(graph: Graph, scores_: str) -> str:
    return graph.node("Div", [scores_, graph.node("ReduceSum", [scores_, graph.constant([1], "int64")], keepdims=1)])


def perceptron(graph: Graph, features: str, estimator: Any) -> Answer:
    """MLPClassifier and MLPRegressor."""
    hidden = {"identity": None, "logistic": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}[estimator.activation]
    tensor = features
    for layer, (weights, bias) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        tensor = graph.node("Add", [graph.node("MatMul", [tensor, graph.constant(weights)]), graph.constant(bias)])
        if layer < len(estimator.coefs_) - 1 and hidden:
            tensor = graph.node(hidden, [tensor])
    link = {"logistic": "sigmoid"}.get(estimator.out_activation_, estimator.out_activation_)
    if not hasattr(estimator, "classes_"):
        return of_prediction(graph, tensor, link={"poisson": "exp"}.get(link, link), is_flat=estimator.n_outputs_ == 1)
    if len(estimator.classes_) == 2:
        return of_two(graph, linked(graph, tensor, link))
    return of_probability(graph, linked(graph, tensor, link))


def support_vectors(graph: Graph, features: str, estimator: Any) -> Answer:
    """SVR and NuSVR. |x - s|² is taken as |x|² - 2 x·s + |s|², in double."""
    vectors = np.asarray(estimator.support_vectors_, np.float64)
    gamma = float(estimator._gamma)
    kernel = estimator.kernel
    product = graph.node("MatMul", [features, graph.constant(vectors.T)])
    if kernel == "rbf":
        squares = graph.node("ReduceSumSquare", [features, graph.constant([1], "int64")], keepdims=1)
        distance = graph.node("Add", [squares, graph.constant((vectors**2).sum(axis=1))])
        distance = graph.node("Sub", [distance, graph.node("Mul", [product, graph.constant([2.0])])])
        product = graph.node("Exp", [graph.node("Mul", [distance, graph.constant([-gamma])])])
    elif kernel in ("poly", "sigmoid"):
        product = graph.node("Add", [graph.node("Mul", [product, graph.constant([gamma])]), graph.constant([float(estimator.coef0)])])
        product = graph.node("Tanh", [product]) if kernel == "sigmoid" else graph.node("Pow", [product, graph.constant(float(estimator.degree))])
    elif kernel != "linear":
        raise ValueError(f"{type(estimator).__name__}(kernel={kernel!r}) has no converter; rbf, linear, poly and sigmoid have")
    value = graph.node("MatMul", [product, graph.constant(np.asarray(estimator.dual_coef_, np.float64).T)])
    return of_prediction(graph, graph.node("Add", [value, graph.constant(np.asarray(estimator.intercept_, np.float64))]))
