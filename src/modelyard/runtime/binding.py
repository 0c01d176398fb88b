"""How the schema's named arrays become the inputs of a graph, as data that travels in the bundle.

Hides that a graph has its own input names and likes few, wide inputs: all numeric columns of a frame are stacked into one.
It must not know the library that runs the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array, Schema

MISSING = "\ufdd0"
"""Stands for a missing string inside a graph, whose strings cannot be null: a code point that Unicode reserves for such use."""

ElementType = Literal["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "string"]


class GraphInput(msgspec.Struct, frozen=True, kw_only=True):
    """One graph input: the schema inputs `inputs`, side by side along the last axis in this order, as `dtype`."""

    graph: str
    inputs: tuple[str, ...]
    dtype: ElementType


class GraphOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The schema's output `name` is the graph's output `graph`."""

    name: str
    graph: str


class Binding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The bundle's `runtime.json`: which runtime opens the model, and how schema and graph meet.

    More rows than `max_batch_rows` are answered in several runs, to bound memory.
    """

    kind: Literal["onnx"]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[GraphOutput, ...]
    max_batch_rows: int | None = None


Feeder = Callable[[Mapping[str, "Array"]], "Array"]


def feeder(given: GraphInput, schema: Schema) -> Feeder:
    """The function that builds this graph input from schema-named arrays; what can be decided is decided here, once."""
    names = given.inputs
    if given.dtype == "string":
        nullable = any(spec.is_nullable for spec in schema.inputs if spec.name in names)
        return _strings(names, nullable=nullable)
    dtype = np.dtype(given.dtype)
    if len(names) == 1:
        name = names[0]

        def one(inputs: Mapping[str, Array]) -> Array:
            array = inputs[name]
            return array if array.dtype == dtype else array.astype(dtype)

        return one

    def stacked(inputs: Mapping[str, Array]) -> Array:
        return np.concatenate([inputs[name] for name in names], axis=-1, dtype=dtype, casting="unsafe")

    return stacked


def _strings(names: tuple[str, ...], *, nullable: bool) -> Feeder:
    def strings(inputs: Mapping[str, Array]) -> Array:
        array = inputs[names[0]] if len(names) == 1 else np.concatenate([inputs[name] for name in names], axis=-1)
        if nullable:
            absent = array == np.array(None)
            if absent.any():
                array = np.where(absent, MISSING, array)
        return array

    return strings
