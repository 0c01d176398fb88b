"""Rows, records and columns of JSON values as the inputs of a schema: what KServe V1, MLflow and plain lists share.

Hides that a record goes by name and a list in schema order, and that every input has as many rows. It must not know any
wire's envelope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import PayloadTooLarge, SchemaMismatch
from modelyard.protocols.tensors import DATATYPES, EXACT_INTEGERS, NUMPY, WIDENED_BYTES, Column
from modelyard.types import InferenceRequest, Schema

if TYPE_CHECKING:
    from modelyard.types import Array


ROWS = 65_536
"""Rows of a body that comes row by row: each costs a microsecond or more, while nothing else on the worker is answered."""


class Records:
    """The inputs of one schema, to be filled from rows; immutable."""

    def __init__(self, schema: Schema) -> None:
        self.columns = {spec.name: Column(spec) for spec in schema.inputs}
        self.order = tuple(self.columns.values())
        self.is_table = schema.layout == "frame" and all(column.is_scalar for column in self.order)
        self.is_numeric = self.is_table and all(column.kind in "if" for column in self.order)

    def from_instances(self, instances: list[Any], field: str) -> InferenceRequest:
        """A list of rows (lists in schema order, or bare values of a single input) or of records (objects by name)."""
        if not instances:
            raise SchemaMismatch(f"{field} has at least one row", field=field, rule="size")
        check_rows(len(instances), field)
        kinds = set(map(type, instances))
        if kinds == {dict}:
            return self.from_records(instances, field)
        if dict in kinds:
            raise SchemaMismatch(f"{field} holds either lists or records, not both", field=field, rule="type")
        if len(self.order) == 1 and not (self.is_table and kinds == {list}):
            column = self.order[0]
            return InferenceRequest({column.name: column.from_rows(instances)}, len(instances))
        if kinds != {list}:
            raise SchemaMismatch(f"{field} holds rows as lists, or records by name", field=field, rule="type")
        return self.from_lists(instances, field)

    def from_lists(self, rows: list[list[Any]], field: str) -> InferenceRequest:
        """Lists with one value per input, in schema order."""
        if len(self.order) == 1 and not self.is_table:
            return InferenceRequest({self.order[0].name: self.order[0].from_rows(rows)}, len(rows))
        width = len(self.order)
        if any(len(row) != width for row in rows):
            raise SchemaMismatch(f"each row of {field} has {width} values, in the order of the model's inputs", field=field, rule="size")
        columns = zip(self.order, zip(*rows, strict=True), strict=True)
        return InferenceRequest({column.name: column.from_rows(list(values)) for column, values in columns}, len(rows))

    def from_records(self, records: list[dict[str, Any]], field: str) -> InferenceRequest:
        """Objects with a value for every input, by name."""
        check_rows(len(records), field)
        width = len(self.order)
        inputs: dict[str, Array] = {}
        for column in self.order:
            try:
                values = [record[column.name] for record in records]
            except KeyError:
                raise SchemaMismatch(f"input '{column.name}' is missing", field=column.name, rule="required") from None
            inputs[column.name] = column.from_rows(values)
        if any(len(record) != width for record in records):
            raise self.unknown(field)
        return InferenceRequest(inputs, len(records))

    def from_columns(self, given: dict[str, Any], field: str) -> InferenceRequest:
        """An object with a list per input, by name, all as long."""
        inputs: dict[str, Array] = {}
        rows = -1
        for column in self.order:
            if column.name not in given:
                raise SchemaMismatch(f"input '{column.name}' is missing", field=column.name, rule="required")
            values = given[column.name]
            if type(values) is not list or not values:
                column.refuse("is a list with one value per row", "type")
            if rows not in {-1, len(values)}:
                column.refuse("has as many rows as the other inputs", "rows")
            rows = len(values)
            inputs[column.name] = column.from_rows(values)
        if len(given) != len(self.order):
            raise self.unknown(field)
        return InferenceRequest(inputs, rows)

    def from_split(self, names: list[str] | None, rows: list[list[Any]], field: str) -> InferenceRequest:
        """Lists under column names, as `DataFrame.to_dict("split")` has them; in schema order where no names are given."""
        if not rows:
            raise SchemaMismatch(f"{field} has at least one row", field=field, rule="size")
        check_rows(len(rows), field)
        if names is None or not self.is_table:
            return self.from_lists(rows, field)
        if len(set(names)) != len(names):
            raise SchemaMismatch(f"a column of {field} stands twice", field=field, rule="unique")
        if any(len(row) != len(names) for row in rows):
            raise SchemaMismatch(f"each row of {field} has a value for every column", field=field, rule="size")
        return self.from_columns(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), field)

    def from_matrix(self, matrix: Array) -> InferenceRequest:
        """The columns of an all-numeric frame given as one array [n, k] of numbers, in schema order."""
        if 8 * matrix.size > 2 * matrix.nbytes + WIDENED_BYTES:
            raise PayloadTooLarge("the values take too much as the model's datatypes; send fewer rows at a time", field="X", rule="widened")
        inputs: dict[str, Array] = {}
        for index, column in enumerate(self.order):
            values = matrix[:, index : index + 1]
            if column.kind == "i":
                values = column.from_array(values, DATATYPES[matrix.dtype], is_binary=True)
            else:
                with np.errstate(over="ignore"):
                    values = values.astype(column.dtype)
            inputs[column.name] = values.reshape(len(matrix), *column.shape[1:])
        return InferenceRequest(inputs, len(matrix))

    def unknown(self, field: str) -> SchemaMismatch:
        """The refusal of an input that the schema has not; it names those that it has, never the caller's."""
        names = ", ".join(list(self.columns)[:20]) + (", …" if len(self.columns) > 20 else "")
        return SchemaMismatch(f"{field} has an input that the model has not; it has: {names}", field=field, rule="unknown_input")


def check_rows(rows: int, field: str) -> None:
    """Raise PayloadTooLarge for more rows than are taken apart one by one."""
    if rows > ROWS:
        raise PayloadTooLarge(f"{field} has at most {ROWS:,} rows; send columns, binary tensors or an Arrow stream", field=field, rule="rows")


def matrix_of(values: list[Any], rows: int, width: int) -> Array:
    """Flat JSON numbers as float64 [rows, width]; null is NaN. Raises SchemaMismatch."""
    kinds = set(map(type, values))
    if kinds - {int, float, type(None)}:
        raise SchemaMismatch("input 'X': expects number values", field="X", rule="type")
    if int in kinds and any(type(value) is int and abs(value) > EXACT_INTEGERS for value in values):
        raise SchemaMismatch("input 'X': expects integers that a float holds exactly; send the inputs by name", field="X", rule="range")
    return np.array(values, NUMPY["FP64"]).reshape(rows, width)


def main_output(schema: Schema) -> str:
    """The output that a wire with one answer per row gives: `label`, `prediction`, else the model's first."""
    names = [spec.name for spec in schema.outputs]
    return next((name for name in ("label", "prediction") if name in names), names[0])


def per_row(array: Array) -> list[Any]:
    """One JSON value per row; a trailing dimension of one is dropped, NaN becomes null when encoded."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    rows: list[Any] = array.tolist()
    return rows
