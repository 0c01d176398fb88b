"""Fitted predictors as graphs: which writer serves which class.

Hides the tables of classes and how predictors nest (pipelines, searches, votes, stacks). It must not judge what comes out; that is parity's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.runtime.convert import boosters, forests, linear, neighbours, stock
from modelyard.runtime.convert.answers import Answer, linked, of_prediction, of_probability
from modelyard.runtime.convert.preprocessing import hands_on_sparse, transform

if TYPE_CHECKING:
    from modelyard.runtime.convert.graph import Columns, Graph

Predict = Callable[["Graph", "Columns", Any], Answer]
OfFeatures = Callable[["Graph", str, Any], Answer]


def predict(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    """What `estimator` answers over these columns, in the graph's mode.

    Raises ValueError or a converter's own error, naming the step.
    """
    kind = type(estimator)
    name = kind.__name__
    of_sklearn = kind.__module__.startswith("sklearn.")
    own = _own(kind)
    if own is not None and (graph.mode == "exact" or not of_sklearn or name in _CONTAINERS):
        return own(graph, columns, estimator)
    if not of_sklearn:
        raise ValueError(f"{kind.__module__}.{name} has no converter")
    if graph.mode == "exact" and name in OVER_FEATURES:
        texts = [column.name or str(column.index) for column in columns if column.kind == "string"]
        if texts:
            raise ValueError(f"{name} is given text ({', '.join(texts[:3])}) without an encoder before it")
        return OVER_FEATURES[name](graph, graph.join(columns), estimator)
    return stock.predict(graph, columns, estimator)


def _own(kind: type) -> Predict | None:
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if (package, base.__name__) in PREDICTORS:
            return PREDICTORS[package, base.__name__]
    return None


def _pipeline(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    is_sparse = any(column.is_sparse for column in columns)
    for _, step in estimator.steps[:-1]:
        columns = transform(graph, columns, step)
        is_sparse = hands_on_sparse(step, given_sparse=is_sparse)
    columns = tuple(replace(column, is_sparse=is_sparse) for column in columns)
    return predict(graph, columns, estimator.steps[-1][1])


def _search(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    return predict(graph, columns, estimator.best_estimator_)


def _histogram(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    if getattr(estimator, "_preprocessor", None) is not None:
        columns = transform(graph, columns, estimator._preprocessor)
    return forests.histogram_boosting(graph, graph.join(columns), estimator)


def _mean(graph: Graph, parts: Sequence[str], weights: Sequence[float] | None) -> str:
    shares = np.ones(len(parts)) if weights is None else np.asarray(weights, np.float64)
    if len(set(shares.tolist())) > 1:
        parts = [graph.node("Mul", [part, graph.constant([share])]) for part, share in zip(parts, shares, strict=True)]
        total = float(shares.sum())
    else:
        total = float(len(parts))
    return graph.node("Div", [graph.node("Sum", list(parts)), graph.constant([total])])


def _voting_classifier(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    if estimator.voting != "soft":
        raise ValueError("VotingClassifier(voting='hard') has no converter; voting='soft' has")
    answers = [predict(graph, columns, each) for each in estimator.estimators_]
    return of_probability(graph, _mean(graph, [_probability(answer) for answer in answers], estimator._weights_not_none))


def _voting_regressor(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    answers = [predict(graph, columns, each) for each in estimator.estimators_]
    return Answer(prediction=_mean(graph, [_prediction(answer) for answer in answers], estimator._weights_not_none))


def _bagged(graph: Graph, columns: Columns, estimator: Any) -> list[Answer]:
    chosen = zip(estimator.estimators_, estimator.estimators_features_, strict=True)
    return [predict(graph, tuple(columns[index] for index in features), each) for each, features in chosen]


def _bagging_classifier(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    if any(len(each.classes_) != len(estimator.classes_) for each in estimator.estimators_):
        raise ValueError("BaggingClassifier: a member was trained without one of the classes, for which there is no converter")
    return of_probability(graph, _mean(graph, [_probability(answer) for answer in _bagged(graph, columns, estimator)], None))


def _bagging_regressor(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    return Answer(prediction=_mean(graph, [_prediction(answer) for answer in _bagged(graph, columns, estimator)], None))


def _stacked(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    """Each member's answer is a feature of the last one; of two classes only the second's probability is."""
    made: Columns = ()
    for each, method in zip(estimator.estimators_, estimator.stack_method_, strict=True):
        answer = predict(graph, columns, each)
        if method == "predict_proba":
            width = len(each.classes_)
            part = graph.split(_probability(answer), width, "float64")
            made += part[1:] if width == 2 else part
        elif method == "predict" and answer.prediction is not None:
            made += graph.split(graph.node("Reshape", [answer.prediction, graph.constant([-1, 1], "int64")]), 1, "float64")
        else:
            raise ValueError(f"{type(estimator).__name__} over {method} of {type(each).__name__} has no converter; predict_proba has")
    if estimator.passthrough:
        made += columns
    return predict(graph, made, estimator.final_estimator_)


def _calibrated(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    if len(estimator.classes_) != 2 or estimator.method != "sigmoid":
        raise ValueError("CalibratedClassifierCV converts for two classes and method='sigmoid'")
    parts = []
    for each in estimator.calibrated_classifiers_:
        answer = predict(graph, columns, each.estimator)
        if hasattr(each.estimator, "decision_function"):
            raise ValueError("CalibratedClassifierCV over a decision function has no converter; over probabilities it has")
        score = graph.split(_probability(answer), 2, "float64")[1:]
        calibrator = each.calibrators[0]
        line = graph.node("Mul", [graph.join(score), graph.constant([-float(calibrator.a_)])])
        parts.append(linked(graph, graph.node("Sub", [line, graph.constant([float(calibrator.b_)])]), "sigmoid"))
    positive = _mean(graph, parts, None)
    negative = graph.node("Sub", [graph.constant([1.0]), positive])
    return of_probability(graph, graph.node("Concat", [negative, positive], axis=1))


_INVERSES = {"expm1": ("Exp", -1.0), "exp": ("Exp", 0.0)}


def _transformed_target(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    answer = _prediction(predict(graph, columns, estimator.regressor_))
    transformer = estimator.transformer_
    name = type(transformer).__name__
    if name == "StandardScaler":
        scaled = graph.node("Mul", [answer, graph.constant([float(transformer.scale_[0]) if transformer.with_std else 1.0])])
        return Answer(prediction=graph.node("Add", [scaled, graph.constant([float(transformer.mean_[0]) if transformer.with_mean else 0.0])]))
    inverse = getattr(getattr(transformer, "inverse_func", None), "__name__", None)
    if name != "FunctionTransformer" or inverse not in _INVERSES:
        raise ValueError(f"TransformedTargetRegressor({name}, inverse {inverse}) has no converter; numpy.exp, numpy.expm1 and StandardScaler have")
    op, shift = _INVERSES[inverse]
    return Answer(prediction=graph.node("Add", [graph.node(op, [answer]), graph.constant([shift])]))


def _several_outputs(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    parts = []
    for each in estimator.estimators_:
        value = _prediction(predict(graph, columns, each))
        parts.append(graph.node("Reshape", [value, graph.constant([-1, 1], "int64")]))
    return Answer(prediction=graph.node("Concat", parts, axis=1))


def _support_vectors(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    return linear.support_vectors(graph, graph.join(columns), estimator)


def _constant(graph: Graph, columns: Columns, estimator: Any) -> Answer:
    if hasattr(estimator, "classes_"):
        raise ValueError("DummyClassifier has no converter")
    first = graph.node("Mul", [graph.join(columns[:1]), graph.constant([0.0])])
    zero = graph.node("Where", [graph.node("IsNaN", [first]), graph.constant([0.0]), first])
    return of_prediction(graph, graph.node("Add", [zero, graph.constant(np.asarray(estimator.constant_, np.float64).reshape(-1))]))


def _probability(answer: Answer) -> str:
    if answer.probability is None:
        raise ValueError("a member of an ensemble has no probabilities")
    return answer.probability


def _prediction(answer: Answer) -> str:
    if answer.prediction is None:
        raise ValueError("a member of an ensemble predicts no number")
    return answer.prediction


OVER_FEATURES: dict[str, OfFeatures] = {
    **dict.fromkeys(linear.REGRESSORS, linear.regressor),
    **dict.fromkeys(linear.LOG_LINKED, linear.log_linked),
    **dict.fromkeys(linear.DECIDERS, linear.decider),
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), linear.logistic),
    **dict.fromkeys(("KNeighborsClassifier", "KNeighborsRegressor"), neighbours.neighbours),
    "LinearDiscriminantAnalysis": linear.discriminant,
    "SGDClassifier": linear.stochastic,
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), linear.perceptron),
    **dict.fromkeys(
        (
            "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
            "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor",
        ),
        forests.forest,
    ),
    **dict.fromkeys(("GradientBoostingClassifier", "GradientBoostingRegressor"), forests.gradient_boosting),
}  # fmt: skip

_CONTAINERS = ("Pipeline", "GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")

PREDICTORS: dict[tuple[str, str], Predict] = {
    ("sklearn", "BaggingClassifier"): _bagging_classifier,
    ("sklearn", "BaggingRegressor"): _bagging_regressor,
    ("sklearn", "CalibratedClassifierCV"): _calibrated,
    ("sklearn", "DummyRegressor"): _constant,
    ("sklearn", "HistGradientBoostingClassifier"): _histogram,
    ("sklearn", "HistGradientBoostingRegressor"): _histogram,
    ("sklearn", "BaseSearchCV"): _search,
    ("sklearn", "MultiOutputRegressor"): _several_outputs,
    ("sklearn", "NuSVR"): _support_vectors,
    ("sklearn", "Pipeline"): _pipeline,
    ("sklearn", "SVR"): _support_vectors,
    ("sklearn", "StackingClassifier"): _stacked,
    ("sklearn", "StackingRegressor"): _stacked,
    ("sklearn", "TransformedTargetRegressor"): _transformed_target,
    ("sklearn", "VotingClassifier"): _voting_classifier,
    ("sklearn", "VotingRegressor"): _voting_regressor,
    ("xgboost", "XGBModel"): boosters.xgboost_model,
    ("xgboost", "Booster"): boosters.xgboost_booster,
    ("lightgbm", "LGBMModel"): boosters.lightgbm_model,
    ("lightgbm", "Booster"): boosters.lightgbm_booster,
    ("catboost", "CatBoost"): boosters.catboost_model,
}
