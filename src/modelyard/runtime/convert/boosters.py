"""XGBoost's, LightGBM's and CatBoost's trees.

Hides their model formats: XGBoost and LightGBM are read by treelite, CatBoost from its own JSON. XGBoost adds leaves one after the other in
float32, beginning with the base score, and so does the graph; LightGBM and CatBoost add in double.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from modelyard.runtime.convert.answers import Answer, linked, of_prediction, of_probability, of_scores, of_two
from modelyard.runtime.convert.preprocessing import encoded
from modelyard.runtime.convert.trees import Tree, compared_in_float32, summed

if TYPE_CHECKING:
    from modelyard.runtime.convert.graph import Column, Columns, Graph
    from modelyard.types import Array, Scalar

_LEAF, _CATEGORY = 0, 2
_IDENTITY = ("identity", "identity_multiclass")
_BINARY, _SOFTMAX = ("sigmoid",), ("softmax", "max_index")


# XGBoost


def xgboost_model(graph: Graph, columns: Columns, model: Any) -> Answer:
    """An estimator of XGBoost's scikit-learn API, with the rounds that its own predict uses."""
    booster = model.get_booster()
    if getattr(model, "early_stopping_rounds", None) is not None:
        booster = booster[: model.best_iteration + 1]
    missing = float(model.missing) if model.missing is not None else math.nan
    return _xgboost(graph, columns, booster, missing, is_classifier=hasattr(model, "classes_"))


def xgboost_booster(graph: Graph, columns: Columns, booster: Any) -> Answer:
    """A bare Booster; it is a classifier where its objective is."""
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    return _xgboost(graph, columns, booster, math.nan, is_classifier=objective in ("binary:logistic", "multi:softprob", "multi:softmax"))


def _xgboost(graph: Graph, columns: Columns, booster: Any, missing: float, *, is_classifier: bool) -> Answer:
    import treelite

    document = json.loads(booster.save_raw("json"))
    model = _xgboost_trees(document)
    if model is None:
        raise ValueError(f"XGBoost's {document['learner']['gradient_booster'].get('name')} booster has no trees; booster='gbtree' converts")
    categories = xgboost_categories(document, {index: column.categories for index, column in enumerate(columns)})
    if model.get("cats"):
        model["cats"] = {"enc": [], "feature_segments": [], "sorted_idx": []}  # treelite refuses trees with a dictionary of categories
    parsed = treelite.frontend.from_xgboost_json(json.dumps(document))
    header = parsed.get_header_accessor()
    is_sparse = any(column.is_sparse for column in columns)
    columns = _recoded(graph, columns, categories)
    tensor = graph.node("Cast", [graph.join(columns)], to=TensorProto.FLOAT)
    if is_sparse:  # XGBoost takes what a sparse matrix leaves out for missing
        absent = graph.node("Equal", [tensor, graph.constant([0.0], "float32")])
        tensor = graph.node("Where", [absent, graph.constant([math.nan], "float32"), tensor])
    if not math.isnan(missing):
        absent = graph.node("Equal", [tensor, graph.constant([missing], "float32")])
        tensor = graph.node("Where", [absent, graph.constant([math.nan], "float32"), tensor])
    trees, targets = _treelite_trees(parsed, header)
    width = max(int(header.get_field("num_target")[0]), *(int(each) for each in header.get_field("num_class")))
    base = np.broadcast_to(np.asarray(header.get_field("base_scores"), np.float64), (width,))
    start = [_stump(value) for value in base]  # first in each sum, as XGBoost begins with it
    raw = summed(graph, tensor, [*start, *trees], [*range(width), *targets], width, dtype="float32")
    raw = graph.node("Cast", [raw], to=TensorProto.DOUBLE)
    return _finished(graph, raw, header, width, is_classifier=is_classifier)


def xgboost_categories(document: dict[str, Any], declared: Mapping[int, Sequence[Scalar] | None] | None = None) -> dict[int, list[Scalar]]:
    """By feature number, the categories that XGBoost has stored, in the order of their codes.

    XGBoost counts characters where it stores bytes and so cuts off names beyond ASCII. Those are taken from what the data declares, where that,
    cut off in the same way, is what the model stores. Raises ValueError where it is not.
    """
    cats = (_xgboost_trees(document) or {}).get("cats") or {}
    found: dict[int, list[Scalar]] = {}
    for feature, each in enumerate(cats.get("enc", [])):
        values = each.get("values", [])
        if not values:
            continue
        if "offsets" not in each:
            found[feature] = list(values)
            continue
        stored, ends = bytes(value & 0xFF for value in values), each["offsets"]
        names = [str(name) for name in (declared or {}).get(feature) or ()]
        lengths = [end - start for start, end in pairwise(ends)]
        if stored.isascii():
            found[feature] = [stored[start:end].decode("ascii") for start, end in pairwise(ends)]
        elif [len(name) for name in names] == lengths and "".join(names).encode("utf-8").startswith(stored):
            found[feature] = list(names)
        else:
            raise ValueError(
                f"XGBoost has cut off the names of feature {feature}'s categories, which are not ASCII; give the data as a pandas frame with the "
                "categories of the training, or use ASCII names"
            )
    return found


def xgboost_cut_off(booster: Any) -> dict[str, Any] | None:
    """The Booster's document where names of its categories are cut off, else None.

    Such a Booster answers unknown categories by chance instead of refusing them, so whoever asks it compares the data's categories first.
    """
    document: dict[str, Any] = json.loads(booster.save_raw("json"))
    encoders = ((_xgboost_trees(document) or {}).get("cats") or {}).get("enc", [])
    return document if any("offsets" in each and min(each["values"], default=0) < 0 for each in encoders) else None


def _xgboost_trees(document: dict[str, Any]) -> dict[str, Any] | None:
    """The part that holds the trees: dart wraps a gbtree; a linear booster has none."""
    booster = document["learner"]["gradient_booster"]
    found: dict[str, Any] | None = booster.get("gbtree", booster).get("model")
    return found if found and "trees" in found else None


def _stump(value: float) -> Tree:
    leaf = np.array([-1])
    return Tree(leaf, leaf, np.array([0]), np.zeros(1), np.zeros(1, bool), np.array([float(value)]), {})


# LightGBM


def lightgbm_model(graph: Graph, columns: Columns, model: Any) -> Answer:
    """An estimator of LightGBM's scikit-learn API."""
    return _lightgbm(graph, columns, model.booster_, is_classifier=hasattr(model, "classes_"))


def lightgbm_booster(graph: Graph, columns: Columns, booster: Any) -> Answer:
    """A bare Booster; it is a classifier where its objective is."""
    return _lightgbm(graph, columns, booster, is_classifier=lightgbm_objective(booster) in ("binary", "multiclass", "multiclassova"))


def lightgbm_objective(booster: Any) -> str:
    """The objective's name as it stands in the model's text."""
    return str(booster.dump_model(num_iteration=1).get("objective", "")).split(" ")[0]


def lightgbm_categorical(booster: Any) -> list[int]:
    """The numbers of the features that are split by category: their range in the text is a list of codes, not an interval."""
    lines = booster.model_to_string(num_iteration=1).splitlines()
    infos = next(line for line in lines if line.startswith("feature_infos=")).partition("=")[2].split(" ")
    return [index for index, info in enumerate(infos) if info not in ("none", "") and not info.startswith("[")]


def _lightgbm(graph: Graph, columns: Columns, booster: Any, *, is_classifier: bool) -> Answer:
    import treelite

    stored = booster.pandas_categorical or []
    if stored:
        texts = {index for index, column in enumerate(columns) if column.kind == "string"}
        chosen = sorted(texts | set(lightgbm_categorical(booster)))
        if len(chosen) != len(stored):
            raise ValueError(f"the model stores categories of {len(stored)} columns, the data has {len(chosen)}")
        columns = _recoded(graph, columns, dict(zip(chosen, stored, strict=True)))
    parsed = treelite.frontend.from_lightgbm(booster)
    header = parsed.get_header_accessor()
    trees, targets = _treelite_trees(parsed, header)
    width = max(int(header.get_field("num_target")[0]), *(int(each) for each in header.get_field("num_class")))
    raw = summed(graph, graph.join(columns), trees, targets, width)
    if header.get_field("average_tree_output")[0]:
        raw = graph.node("Div", [raw, graph.constant([len(trees) / width])])
    return _finished(graph, raw, header, width, is_classifier=is_classifier)


# What both share


def _recoded(graph: Graph, columns: Columns, categories: dict[int, list[Any]]) -> Columns:
    """Columns with their categories replaced by codes; what is not among the categories becomes missing."""
    made: list[Column] = list(columns)
    chosen = sorted(categories)
    if chosen:
        tables = [{value: np.array([float(code)]) for code, value in enumerate(categories[index])} for index in chosen]
        codes = encoded(graph, tuple(columns[index] for index in chosen), tables, [np.array([math.nan])] * len(chosen))
        for index, column in zip(chosen, graph.split(codes, len(chosen), "float64"), strict=True):
            made[index] = column
    if any(column.kind == "string" for column in made):
        raise ValueError("the model stores no categories for a column of text; train it on pandas categories, or encode them in a pipeline")
    return tuple(made)


def _treelite_trees(parsed: Any, header: Any) -> tuple[list[Tree], list[int]]:
    """All trees, and which target each adds to; vectors in leaves become one tree per target."""
    is_float32 = int(header.get_field("threshold_type")[0]) == 2
    trees, targets = [], []
    for number in range(parsed.num_tree):
        get = parsed.get_tree_accessor(number).get_field
        kind, left, right = get("node_type"), get("cleft").astype(np.int64), get("cright").astype(np.int64)
        missing_left, threshold = get("default_left").astype(bool), get("threshold")
        members, left, right, missing_left = _members(get, kind, left, right, missing_left)
        strict = get("cmp") == 2
        numeric = (kind != _LEAF) & (kind != _CATEGORY)
        if not np.isin(get("cmp")[numeric], (2, 3)).all():
            raise ValueError("a tree compares by something else than < and <=")
        if is_float32:
            threshold = np.where(strict, np.nextafter(threshold, np.float32(-np.inf)), threshold)
        else:
            threshold = np.where(strict, np.nextafter(threshold, -np.inf), threshold)
        left, right = np.where(kind == _LEAF, -1, left), np.where(kind == _LEAF, -1, right)
        feature = get("split_index").astype(np.int64)
        for target, value in _leaves(get, header, number):
            trees.append(Tree(left, right, feature, threshold.astype(np.float64), missing_left, value, members))
            targets.append(target)
    return trees, targets


def _leaves(get: Any, header: Any, number: int) -> list[tuple[int, Array]]:
    begin, end = get("leaf_vector_begin"), get("leaf_vector_end")
    if not (end > begin).any():
        target, group = int(header.get_field("target_id")[number]), int(header.get_field("class_id")[number])
        return [(max(target, group, 0), get("leaf_value").astype(np.float64))]
    vector = get("leaf_vector").astype(np.float64)
    width = int((end - begin).max())
    made = []
    for target in range(width):
        value = np.zeros(len(begin))
        has = end > begin
        value[has] = vector[begin[has].astype(np.int64) + target]
        made.append((target, value))
    return made


def _members(get: Any, kind: Array, left: Array, right: Array, missing_left: Array) -> tuple[dict[int, tuple[float, ...]], Array, Array, Array]:
    """Sets of categories, all of them for the left branch: where treelite lists the right child's, the branches change places."""
    members: dict[int, tuple[float, ...]] = {}
    begin, end, listed = get("category_list_begin"), get("category_list_end"), get("category_list")
    swapped = np.zeros(len(kind), bool)
    for node in np.flatnonzero(kind == _CATEGORY):
        members[int(node)] = tuple(float(code) for code in listed[int(begin[node]) : int(end[node])])
        swapped[node] = bool(get("category_list_right_child")[node])
    return members, np.where(swapped, right, left), np.where(swapped, left, right), np.where(swapped, ~missing_left, missing_left)


def _finished(graph: Graph, raw: str, header: Any, width: int, *, is_classifier: bool) -> Answer:
    step = str(header.get_field("postprocessor"))
    alpha = float(header.get_field("sigmoid_alpha")[0])
    if step in ("sigmoid", "multiclass_ova") and alpha != 1:
        raw = graph.node("Mul", [raw, graph.constant([alpha])])
    if is_classifier:
        if step == "sigmoid" and width == 1:
            return of_two(graph, linked(graph, raw, "sigmoid"))
        if step in _SOFTMAX:
            return of_probability(graph, linked(graph, raw, "softmax"))
        if step == "multiclass_ova":
            return of_probability(graph, linked(graph, raw, "sigmoid"))
        raise ValueError(f"a classifier whose score ends in {step!r} has no converter")
    links = {"exponential": "exp", "sigmoid": "sigmoid", **dict.fromkeys(_IDENTITY, "identity")}
    if step not in links:
        raise ValueError(f"a regressor whose score ends in {step!r} has no converter")
    return of_prediction(graph, raw, link=links[step], is_flat=width == 1)


# CatBoost


def catboost_model(graph: Graph, columns: Columns, model: Any) -> Answer:
    """A CatBoost model of numeric features, of either task, symmetric trees or not."""
    document = catboost_document(model)
    if document["features_info"].get("categorical_features") or document.get("ctr_data"):
        raise ValueError("CatBoost computes statistics of categorical features as it answers, for which ONNX has no operator")
    if any(column.kind == "string" for column in columns):
        raise ValueError("CatBoost's text and embedding features have no converter")
    floats = {each["feature_index"]: each for each in document["features_info"].get("float_features", [])}
    places = {index: int(each["flat_feature_index"]) for index, each in floats.items()}
    above = {places[index] for index, each in floats.items() if each.get("nan_value_treatment") == "AsTrue"}
    if "oblivious_trees" in document:
        trees = [tree for each in document["oblivious_trees"] for tree in _symmetric(each, places, above)]
    else:
        trees = [tree for each in document.get("trees", []) for tree in _nested(each, places, above)]
    scale, bias = document["scale_and_bias"]
    bias = np.atleast_1d(np.asarray(bias, np.float64))
    width = len(bias)
    raw = summed(graph, graph.join(columns), trees, [at % width for at in range(len(trees))], width)
    raw = graph.node("Add", [graph.node("Mul", [raw, graph.constant([float(scale)])]), graph.constant(bias)])
    loss = catboost_loss(model)
    if hasattr(model, "predict_proba") or loss in CATBOOST_CLASSIFIES:
        if loss == "MultiClassOneVsAll":
            return of_probability(graph, linked(graph, raw, "sigmoid"))
        return of_scores(graph, raw, "softmax", 2 if width == 1 else width)
    return of_prediction(graph, raw, link="exp" if loss in ("Poisson", "Tweedie") else "identity", is_flat=width == 1)


CATBOOST_CLASSIFIES = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")


def catboost_loss(model: Any) -> str:
    """The loss function's name without its parameters."""
    return str(model.get_all_params().get("loss_function", "")).split(":")[0]


def catboost_document(model: Any) -> dict[str, Any]:
    """CatBoost's own JSON of the model; it writes to a file only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def _symmetric(tree: dict[str, Any], places: dict[int, int], above: set[int]) -> list[Tree]:
    """Split i of a symmetric tree decides bit i of the leaf's number, so the last split is the root's."""
    splits = tree.get("splits") or []
    depth, inner = len(splits), 2 ** len(splits) - 1
    if any(split["split_type"] != "FloatFeature" for split in splits):
        raise ValueError("CatBoost splits by a category, for which there is no converter")
    values = np.asarray(tree["leaf_values"], np.float64).reshape(2**depth, -1)
    level = [int(math.log2(node + 1)) for node in range(inner)]
    chosen = [splits[depth - 1 - each] for each in level]
    left = np.array([2 * node + 1 if node < inner else -1 for node in range(2 * inner + 1)])
    pad = [0] * (inner + 1)
    feature = np.array([places[split["float_feature_index"]] for split in chosen] + pad)
    border = np.array([float(split["border"]) for split in chosen] + pad, np.float64)
    structure = (left, np.where(left < 0, -1, left + 1), feature, border)
    return _of_borders(structure, above, np.concatenate([np.zeros((inner, values.shape[1])), values]))


def _nested(tree: dict[str, Any], places: dict[int, int], above: set[int]) -> list[Tree]:
    left: list[int] = []
    right: list[int] = []
    feature: list[int] = []
    border: list[float] = []
    values: list[Sequence[float] | Array] = []

    def add(node: dict[str, Any]) -> int:
        at = len(left)
        for column, empty in ((left, -1), (right, -1), (feature, 0)):
            column.append(empty)
        border.append(0.0)
        values.append(())
        if "split" not in node:
            values[at] = np.atleast_1d(node["value"])
            return at
        if node["split"]["split_type"] != "FloatFeature":
            raise ValueError("CatBoost splits by a category, for which there is no converter")
        feature[at], border[at] = places[node["split"]["float_feature_index"]], float(node["split"]["border"])
        left[at] = add(node["left"])
        right[at] = add(node["right"])
        return at

    add(tree)
    width = max(len(each) for each in values)
    stacked = np.array([each if len(each) else [0.0] * width for each in values], np.float64)
    return _of_borders((np.array(left), np.array(right), np.array(feature), np.array(border, np.float64)), above, stacked)


def _of_borders(structure: tuple[Array, Array, Array, Array], above: set[int], values: Array) -> list[Tree]:
    """One tree per class, of left, right, feature and border.

    CatBoost goes right where float32(x) > float32(border); a missing value goes left unless it counts as above all.
    """
    left, right, feature, border = structure
    threshold = compared_in_float32(border.astype(np.float32).astype(np.float64), strictly=False)
    missing_left = np.array([place not in above for place in feature])
    return [Tree(left, right, feature, threshold, missing_left, values[:, target], {}) for target in range(values.shape[1])]
