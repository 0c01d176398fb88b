"""Nearest neighbours: right by distance, met rows included; refused where equally far rows make the original's choice its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from converting import converted
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from modelyard.errors import Unconvertible
from modelyard.runtime.convert.graph import Graph
from modelyard.runtime.convert.stock import predict as stock


@pytest.mark.parametrize("algorithm", ["brute", "kd_tree", "ball_tree"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_classes_of_seen_and_unseen_rows(weights: str, algorithm: str, numbers: np.ndarray, three: np.ndarray) -> None:
    model = KNeighborsClassifier(5, weights=weights, algorithm=algorithm).fit(numbers[:200], three[:200])
    found = converted(model, numbers[200:] if (weights, algorithm) == ("distance", "brute") else numbers)
    assert found.conversion.parity.outputs["probability"].max_abs < 1e-6
    assert found.conversion.method == "trees and steps in double"


@pytest.mark.parametrize("model", [KNeighborsRegressor(), KNeighborsRegressor(3, weights="distance")], ids=repr)
def test_numbers(model: Any, numbers: np.ndarray, target: np.ndarray) -> None:
    assert converted(model.fit(numbers[:200], target[:200]), numbers).conversion.parity.passed


def test_a_met_row_that_the_original_itself_does_not_find_at_no_distance_is_refused() -> None:
    """scikit-learn's brute search rounds a distance of 0 to 1e-5 or so (of few columns not on every processor), and lets other rows have a share."""
    x = 100 * np.random.default_rng(0).normal(size=(200, 64))
    x[100:] = x[:100] + 1e-3
    y = np.arange(200) // 100
    model = KNeighborsClassifier(5, weights="distance", algorithm="brute").fit(x, y)
    assert model.kneighbors(x)[0][:, 0].any()
    with pytest.raises(Unconvertible, match=r"the converted 0\.0"):
        converted(model, x)


def test_rows_that_are_equally_far_are_refused_with_row_and_both_values() -> None:
    x = np.array([[float(at % 7), float(at % 5)] for at in range(400)])
    y = np.arange(400.0) ** 2
    with pytest.raises(Unconvertible, match=r"output 'prediction', row \d+: the original says [\d.]+, the converted [\d.]+"):
        converted(KNeighborsRegressor(4).fit(x, y), x)


def test_many_stored_rows_bound_the_batch(numbers: np.ndarray, target: np.ndarray) -> None:
    many = np.random.default_rng(0).normal(size=(30_000, 2))
    found = converted(KNeighborsRegressor(3).fit(many, many[:, 0]), many[:300])
    assert found.conversion.binding.max_batch_rows == 133
    assert len(found.runtime.predict({"X": many[:300]})["prediction"]) == 300


def test_other_distances_go_to_the_stock_converter_and_too_many_rows_nowhere(numbers: np.ndarray, target: np.ndarray) -> None:
    assert converted(KNeighborsRegressor(metric="manhattan").fit(numbers, target), numbers[:50]).conversion.method.endswith("KNeighborsRegressor")
    many = np.random.default_rng(0).normal(size=(20_001, 2))
    graph = Graph("double")
    with pytest.raises(ValueError, match="compares with 20,001 stored rows"):
        stock(graph, graph.matrix("X", "float64", 2), KNeighborsRegressor(metric="manhattan").fit(many, many[:, 0]))
