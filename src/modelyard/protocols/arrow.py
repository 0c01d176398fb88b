"""Arrow IPC streams, in and out: a column per input, by name.

Hides how Arrow's types meet a schema: numbers without a copy where the type is the same, the casts of the other wires elsewhere, a null in the
validity bitmap as missing, dictionaries as strings. It must not know HTTP nor on which wire's route it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np

from modelyard.errors import ModelyardError, SchemaMismatch
from modelyard.protocols import arrow_ipc
from modelyard.protocols.arrow_ipc import Read
from modelyard.protocols.base import accept_media, no_binary, refusal
from modelyard.protocols.records import Records
from modelyard.protocols.tensors import DATATYPES, NUMPY, Column
from modelyard.types import InferenceRequest, InferenceResponse, Schema

if TYPE_CHECKING:
    from modelyard.types import Array

MEDIA = "application/vnd.apache.arrow.stream"
MATRIX = "X"
_LINES = b"content-type: application/vnd.apache.arrow.stream\r\n"


class Arrow:
    """The codec of `application/vnd.apache.arrow.stream`."""

    def __init__(self, name: str, schema: Schema) -> None:  # noqa: ARG002 - the port's
        self.records = Records(schema)
        self.datatypes = {spec.name: spec.datatype for spec in schema.outputs}

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`. An all-numeric frame may come as one column `X` of lists; one array as lists, or as numeric columns in order."""
        accept_media(media, MEDIA)
        no_binary(json_bytes)
        columns = arrow_ipc.read(body)
        rows = len(next(iter(columns.values())).values) if columns else 0
        if not rows:
            raise SchemaMismatch("the Arrow stream has at least one row", field="body", rule="size")
        records = self.records
        if records.is_numeric and len(columns) == 1 and MATRIX in columns and MATRIX not in records.columns:
            return self._matrix(columns[MATRIX], rows)
        if len(records.order) == 1 and records.order[0].name not in columns:
            column = records.order[0]
            return InferenceRequest({column.name: _typed(column, _side_by_side(column, columns))}, rows)
        inputs: dict[str, Array] = {}
        for column in records.order:
            given = columns.get(column.name)
            if given is None:
                raise SchemaMismatch(f"input '{column.name}' is missing", field=column.name, rule="required")
            inputs[column.name] = _typed(column, given)
        if len(columns) != len(inputs):
            raise records.unknown("body")
        return InferenceRequest(inputs, rows)

    def _matrix(self, given: Read, rows: int) -> InferenceRequest:
        values = given.values
        if values.shape != (rows, len(self.records.order)) or values.dtype.kind not in "fiu" or given.missing is not None:
            width = len(self.records.order)
            raise SchemaMismatch(f"input 'X': its shape is [-1, {width}], one number per input of the model", field=MATRIX, rule="shape")
        return self.records.from_matrix(values)

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`: a column per output, rows of arrays as fixed-size lists."""
        columns = {name: np.asarray(array, NUMPY[self.datatypes[name]]) for name, array in response.outputs.items()}
        return _LINES, arrow_ipc.write_schema(columns) + arrow_ipc.write_batch(columns)

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`: Arrow has no form for it, so JSON."""
        return refusal(error)


def _typed(column: Column, given: Read) -> Array:
    """A column that was read as what travels inside. Raises SchemaMismatch."""
    values, missing = given.values, given.missing
    if missing is not None and not column.spec.is_nullable:
        column.refuse("null is not allowed", "nullable")
    if values.ndim == 1 and column.rank == 2 and column.shape[1] == 1:
        values = values.reshape(-1, 1)
    shape = column.fit(list(values.shape))
    if column.kind == "s":
        if missing is not None and bool(missing.all()):
            return np.full(shape, None, object)
        if values.dtype != object:
            _refuse_type(column)
        if missing is not None:
            values = values.copy()
            values[missing] = None
        return values
    if missing is not None and bool(missing.all()):
        return np.full(shape, np.nan, column.dtype)
    if values.dtype == object or (values.dtype.kind == "b") != (column.kind == "b"):
        _refuse_type(column)
    if missing is None:
        return values.astype(column.dtype) if column.kind == "b" else column.from_array(values, DATATYPES[values.dtype], is_binary=True)
    absent = missing.reshape((len(missing),) + (1,) * (values.ndim - 1))
    present = np.where(absent, values.dtype.type(0), values)  # what lies under a null is anything
    made = present if column.kind == "b" else column.from_array(present, DATATYPES[values.dtype], is_binary=True)
    return np.where(absent, column.dtype.type(np.nan), made.astype(column.dtype))


def _side_by_side(column: Column, columns: dict[str, Read]) -> Read:
    """Numeric columns as the rows of the one array `column`."""
    if column.rank != 2 or column.kind not in "if":
        raise SchemaMismatch(f"input '{column.name}' is missing", field=column.name, rule="required")
    width = len(columns)
    if column.shape[1] not in {-1, width}:
        column.refuse(f"its shape is {list(column.shape)}: one column per element, or one column of lists", "shape")
    if any(read.values.ndim != 1 or read.values.dtype.kind not in "fiu" or read.missing is not None for read in columns.values()):
        column.refuse("its columns hold numbers, none missing", "type")
    return Read(np.stack([read.values for read in columns.values()], axis=1), None)


def _refuse_type(column: Column) -> NoReturn:
    column.refuse(f"its datatype is {column.spec.datatype}", "datatype")
