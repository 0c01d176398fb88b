"""The law of thresholds, and trees of every shape as operators."""

from __future__ import annotations

import numpy as np
import onnxruntime
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto

from modelyard.runtime.convert.graph import Graph
from modelyard.runtime.convert.trees import Tree, compared_in_float32, looked_up, summed

doubles = st.floats(allow_nan=False, width=64)


@given(threshold=doubles, value=doubles, strictly=st.booleans())
@example(threshold=0.0, value=-0.0, strictly=True)
@example(threshold=float("inf"), value=float("inf"), strictly=False)
@example(threshold=float("-inf"), value=float("-inf"), strictly=True)
@example(threshold=3.4028234663852886e38, value=3.4028235677973366e38, strictly=False)
@example(threshold=0.1, value=0.10000000149011612, strictly=False)
def test_a_double_comparison_says_what_the_float32_comparison_says(threshold: float, value: float, strictly: bool) -> None:
    turned = compared_in_float32(np.array([threshold]), strictly=strictly)[0]
    near = [value, turned, np.nextafter(turned, np.inf), np.nextafter(turned, -np.inf), float(np.float64(threshold))]
    for x in near:
        with np.errstate(over="ignore"):
            rounded = np.float64(np.float32(x))
        expected = rounded < threshold if strictly else rounded <= threshold
        assert (x <= turned) == expected


def test_without_the_turning_of_thresholds_float32_and_double_disagree() -> None:
    threshold, x = 0.1, 0.1 - 1e-12
    assert x <= threshold
    assert not np.float64(np.float32(x)) <= threshold
    assert not x <= compared_in_float32(np.array([threshold]), strictly=False)[0]


def tree(**changes: object) -> Tree:
    """x0 <= 1 ? (x1 in {2, 5} ? 10 : 20) : 30; NaN goes right, then left."""
    given: dict[str, object] = {
        "left": np.array([1, 3, -1, -1, -1]),
        "right": np.array([2, 4, -1, -1, -1]),
        "feature": np.array([0, 1, 0, 0, 0]),
        "threshold": np.array([1.0, 0, 0, 0, 0]),
        "missing_left": np.array([False, True, False, False, False]),
        "value": np.array([0.0, 0, 30, 10, 20]),
        "members": {1: (2.0, 5.0)},
    }
    return Tree(**{**given, **changes})  # type: ignore[arg-type]


def answers(write: object, rows: list[list[float]], width: int, dtype: str = "float64") -> np.ndarray:
    graph = Graph()
    columns = graph.matrix("X", "float64", 2)
    features = graph.join(columns)
    if dtype == "float32":
        features = graph.node("Cast", [features], to=TensorProto.FLOAT)
    made = write(graph, features)  # type: ignore[operator]
    made = graph.node("Cast", [made], to=TensorProto.DOUBLE)
    model, _ = graph.finish([("y", made, TensorProto.DOUBLE, width)])
    return onnxruntime.InferenceSession(model).run(None, {"X": np.array(rows, float)})[0]


ROWS = [[1, 2], [1, 5], [1, 3], [2, 2], [np.nan, 2], [0, np.nan], [0, 64], [0, -1]]
EXPECTED = [10, 10, 20, 30, 30, 10, 20, 20]


def test_thresholds_members_and_missing_values_take_the_branches_of_the_tree() -> None:
    found = answers(lambda graph, x: summed(graph, x, [tree()], [0], 1), ROWS, 1)
    assert found[:, 0].tolist() == EXPECTED


def test_the_same_in_float32() -> None:
    found = answers(lambda graph, x: summed(graph, x, [tree()], [0], 1, dtype="float32"), ROWS, 1, "float32")
    assert found[:, 0].tolist() == EXPECTED


def test_an_empty_set_and_a_large_one() -> None:
    none = answers(lambda graph, x: summed(graph, x, [tree(members={1: ()})], [0], 1), ROWS[:3], 1)
    assert none[:, 0].tolist() == [20, 20, 20]
    many = tuple(float(code) for code in range(0, 300, 2))
    found = answers(lambda graph, x: summed(graph, x, [tree(members={1: many})], [0], 1), [[0, code] for code in range(300)], 1)
    assert found[:, 0].tolist() == [10 if code % 2 == 0 else 20 for code in range(300)]


def test_a_tree_of_one_leaf_and_several_targets() -> None:
    leaf = Tree(np.array([-1]), np.array([-1]), np.array([0]), np.zeros(1), np.zeros(1, bool), np.array([7.0]), {})
    found = answers(lambda graph, x: summed(graph, x, [leaf, tree(), leaf], [1, 0, 1], 2), ROWS, 2)
    assert found[:, 0].tolist() == EXPECTED
    assert found[:, 1].tolist() == [14.0] * len(ROWS)


def test_vectors_in_leaves_are_added_over_trees() -> None:
    value = np.stack([np.array([0.0, 0, 30, 10, 20]), np.array([0.0, 0, 3, 1, 2])], axis=1)
    found = answers(lambda graph, x: looked_up(graph, x, [tree(value=value), tree(value=value)]), ROWS, 2)
    assert found[:, 0].tolist() == [2 * each for each in EXPECTED]
    assert found[:, 1].tolist() == [each / 5 for each in EXPECTED]


def test_a_threshold_of_infinity_sends_all_but_missing_left() -> None:
    found = answers(lambda graph, x: summed(graph, x, [tree(threshold=np.array([np.inf, 0, 0, 0, 0]))], [0], 1), [[1e300, 2], [np.nan, 2]], 1)
    assert found[:, 0].tolist() == [10, 30]
