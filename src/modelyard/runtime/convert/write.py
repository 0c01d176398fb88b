"""Writes the whole graph of one original over one table: inputs from the table, outputs by the schema.

Hides how the table's columns reach the model's first step. Apart from `convert`, so that its imports (onnx, treelite, skl2onnx) load only when
something is converted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from modelyard.errors import Unconvertible
from modelyard.runtime.convert.answers import labels
from modelyard.runtime.convert.graph import Graph
from modelyard.runtime.convert.predictors import predict

if TYPE_CHECKING:
    from modelyard.runtime.binding import Binding
    from modelyard.runtime.convert.graph import Absent, Columns, Kind, Mode
    from modelyard.runtime.data import Table
    from modelyard.runtime.originals.base import Original
    from modelyard.types import Array, Scalar, Schema

_ELEMENTS = {"int64": TensorProto.INT64, "float64": TensorProto.DOUBLE, "bool": TensorProto.BOOL, "string": TensorProto.STRING}


def write(original: Original, table: Table, schema: Schema, mode: Mode) -> tuple[bytes, Binding, str]:
    """The model's bytes, its binding, and which stock converters had a part in it. Raises whatever a converter raises, or Unconvertible."""
    graph = Graph(mode)
    answer = predict(graph, _inputs(graph, original, table), original.model)
    outputs: list[tuple[str, str, int, int | None]] = []
    for spec in schema.outputs:
        width = None if len(spec.shape) == 1 else spec.shape[1]
        if spec.name == "label":
            tensor, element = labels(graph, answer, original.classes or ())
            outputs.append((spec.name, tensor, _ELEMENTS[element], None))
            continue
        found = answer.probability if spec.name == "probability" else answer.prediction
        if found is None:
            raise Unconvertible(f"the converter gives no {spec.name}")
        if width is None:
            found = graph.node("Reshape", [found, graph.constant([-1], "int64")])
        outputs.append((spec.name, found, TensorProto.DOUBLE, width))
    model, binding = graph.finish(outputs)
    return model, binding, f", with skl2onnx for {', '.join(sorted(graph.stock))}" if graph.stock else ""


def _inputs(graph: Graph, original: Original, table: Table) -> Columns:
    """The columns that the model's first step sees: the array's, or the frame's in the order in which the model knows them."""
    columns = columns_of(graph, table)
    known = getattr(original.model, "feature_names_in_", None)
    if known is None or table.layout == "array":
        return columns
    by_name = {column.name: column for column in columns}
    absent = [name for name in known if name not in by_name]
    if absent:
        raise Unconvertible(f"the data has no column {absent[0]!r}, which the model was trained with", field=str(absent[0]), rule="exists")
    return tuple(by_name[name] for name in known)


def columns_of(graph: Graph, table: Table) -> Columns:
    """The table's columns as inputs of the graph, in the table's order. Raises Unconvertible for an array of more than two dimensions."""
    if table.layout == "array":
        ((name, array),) = table.columns.items()
        if array.ndim != 2:
            raise Unconvertible(f"the array has {array.ndim} dimensions; scikit-learn's models take rows and columns", field=name, rule="shape")
        return graph.matrix(name, _kind(array), array.shape[1], _absent(table.native.ravel() if array.dtype == object else ()))
    columns = graph.frame((name, _kind(array), _absent(_texts(table, name))) for name, array in table.columns.items())
    return tuple(replace(column, categories=_declared(table.native[column.name])) for column in columns)


def _kind(array: Array) -> Kind:
    if array.dtype == object:
        return "string"
    return "float32" if array.dtype == "float32" else "float64"


def _declared(native: Any) -> tuple[Scalar, ...] | None:
    """The categories of a pandas column, in the order of their codes."""
    categories: Any = getattr(getattr(native, "dtype", None), "categories", None)
    return tuple(categories.tolist()) if hasattr(categories, "tolist") else None


def _texts(table: Table, name: str) -> Iterable[object]:
    """The column as the original is given it, where it is text that may be missing."""
    column = table.columns[name]
    if column.dtype != object or not (column == np.array(None)).any():
        return ()
    native = table.native[name]
    return np.asarray(native.to_numpy() if hasattr(native, "to_numpy") else native, object).ravel().tolist()


def _absent(texts: Iterable[object]) -> Absent:
    """What stands for missing among these: None where any of them is."""
    return "none" if any(text is None for text in texts) else "nan"
