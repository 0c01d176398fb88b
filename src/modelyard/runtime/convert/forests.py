"""scikit-learn's own trees: decision trees, forests, gradient boosting and histogram gradient boosting.

Hides their fitted attributes. Forests and gradient boosting compare in float32, histogram boosting in float64; which features go in which
order is known to the caller, who joins them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.runtime.convert.answers import Answer, of_prediction, of_probability, of_scores, of_two
from modelyard.runtime.convert.trees import Tree, compared_in_float32, looked_up, summed

if TYPE_CHECKING:
    from modelyard.runtime.convert.graph import Graph
    from modelyard.types import Array

LINKS = {"IdentityLink": "identity", "LogLink": "exp", "LogitLink": "sigmoid", "HalfLogitLink": "sigmoid", "MultinomialLogit": "softmax"}


def forest(graph: Graph, features: str, estimator: Any) -> Answer:
    """A forest or a single tree, of either task; several outputs for regression."""
    trees = [each.tree_ for each in getattr(estimator, "estimators_", [estimator])]
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        if estimator.n_outputs_ == 1:
            return of_prediction(graph, _mean_of_one(graph, features, trees, 0, 0))
        return of_prediction(graph, _mean_of_vectors(graph, features, [(tree, tree.value[:, :, 0]) for tree in trees]), is_flat=False)
    if len(classes) == 2:
        return of_two(graph, _mean_of_one(graph, features, trees, 0, 1))
    return of_probability(graph, _mean_of_vectors(graph, features, [(tree, tree.value[:, 0, :]) for tree in trees]))


def _mean_of_one(graph: Graph, features: str, trees: list[Any], output: int, at: int) -> str:
    total = summed(graph, features, [_tree(tree, tree.value[:, output, at]) for tree in trees], [0] * len(trees), 1)
    return total if len(trees) == 1 else graph.node("Div", [total, graph.constant([float(len(trees))])])


def _mean_of_vectors(graph: Graph, features: str, trees: list[tuple[Any, Array]]) -> str:
    total = looked_up(graph, features, [_tree(tree, value) for tree, value in trees])
    return total if len(trees) == 1 else graph.node("Div", [total, graph.constant([float(len(trees))])])


def gradient_boosting(graph: Graph, features: str, estimator: Any) -> Answer:
    """GradientBoostingClassifier and -Regressor, with a constant start."""
    start = estimator.init_
    if start != "zero" and type(start).__name__ not in ("DummyClassifier", "DummyRegressor"):
        raise ValueError(f"init={type(start).__name__} starts from another model; init=None or 'zero' converts")
    stages = estimator.estimators_
    trees, targets = [], []
    for stage in stages:
        for target, each in enumerate(stage):
            trees.append(_tree(each.tree_, each.tree_.value[:, 0, 0] * estimator.learning_rate))
            targets.append(target)
    raw = summed(graph, features, trees, targets, stages.shape[1])
    base = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32))
    raw = graph.node("Add", [raw, graph.constant(np.asarray(base, np.float64).reshape(1, -1))])
    return _boosted(graph, raw, estimator)


def histogram_boosting(graph: Graph, features: str, estimator: Any) -> Answer:
    """HistGradientBoostingClassifier and -Regressor over features that its own preprocessor has encoded."""
    trees, targets = [], []
    for stage in estimator._predictors:
        for target, each in enumerate(stage):
            trees.append(_histogram_tree(each))
            targets.append(target)
    raw = summed(graph, features, trees, targets, len(estimator._predictors[0]) if estimator._predictors else 1)
    raw = graph.node("Add", [raw, graph.constant(np.asarray(estimator._baseline_prediction, np.float64).reshape(1, -1))])
    return _boosted(graph, raw, estimator)


def _boosted(graph: Graph, raw: str, estimator: Any) -> Answer:
    link = type(estimator._loss.link).__name__
    if link not in LINKS:
        raise ValueError(f"loss {type(estimator._loss).__name__} has a link that is not known here")
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return of_prediction(graph, raw, link=LINKS[link])
    if link == "HalfLogitLink":
        raw = graph.node("Mul", [raw, graph.constant([2.0])])
    return of_scores(graph, raw, "softmax", len(classes))


def _tree(tree: Any, value: Array) -> Tree:
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        feature=tree.feature,
        threshold=compared_in_float32(tree.threshold, strictly=False),
        missing_left=tree.missing_go_to_left,
        value=value,
        members={},
    )


def _histogram_tree(predictor: Any) -> Tree:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(bool)
    members: dict[int, tuple[float, ...]] = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~is_leaf):
        words = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        members[int(node)] = tuple(float(code) for code in range(256) if words[code // 32] >> (code % 32) & 1)
    return Tree(
        left=np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"],
        missing_left=nodes["missing_go_to_left"],
        value=nodes["value"],
        members=members,
    )
