"""Converts a model over data as packaging does, for tests of conversion."""

from __future__ import annotations

from typing import Any, NamedTuple

from modelyard.runtime.convert import Conversion, convert
from modelyard.runtime.data import Table, read
from modelyard.runtime.onnx import Onnx
from modelyard.runtime.originals import adapt
from modelyard.runtime.originals.base import Original
from modelyard.runtime.schema import infer
from modelyard.types import Schema, Tolerance


class Converted(NamedTuple):
    """A conversion with what it was made from."""

    conversion: Conversion
    original: Original
    table: Table
    schema: Schema
    runtime: Onnx


def converted(model: Any, data: Any, *, tolerance: Tolerance | None = None) -> Converted:
    """The conversion of `model`, proved on all rows of `data`. Raises Unconvertible."""
    table, _ = read(data)
    original = adapt(model)
    schema = learnt(original, table)
    conversion = convert(original, table, schema, tolerance=tolerance or Tolerance())
    return Converted(conversion, original, table, schema, Onnx(conversion.model, conversion.binding, schema))


def learnt(original: Original, table: Table) -> Schema:
    """The schema of `original` over `table`."""

    def accepts(changed: Table) -> bool:
        try:
            original.predict(changed)
        except Exception:  # noqa: BLE001 - a model's code may raise anything
            return False
        return True

    return infer(table, outputs=original.outputs, task=original.task, classes=original.classes, tags={}, accepts=accepts)
