"""Tree ensembles as TreeEnsemble nodes of ai.onnx.ml version 5, in double.

Hides how the operator wants its trees (interior nodes and leaves apart, one target per leaf, categories as sets) and how a
comparison in float32 becomes one in double. Readers of the libraries' own trees live in `forests` and `boosters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from modelyard.runtime.convert.graph import TREES_OPSET

if TYPE_CHECKING:
    from modelyard.runtime.convert.graph import Graph
    from modelyard.types import Array

_LEQ, _MEMBER = 0, 6
IMPOSSIBLE = -7777777.0
"""Member of a set that would else be empty; no category code and no imputed value is this."""


@dataclass(frozen=True)
class Tree:
    """One tree, node by node; node 0 is the root. `left` is taken where `x <= threshold`, or where x is one of `members`.

    Children of a leaf are -1. `missing_left`: where NaN goes. `members` has an entry for each node that splits by category. `value` has one
    number per node, or one vector [nodes, k] for `looked_up`.
    """

    left: Array
    right: Array
    feature: Array
    threshold: Array
    missing_left: Array
    value: Array
    members: dict[int, tuple[float, ...]]


def compared_in_float32(threshold: Array, *, strictly: bool) -> Array:
    """Thresholds t' in double with `x <= t'` exactly where `float32(x) <= t` (or `< t` when `strictly`), for every double x.

    Rounding to float32 is monotonic, so the answer turns at one place: half-way between the last float32 that passes and the next, which
    itself rounds to the even neighbour (IEEE 754, roundTiesToEven). It spares two casts per request. Law: `tests/unit/runtime/convert/test_trees.py`.
    """
    with np.errstate(over="ignore"):
        last = threshold.astype(np.float32)
        too_far = last.astype(np.float64) >= threshold if strictly else last.astype(np.float64) > threshold
        last = np.where(too_far, np.nextafter(last, np.float32(-np.inf)), last)
        following = np.nextafter(last, np.float32(np.inf))
    low, high = (np.nan_to_num(each.astype(np.float64), posinf=2.0**128, neginf=-(2.0**128)) for each in (last, following))
    middle = (low + high) / 2  # rounding treats infinity as if it were the next number, 2**128
    is_even = (last.view(np.uint32) & 1) == 0
    turned = np.where(is_even, middle, np.nextafter(middle, -np.inf))
    turned = np.where(np.isposinf(last), np.inf, turned)
    return np.where(np.isneginf(threshold) & strictly, np.nan, turned)  # nothing is below -inf


def summed(graph: Graph, features: str, trees: Sequence[Tree], targets: Sequence[int], n_targets: int, *, dtype: str = "float64") -> str:
    """[N, n_targets]: to each target the sum of the values of its trees, in the order of the trees. Tree i gives its value to `targets[i]`.

    Features, thresholds, values and sums are all of `dtype`.
    """
    attributes = _flattened(trees, dtype)
    leaves = [int((tree.left < 0).sum()) for tree in trees]
    attributes["leaf_targetids"] = np.repeat(np.array(targets, np.int64), leaves)
    graph.needs("ai.onnx.ml", TREES_OPSET)
    return graph.node("TreeEnsemble", [features], domain="ai.onnx.ml", n_targets=n_targets, **attributes)


def looked_up(graph: Graph, features: str, trees: Sequence[Tree]) -> str:
    """[N, k]: the sum over trees of their leaves' vectors of k values.

    The operator's leaves hold one number, so k copies of each tree would be walked. Here every tree is walked once and gives the number of
    its leaf; the vectors are then gathered and added.
    """
    numbered, vectors, count = [], [], 0
    for tree in trees:
        leaves = np.flatnonzero(tree.left < 0)
        value = np.zeros(len(tree.left))
        value[leaves] = np.arange(count, count + len(leaves))
        count += len(leaves)
        vectors.append(tree.value[leaves])
        numbered.append(Tree(tree.left, tree.right, tree.feature, tree.threshold, tree.missing_left, value, tree.members))
    reached = summed(graph, features, numbered, range(len(trees)), len(trees))
    reached = graph.node("Cast", [reached], to=TensorProto.INT64)
    gathered = graph.node("Gather", [graph.constant(np.concatenate(vectors)), reached], axis=0)
    return graph.node("ReduceSum", [gathered, graph.constant([1], "int64")], keepdims=0)


def _flattened(trees: Sequence[Tree], dtype: str) -> dict[str, Any]:
    """The operator's attributes but for the targets. Number interior nodes and leaves apart over all trees, as the operator wants them."""
    inner = [np.flatnonzero(tree.left >= 0) for tree in trees]
    roots, parts, members = [], [], []
    node_at = leaf_at = 0
    for tree, nodes in zip(trees, inner, strict=True):
        is_leaf = tree.left < 0
        leaf_number = np.cumsum(is_leaf) - 1 + leaf_at
        node_number = np.cumsum(~is_leaf) - 1 + node_at
        number = np.where(is_leaf, leaf_number, node_number)
        roots.append(node_at)
        if len(nodes) == 0:  # a tree of one leaf is a node whose branches both end there
            zero = np.zeros(1)
            parts.append((zero.astype(int), np.full(1, leaf_at), np.full(1, leaf_at), np.ones(1, int), np.ones(1, int), zero, zero.astype(int), zero))
            node_at, leaf_at = node_at + 1, leaf_at + 1
            continue
        left, right = tree.left[nodes], tree.right[nodes]
        modes = np.full(len(nodes), _LEQ)
        if tree.members:
            modes[np.isin(nodes, list(tree.members))] = _MEMBER
            for node in nodes[modes == _MEMBER]:
                members += [*(tree.members[int(node)] or (IMPOSSIBLE,)), np.nan]
        parts.append(
            (
                tree.feature[nodes],
                number[left],
                number[right],
                is_leaf[left],
                is_leaf[right],
                tree.threshold[nodes],
                modes,
                tree.missing_left[nodes],
            )
        )
        node_at, leaf_at = node_at + len(nodes), leaf_at + int(is_leaf.sum())
    feature, true, false, true_leaf, false_leaf, threshold, mode, missing = (np.concatenate(column) for column in zip(*parts, strict=True))
    leaves = [tree.left < 0 for tree in trees]
    attributes: dict[str, Any] = {
        "aggregate_function": 1,
        "leaf_weights": np.concatenate([tree.value[leaf] for tree, leaf in zip(trees, leaves, strict=True)]).astype(dtype),
        "nodes_falseleafs": false_leaf.astype(np.int64),
        "nodes_falsenodeids": false.astype(np.int64),
        "nodes_featureids": feature.astype(np.int64),
        "nodes_modes": mode.astype(np.uint8),
        "nodes_splits": threshold.astype(dtype),
        "nodes_trueleafs": true_leaf.astype(np.int64),
        "nodes_truenodeids": true.astype(np.int64),
        "post_transform": 0,
        "tree_roots": np.array(roots, np.int64),
    }
    if missing.any():
        attributes["nodes_missing_value_tracks_true"] = missing.astype(np.int64)
    if members:
        attributes["membership_values"] = np.array(members, dtype)
    return attributes
