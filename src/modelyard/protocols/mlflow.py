"""MLflow's scoring protocol, and what else comes to `/invocations`.

Hides the four JSON forms (`dataframe_split`, `dataframe_records`, `instances`, `inputs`), CSV with a header line, and the plain forms
that SageMaker's clients send (a JSON list of rows or records, JSON Lines). It must not know HTTP. Source: MLflow's
"Local inference spec" (scoring server), SageMaker's common inference formats.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import msgspec

from modelyard.errors import MalformedPayload, ModelyardError, SchemaMismatch
from modelyard.protocols.base import JSON_LINES, accept_media, encode_json, read_json
from modelyard.protocols.records import Records, main_output, per_row
from modelyard.protocols.tensors import Column
from modelyard.types import InferenceRequest, InferenceResponse, Schema

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
MEDIA = ("application/json", "text/csv", "application/jsonlines")


class Split(msgspec.Struct):
    """A frame as `DataFrame.to_dict("split")` writes it; the index means nothing here."""

    data: list[list[Any]]
    columns: list[str] | None = None
    index: list[Any] | None = None


class Message(msgspec.Struct):
    """The envelope: exactly one of the four forms."""

    dataframe_split: Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[Any] | None = None
    inputs: list[Any] | dict[str, Any] | None = None
    params: dict[str, Any] | None = None


class MLflow:
    """The codec of `/invocations`."""

    def __init__(self, name: str, schema: Schema) -> None:  # noqa: ARG002 - the port's
        self.records = Records(schema)
        self.main = main_output(schema)
        self.decoder = msgspec.json.Decoder(Message | list[Any])
        self.line_decoder = msgspec.json.Decoder(Any)

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        accept_media(media, *MEDIA)
        if json_bytes is not None:
            raise MalformedPayload("binary tensors travel by the V2 route", field="inference-header-content-length", rule="form")
        if media == "text/csv":
            return self._from_csv(body)
        if media == "application/jsonlines":
            lines = [line for line in bytes(body).split(b"\n") if line.strip()]
            return self.records.from_instances([read_json(self.line_decoder, line) for line in lines], "body")
        message = read_json(self.decoder, body)
        if isinstance(message, list):
            return self.records.from_instances(message, "body")
        return self._from_message(message)

    def _from_message(self, message: Message) -> InferenceRequest:
        given = [form for form in FORMS if getattr(message, form) is not None]
        if len(given) != 1:
            raise MalformedPayload(f"send exactly one of {', '.join(FORMS)}", field="body", rule="form")
        if message.params:
            raise MalformedPayload("the model takes no params", field="params", rule="unknown")
        if message.dataframe_split is not None:
            return self._from_split(message.dataframe_split)
        if isinstance(message.inputs, dict):
            return self.records.from_columns(message.inputs, "inputs")
        return self.records.from_instances(getattr(message, given[0]), given[0])

    def _from_split(self, split: Split) -> InferenceRequest:
        rows, names = split.data, split.columns
        if not rows:
            raise SchemaMismatch("dataframe_split has at least one row", field="dataframe_split", rule="size")
        if names is None or not self.records.is_table:
            return self.records.from_lists(rows, "dataframe_split")
        return self._named(names, rows, "dataframe_split")

    def _named(self, names: list[str], rows: list[list[Any]], field: str) -> InferenceRequest:
        if len(set(names)) != len(names):
            raise SchemaMismatch(f"a column of {field} stands twice", field=field, rule="unique")
        if any(len(row) != len(names) for row in rows):
            raise SchemaMismatch(f"each row of {field} has a value for every column", field=field, rule="size")
        return self.records.from_columns(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), field)

    def _from_csv(self, body: bytes | bytearray) -> InferenceRequest:
        try:
            lines = list(csv.reader(io.StringIO(bytes(body).decode("utf-8-sig")), strict=True))
        except UnicodeDecodeError as error:
            raise MalformedPayload("the CSV is not UTF-8", field="body", rule="utf8") from error
        except csv.Error as error:
            raise MalformedPayload("the CSV is malformed", field="body", rule="csv") from error
        lines = [line for line in lines if line]
        if len(lines) < 2:
            raise SchemaMismatch("the CSV has a line of column names and at least one row", field="body", rule="size")
        names, rows = lines[0], lines[1:]
        if not self.records.is_table:
            column = self.records.order[0]
            if len(self.records.order) != 1 or column.rank != 2:
                raise SchemaMismatch("the model's inputs are no table; send JSON", field="body", rule="form")
            return InferenceRequest({column.name: column.from_rows([[_parse(column, text) for text in row] for row in rows])}, len(rows))
        return self._named(names, [self._parse_row(names, row) for row in rows], "body")

    def _parse_row(self, names: list[str], row: list[str]) -> list[Any]:
        if len(row) != len(names):
            raise SchemaMismatch("each row of the CSV has a value for every column", field="body", rule="size")
        columns = self.records.columns
        return [_parse(columns[name], text) if name in columns else text for name, text in zip(names, row, strict=True)]

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`: label or prediction of each row, in order."""
        return JSON_LINES, b'{"predictions":' + encode_json(per_row(response.outputs[self.main])) + b"}"

    def refuse(self, error: ModelyardError) -> bytes:
        """See `base.Codec`: MLflow's form; code, field and rule stand beside it."""
        report: dict[str, Any] = {"error_code": "BAD_REQUEST" if isinstance(error, _CALLERS) else error.code.upper(), "message": error.message}
        report |= {key: value for key, value in (("field", error.field), ("rule", error.rule)) if value is not None}
        return encode_json(report)


_CALLERS = (MalformedPayload, SchemaMismatch)
_NUMBER = re.compile(r"\s*([+-]?(\d{1,400}(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?|[+-]?(?i:nan|inf(inity)?))\s*", re.ASCII)
_FLAGS = {"true": True, "false": False}


def _parse(column: Column, text: str) -> Any:
    """A CSV cell under its column: an empty one is missing. What is no number stays text, and is refused as such later."""
    if text == "":
        return None
    if column.kind == "s":
        return text
    if column.kind == "b":
        return _FLAGS.get(text.lower(), text)
    if not _NUMBER.fullmatch(text):
        return text
    try:
        return int(text)
    except ValueError:
        return float(text)
