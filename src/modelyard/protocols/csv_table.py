"""CSV with a line of column names, in and out.

Hides quoting, the byte order mark and how a cell's text becomes a value under its column: an empty cell is missing. Rows are read one by one, so that
the text of a large table never stands in memory beside its values. It must not know HTTP nor on which wire's route it is. Source: RFC 4180.
"""

from __future__ import annotations

import csv
import io
from itertools import islice
from typing import TYPE_CHECKING, Any

from modelyard.errors import MalformedPayload, ModelyardError, PayloadTooLarge, SchemaMismatch
from modelyard.protocols.base import accept_media, no_binary, refusal
from modelyard.protocols.records import ROWS, Records, check_rows
from modelyard.types import InferenceRequest, InferenceResponse, Schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelyard.types import Array

BLOCK_ROWS = 1024
CELLS = 1_000_000
"""Cells of one body; a third of a microsecond or more each."""
_LINES = b"content-type: text/csv; charset=utf-8\r\n"


class CsvTable:
    """The codec of `text/csv`."""

    def __init__(self, name: str, schema: Schema) -> None:  # noqa: ARG002 - the port's
        self.records = Records(schema)

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`: columns by name for a frame, in the file's order for one array."""
        accept_media(media, "text/csv")
        no_binary(json_bytes)
        try:
            reader = csv.reader(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline=""), strict=True)
            names = next((line for line in islice(reader, ROWS) if line), None)
            if names is None:
                raise _too_few()
            return self._frame(names, reader) if self.records.is_table else self._array(reader)
        except UnicodeDecodeError as error:
            raise MalformedPayload("the CSV is not UTF-8", field="body", rule="utf8") from error
        except csv.Error as error:
            raise MalformedPayload("the CSV is malformed", field="body", rule="csv") from error

    def _frame(self, names: list[str], reader: Any) -> InferenceRequest:
        if len(set(names)) != len(names):
            raise SchemaMismatch("a column of the CSV stands twice", field="body", rule="unique")
        columns = [self.records.columns.get(name) for name in names]
        values: list[list[Any]] = [[] for _ in names]
        for block in _blocks(reader):
            if any(len(row) != len(names) for row in block):
                raise SchemaMismatch("each row of the CSV has a value for every column", field="body", rule="size")
            for into, column, texts in zip(values, columns, zip(*block, strict=True), strict=True):
                into.extend(texts if column is None else column.parse_all(texts))
        if not values[0]:
            raise _too_few()
        return self.records.from_columns(dict(zip(names, values, strict=True)), "body")

    def _array(self, reader: Any) -> InferenceRequest:
        column = self.records.order[0]
        if len(self.records.order) != 1 or column.rank != 2:
            raise SchemaMismatch("the model's inputs are no table; send JSON", field="body", rule="form")
        rows = [column.parse_all(row) for block in _blocks(reader) for row in block]
        if not rows:
            raise _too_few()
        return InferenceRequest({column.name: column.from_rows(rows)}, len(rows))

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`: a column per output, or per element of one that has several (`probability_0`, …); a missing value is empty."""
        columns = flat(response.outputs)
        lines = _Lines()
        writer = csv.writer(lines)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        return _LINES, "".join(lines.written).encode()

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`: CSV has no form for it, so JSON."""
        return refusal(error)


def _blocks(reader: Any) -> Iterator[list[list[str]]]:
    """The rows by the thousand, without empty lines, which count all the same. Raises PayloadTooLarge when they are too many, in rows or in cells."""
    rows = cells = 0
    while lines := list(islice(reader, BLOCK_ROWS)):
        rows += len(lines)
        check_rows(rows, "body")
        block = [row for row in lines if row]
        cells += sum(map(len, block))
        if cells > CELLS:
            raise PayloadTooLarge(f"a CSV has at most {CELLS:,} cells; send an Arrow stream", field="body", rule="cells")
        if block:
            yield block


class _Lines:
    """Rows as they are written, ended by a line feed alone. The writer must think of a carriage return too, else it leaves one in a text unquoted."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, row: str) -> None:
        self.written.append(row.removesuffix("\r\n") + "\n")


def flat(outputs: Mapping[str, Array]) -> dict[str, list[Any]]:
    """Outputs as columns of cells."""
    columns: dict[str, list[Any]] = {}
    for name, array in outputs.items():
        wide = array.reshape(len(array), -1)
        if wide.shape[1] == 1:
            columns[name] = _cells(wide[:, 0])
        else:
            columns |= {f"{name}_{element}": _cells(wide[:, element]) for element in range(wide.shape[1])}
    return columns


def _cells(array: Array) -> list[Any]:
    if array.dtype.kind == "b":
        return ["true" if value else "false" for value in array.tolist()]
    if array.dtype.kind == "f":
        return ["" if value != value else value for value in array.tolist()]  # noqa: PLR0124  only NaN differs from itself
    return array.tolist()  # type: ignore[no-any-return]


def _too_few() -> SchemaMismatch:
    return SchemaMismatch("the CSV has a line of column names and at least one row", field="body", rule="size")
