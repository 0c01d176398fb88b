"""scikit-learn's transformers as ONNX nodes in double: columns in, columns out.

Hides each transformer's fitted attributes. Written here because the stock converters compute them in float32, or wrongly, or not at
all for doubles and missing strings; what is not here goes to `stock`. A missing string is the marker MISSING, a missing number NaN.
A transformer over float32 columns computes in float32 as the original does: each of its steps is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from modelyard.runtime.binding import MISSING
from modelyard.runtime.convert import stock
from modelyard.runtime.convert.graph import single

if TYPE_CHECKING:
    from modelyard.runtime.convert.graph import Column, Columns, Graph
    from modelyard.types import Array

Transform = Callable[["Graph", "Columns", Any], "Columns"]


def transform(graph: Graph, columns: Columns, step: Any) -> Columns:
    """The columns that `step` makes of these columns. Raises ValueError or a converter's own error, naming the step."""
    if isinstance(step, str) or step is None:
        return () if step == "drop" else columns
    own = TRANSFORMERS.get(type(step).__name__) if type(step).__module__.startswith("sklearn.") else None
    if own is not None:
        return own(graph, columns, step)
    if hasattr(step, "get_support") and hasattr(step, "transform") and type(step).__module__.startswith("sklearn."):
        return tuple(columns[index] for index in step.get_support(indices=True))
    return stock.transform(graph, columns, step)


def hands_on_sparse(step: Any, *, given_sparse: bool = False) -> bool:
    """Whether this fitted step's output is a sparse matrix, given whether its input is one."""
    name = type(step).__name__
    if name == "Pipeline":
        for _, each in step.steps:
            given_sparse = hands_on_sparse(each, given_sparse=given_sparse)
        return given_sparse
    if name == "ColumnTransformer":
        return bool(step.sparse_output_)
    if name == "OneHotEncoder":
        return bool(step.sparse_output)
    if name == "KBinsDiscretizer":
        return bool(step.encode == "onehot")
    if name == "FeatureUnion":
        return any(hands_on_sparse(each, given_sparse=given_sparse) for _, each in step.transformer_list)
    if name in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        return True
    return given_sparse and name not in ("PCA", "TruncatedSVD", "OrdinalEncoder", "TargetEncoder")


def missing_value(value: object) -> bool:
    """Whether scikit-learn means missing by `value`: None, NaN or pandas.NA."""
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, (float, np.floating)) and bool(np.isnan(value)))


def _pipeline(graph: Graph, columns: Columns, step: Any) -> Columns:
    for _, each in step.steps:
        columns = transform(graph, columns, each)
    return columns


def _column_transformer(graph: Graph, columns: Columns, step: Any) -> Columns:
    names = list(getattr(step, "feature_names_in_", ()))
    made: Columns = ()
    for _, each, selection in step.transformers_:
        chosen = tuple(columns[index] for index in _positions(selection, names, len(columns)))
        if chosen and not (isinstance(each, str) and each == "drop"):
            made += transform(graph, chosen, each)
    return made


def _positions(selection: Any, names: list[str], width: int) -> list[int]:
    """The positions that a ColumnTransformer's selection names: positions, names, masks, slices of either, or one of them."""
    if isinstance(selection, slice):
        start, stop = (names.index(end) if isinstance(end, str) else end for end in (selection.start, selection.stop))
        if isinstance(selection.stop, str):
            stop += 1
        return list(range(width))[start : stop : selection.step]
    if isinstance(selection, (str, int, np.integer)):
        selection = [selection]
    listed = np.asarray(selection, object).tolist()
    if listed and all(isinstance(each, (bool, np.bool_)) for each in listed):
        return [index for index, chosen in enumerate(listed) if chosen]
    return [names.index(each) if isinstance(each, str) else int(each) % width for each in listed]


def _union(graph: Graph, columns: Columns, step: Any) -> Columns:
    weights: Mapping[str, float] = step.transformer_weights or {}
    made: Columns = ()
    for name, each in step.transformer_list:
        part = transform(graph, columns, each)
        if name in weights and part:
            part = _affine(graph, part, [("Mul", np.full(len(part), weights[name]))])
        made += part
    return made


# Numbers


def _affine(graph: Graph, columns: Columns, steps: Sequence[tuple[str, Array | None]], *, rounds_first: bool = False) -> Columns:
    """Elementwise steps with one number per column, each rounded where the original computes in float32; `rounds_first`: so are the numbers."""
    kind = single(columns)
    tensor = graph.join(columns)
    steps = [(op, values) for op, values in steps if values is not None]
    for at, (op, values) in enumerate(steps):
        numbers = np.asarray(values).astype(np.float32) if kind == "float32" and rounds_first else values
        tensor = graph.node(op, [tensor, graph.constant(numbers)])
        if kind == "float32" and at < len(steps) - 1:
            tensor = graph.rounded(tensor)
    return graph.split(tensor, len(columns), kind) if steps else columns


def _standard_scaler(graph: Graph, columns: Columns, step: Any) -> Columns:
    import sklearn

    steps = [("Sub", step.mean_ if step.with_mean else None), ("Div", step.scale_ if step.with_std else None)]
    rounds_first = tuple(int(part) for part in sklearn.__version__.split(".")[:2]) >= (1, 8)  # scikit-learn#27113
    return _affine(graph, columns, steps, rounds_first=rounds_first)


def _min_max_scaler(graph: Graph, columns: Columns, step: Any) -> Columns:
    return _clipped(graph, _affine(graph, columns, [("Mul", step.scale_), ("Add", step.min_)]), step.clip, step.feature_range)


def _max_abs_scaler(graph: Graph, columns: Columns, step: Any) -> Columns:
    return _clipped(graph, _affine(graph, columns, [("Div", step.scale_)]), getattr(step, "clip", False), (-1.0, 1.0))


def _clipped(graph: Graph, columns: Columns, clip: bool, limits: tuple[float, float]) -> Columns:
    if not clip:
        return columns
    tensor = graph.node("Clip", [graph.join(columns), graph.constant(float(limits[0])), graph.constant(float(limits[1]))])
    return graph.split(tensor, len(columns), single(columns))


def _robust_scaler(graph: Graph, columns: Columns, step: Any) -> Columns:
    return _affine(graph, columns, [("Sub", step.center_ if step.with_centering else None), ("Div", step.scale_ if step.with_scaling else None)])


def _binarizer(graph: Graph, columns: Columns, step: Any) -> Columns:
    above = graph.node("Greater", [graph.join(columns), graph.constant([float(step.threshold)])])
    return graph.split(graph.node("Cast", [above], to=TensorProto.DOUBLE), len(columns), "float64")


def _normalizer(graph: Graph, columns: Columns, step: Any) -> Columns:
    tensor = graph.join(columns)
    axes = graph.constant([1], "int64")
    if step.norm == "max":
        size = graph.node("ReduceMax", [graph.node("Abs", [tensor]), axes], keepdims=1)
    else:
        size = graph.node({"l1": "ReduceL1", "l2": "ReduceL2"}[step.norm], [tensor, axes], keepdims=1)
    is_zero = graph.node("Equal", [size, graph.constant([0.0])])
    size = graph.node("Where", [is_zero, graph.constant([1.0]), size])
    return graph.split(graph.node("Div", [tensor, size]), len(columns), single(columns))


def _polynomial(graph: Graph, columns: Columns, step: Any) -> Columns:
    """Each output is a product of at most `degree` columns; a column of ones fills the shorter products."""
    powers = step.powers_
    tensor = graph.join(columns)
    degree = int(powers.sum(axis=1).max(initial=0))
    ones = graph.node(
        "Add",
        [graph.node("Mul", [graph.node("Gather", [tensor, graph.constant([0], "int64")], axis=1), graph.constant([0.0])]), graph.constant([1.0])],
    )
    padded = graph.node("Concat", [tensor, ones], axis=1)
    factors = np.full((len(powers), max(degree, 1)), len(columns))
    for row, power in enumerate(powers):
        chosen = np.repeat(np.arange(len(columns)), power)
        factors[row, : len(chosen)] = chosen
    product = graph.node("Gather", [padded, graph.constant(factors[:, 0], "int64")], axis=1)
    for position in range(1, degree):
        product = graph.node("Mul", [product, graph.node("Gather", [padded, graph.constant(factors[:, position], "int64")], axis=1)])
    return graph.split(product, len(powers), single(columns))


def _pca(graph: Graph, columns: Columns, step: Any) -> Columns:
    matrix = step.components_.T.astype(np.float64)
    tensor = graph.join(columns)
    if getattr(step, "mean_", None) is not None:
        tensor = graph.node("Sub", [tensor, graph.constant(step.mean_)])
    if getattr(step, "whiten", False):
        matrix = matrix / np.sqrt(step.explained_variance_)
    return graph.split(graph.node("MatMul", [tensor, graph.constant(matrix)]), matrix.shape[1], single(columns))


def _bins(graph: Graph, columns: Columns, step: Any) -> Columns:
    """The number of inner edges at or below the value, then one column per bin unless `encode` is ordinal."""
    made: Columns = ()
    for column, edges in zip(columns, step.bin_edges_, strict=True):
        inner = np.asarray(edges[1:-1], np.float64)
        at_or_above = graph.node("GreaterOrEqual", [graph.join((column,)), graph.constant(inner)])
        counted = graph.node("Cast", [at_or_above], to=TensorProto.DOUBLE)
        count = graph.node("ReduceSum", [counted, graph.constant([1], "int64")], keepdims=1)
        width = 1
        if step.encode != "ordinal":
            width = len(edges) - 1
            count = graph.node("Cast", [graph.node("Equal", [count, graph.constant(np.arange(width))])], to=TensorProto.DOUBLE)
        made += graph.split(count, width, "float64")
    return made


_FUNCTIONS = {
    "log": "Log",
    "exp": "Exp",
    "sqrt": "Sqrt",
    "absolute": "Abs",
    "reciprocal": "Reciprocal",
    "negative": "Neg",
    "sin": "Sin",
    "cos": "Cos",
}


def _function(graph: Graph, columns: Columns, step: Any) -> Columns:
    name = getattr(step.func, "__name__", "") if isinstance(step.func, np.ufunc) else ""
    if step.func is None or getattr(getattr(step.func, "func", None), "__name__", "") == "check_array":
        return columns  # the latter stands before the numbers of histogram boosting with categories
    if step.kw_args or not name:
        raise ValueError(
            f"FunctionTransformer({getattr(step.func, '__name__', 'function')}) runs Python; a numpy function such as numpy.log1p converts"
        )
    tensor = graph.join(columns)
    if name in _FUNCTIONS:
        tensor = graph.node(_FUNCTIONS[name], [tensor])
    elif name == "log1p":
        tensor = graph.node("Log", [graph.node("Add", [tensor, graph.constant([1.0])])])
    elif name == "expm1":
        tensor = graph.node("Sub", [graph.node("Exp", [tensor]), graph.constant([1.0])])
    elif name == "square":
        tensor = graph.node("Mul", [tensor, tensor])
    else:
        raise ValueError(f"FunctionTransformer(numpy.{name}) has no converter")
    return graph.split(tensor, len(columns), single(columns))


# Missing values


def _marker(value: object, column: Column) -> str:
    """How text of the original's data travels in this column; missing of the other kind than the column's never comes."""
    if not missing_value(value):
        return str(value)
    return MISSING if (value is None) == (column.absent == "none") else _NEVER


_NEVER = "\ufdd2"


def _is_missing(graph: Graph, columns: Columns, value: object) -> str:
    """[N, len(columns)] bool: where columns, all of numbers or all of text, hold `value`, which may mean missing."""
    tensor = graph.join(columns)
    if columns[0].kind == "string":
        return graph.node("Equal", [tensor, graph.constant([_marker(value, column) for column in columns], "string")])
    if missing_value(value):
        return graph.node("IsNaN", [tensor])
    return graph.node("Equal", [tensor, graph.constant([float(value)])])  # type: ignore[arg-type]


def _imputer(graph: Graph, columns: Columns, step: Any) -> Columns:
    """Missing becomes the statistic; a column without one is dropped, and the indicator's columns follow."""
    kept = [index for index, value in enumerate(step.statistics_) if step.strategy == "constant" or not missing_value(value)]
    made: dict[int, Column] = {}
    for is_text in (False, True):
        chosen = [index for index in kept if (columns[index].kind == "string") == is_text]
        if not chosen:
            continue
        part = tuple(columns[index] for index in chosen)
        tensor = graph.join(part)
        statistics = step.statistics_[chosen]
        fill = graph.constant([str(value) for value in statistics], "string") if is_text else graph.constant(statistics.astype(np.float64))
        filled = graph.node("Where", [_is_missing(graph, part, step.missing_values), fill, tensor])
        split = graph.split(filled, len(part), "string" if is_text else single(part))
        made |= {index: replace(column, absent=columns[index].absent) for index, column in zip(chosen, split, strict=True)}
    result = tuple(made[index] for index in kept)
    return result + _indicator(graph, columns, step.indicator_) if step.add_indicator else result


def _indicator(graph: Graph, columns: Columns, step: Any) -> Columns:
    made: Columns = ()
    for index in step.features_:
        found = _is_missing(graph, (columns[index],), step.missing_values)
        made += graph.split(graph.node("Cast", [found], to=TensorProto.DOUBLE), 1, "float64")
    return made


# Categories


def _coded(graph: Graph, columns: Columns, vocabulary: Mapping[str, int]) -> str:
    """[N, len(columns)] int64: each string's number in the vocabulary, -1 for any other. One look-up for all columns."""
    return graph.node(
        "LabelEncoder",
        [graph.join(columns)],
        domain="ai.onnx.ml",
        keys_strings=list(vocabulary),
        values_int64s=list(vocabulary.values()),
        default_int64=-1,
    )


def _matches(graph: Graph, columns: Columns, categories: Sequence[Sequence[object]]) -> dict[tuple[int, int], Column]:
    """For each (column, category) the column of truth: does the row hold it. All texts in one comparison, all numbers in another."""
    made: dict[tuple[int, int], Column] = {}
    for is_text in (True, False):
        chosen = [index for index, column in enumerate(columns) if (column.kind == "string") == is_text]
        places = [(index, at) for index in chosen for at in range(len(categories[index]))]
        if not places:
            continue
        part = tuple(columns[index] for index in chosen)
        source = graph.constant([chosen.index(index) for index, _ in places], "int64")
        if is_text:
            texts = [_marker(categories[index][at], columns[index]) for index, at in places]
            vocabulary = {text: number for number, text in enumerate(dict.fromkeys(texts))}
            spread = graph.node("Gather", [_coded(graph, part, vocabulary), source], axis=1)
            wanted = graph.constant([vocabulary[text] for text in texts], "int64")
            found = graph.node("Equal", [spread, wanted])
        else:
            spread = graph.node("Gather", [graph.join(part), source], axis=1)
            values = [categories[index][at] for index, at in places]
            found = graph.node("Equal", [spread, graph.constant([np.nan if missing_value(value) else float(value) for value in values])])  # type: ignore[arg-type]
            if any(missing_value(value) for value in values):
                either = graph.node("And", [graph.node("IsNaN", [spread]), graph.constant([missing_value(value) for value in values], "bool")])
                found = graph.node("Or", [found, either])
        found = graph.node("Cast", [found], to=TensorProto.DOUBLE)
        made |= zip(places, graph.split(found, len(places), "float64"), strict=True)
    return made


def _one_hot(graph: Graph, columns: Columns, step: Any) -> Columns:
    """One column per category that is neither dropped nor rare; then, where there are rare ones, one for all of them together."""
    categories = step.categories_
    matches = _matches(graph, columns, categories)
    made: Columns = ()
    for index, values in enumerate(categories):
        grouping = _grouping(step, index)
        infrequent = set() if grouping is None else set(np.flatnonzero(grouping == grouping.max()).tolist())
        each = [matches[index, at] for at in range(len(values)) if at not in infrequent]
        if infrequent:
            rare_ones = [matches[index, at] for at in sorted(infrequent)]
            each.append(_rare(graph, each, rare_ones, with_unknown=step.handle_unknown in ("infrequent_if_exist", "warn")))
        drop = step.drop_idx_[index] if step.drop_idx_ is not None else None
        if drop is not None:
            each.pop(int(drop) if grouping is None else int(grouping[int(drop)]))
        made += tuple(each)
    return made


def _grouping(step: Any, index: int) -> Array | None:
    """scikit-learn's own map of a column's categories to positions, the rare ones together at the end; None where none is rare.

    It may end before the categories do: an encoder to ordinals leaves a missing one, the last, out of it.
    """
    found = step._default_to_infrequent_mappings[index] if getattr(step, "_infrequent_enabled", False) else None
    return None if found is None else np.asarray(found)


def _rare(graph: Graph, frequent: list[Column], rare: list[Column], *, with_unknown: bool) -> Column:
    """Truth of: one of the rare categories, or, `with_unknown`, none of the frequent ones."""
    axis = graph.constant([1], "int64")
    if not with_unknown:
        tensor = graph.node("ReduceSum", [graph.join(tuple(rare)), axis], keepdims=1)
    elif frequent:
        tensor = graph.node("Sub", [graph.constant([1.0]), graph.node("ReduceSum", [graph.join(tuple(frequent)), axis], keepdims=1)])
    else:
        raise ValueError("OneHotEncoder has no frequent category in a column")
    return graph.split(tensor, 1, "float64")[0]


def encoded(graph: Graph, columns: Columns, tables: Sequence[Mapping[object, Array]], defaults: Sequence[Array]) -> str:
    """[N, Σ widths]: for each column the row of numbers that its table holds for the value, or its default. Keys may mean missing.

    Texts are looked up by number, numbers by comparison; used for every encoder that is not one column per category.
    """
    parts = []
    for column, table, default in zip(columns, tables, defaults, strict=True):
        keys = list(table)
        rows = [*(np.asarray(table[key], np.float64).reshape(-1) for key in keys), np.asarray(default, np.float64).reshape(-1)]
        values = graph.constant(np.stack(rows))
        if column.kind == "string":
            vocabulary = {_marker(key, column): number for number, key in enumerate(keys)}
            code = _coded(graph, (column,), vocabulary) if vocabulary else None
        else:
            code = _numbered(graph, column, keys)
        if code is None:
            raise ValueError("an encoder without categories has no converter")
        flat = graph.node("Reshape", [code, graph.constant([-1], "int64")])
        parts.append(graph.node("Gather", [values, flat], axis=0))  # -1, unknown, is the last row: the default
    return parts[0] if len(parts) == 1 else graph.node("Concat", parts, axis=1)


def _numbered(graph: Graph, column: Column, keys: Sequence[object]) -> str | None:
    if not keys:
        return None
    tensor = graph.join((column,))
    found = graph.node("Equal", [tensor, graph.constant([np.nan if missing_value(key) else float(key) for key in keys])])  # type: ignore[arg-type]
    if any(missing_value(key) for key in keys):
        either = graph.node("And", [graph.node("IsNaN", [tensor]), graph.constant([missing_value(key) for key in keys], "bool")])
        found = graph.node("Or", [found, either])
    weights = graph.constant(np.arange(1, len(keys) + 1), "float64")
    number = graph.node(
        "ReduceSum", [graph.node("Mul", [graph.node("Cast", [found], to=TensorProto.DOUBLE), weights]), graph.constant([1], "int64")], keepdims=1
    )
    return graph.node("Cast", [graph.node("Sub", [number, graph.constant([1.0])])], to=TensorProto.INT64)


def _ordinal(graph: Graph, columns: Columns, step: Any) -> Columns:
    """The category's number; missing and unknown have numbers of their own."""
    tables, defaults = [], []
    for index, values in enumerate(step.categories_):
        grouping = _grouping(step, index)
        table: dict[object, Array] = {}
        for at, value in enumerate(values):
            code = float(at) if grouping is None or at >= len(grouping) else float(grouping[at])
            is_nan = missing_value(value) and value is not None  # None is a category like others to scikit-learn
            table[value] = np.array([float(step.encoded_missing_value) if is_nan else code])
        unknown = step.unknown_value if step.handle_unknown == "use_encoded_value" else np.nan
        tables.append(table)
        defaults.append(np.array([float(unknown)]))
    kind = "float32" if np.dtype(step.dtype) == np.float32 else "float64"
    return graph.split(encoded(graph, columns, tables, defaults), len(columns), kind)  # type: ignore[arg-type]


def _target_encoder(graph: Graph, columns: Columns, step: Any) -> Columns:
    """The category's mean answer; for several classes one column per class, all classes of a column together."""
    per_column = len(step.encodings_) // len(step.categories_)
    means = np.asarray(step.target_mean_, np.float64).reshape(-1)
    tables, defaults = [], []
    for index, values in enumerate(step.categories_):
        stacked = np.stack(step.encodings_[index * per_column : (index + 1) * per_column], axis=1)
        tables.append({value: stacked[at] for at, value in enumerate(values)})
        defaults.append(means if per_column > 1 else means[:1])
    return graph.split(encoded(graph, columns, tables, defaults), len(columns) * per_column, "float64")


TRANSFORMERS: dict[str, Transform] = {
    "Binarizer": _binarizer,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _union,
    "FunctionTransformer": _function,
    "KBinsDiscretizer": _bins,
    "MaxAbsScaler": _max_abs_scaler,
    "MinMaxScaler": _min_max_scaler,
    "MissingIndicator": _indicator,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "PCA": _pca,
    "Pipeline": _pipeline,
    "PolynomialFeatures": _polynomial,
    "RobustScaler": _robust_scaler,
    "SimpleImputer": _imputer,
    "StandardScaler": _standard_scaler,
    "TargetEncoder": _target_encoder,
    "TruncatedSVD": _pca,
}
