"""Azure Machine Learning's `/score`: rows in, a JSON list of answers out, as its scoring scripts have it.

Hides the two envelopes that its samples use, `{"data": rows}` and `{"input_data": rows or split frame}`, and the row in the query of a GET. It must
not know HTTP. Sources: Azure's "How to deploy to online endpoints" and the readme of azureml-inference-server-http.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from modelyard.errors import InvalidInput, MalformedPayload, ModelyardError, SchemaMismatch
from modelyard.protocols.base import JSON_LINES, accept_media, encode_json, no_binary, read_json
from modelyard.protocols.records import Records, main_output, per_row
from modelyard.types import InferenceRequest, InferenceResponse, Schema

QUERY_FIELDS = 10_000
_FAILED = b"x-ms-run-function-failed: True\r\n"


class Split(msgspec.Struct):
    """A frame as MLflow models take it here; the index means nothing."""

    data: list[list[Any]]
    columns: list[str] | None = None
    index: list[Any] | None = None


class Message(msgspec.Struct):
    """The envelope: one of the two."""

    data: list[Any] | None = None
    input_data: Split | list[Any] | None = None
    params: dict[str, Any] | None = None


class AzureML:
    """The codec of `POST /score`."""

    def __init__(self, name: str, schema: Schema) -> None:  # noqa: ARG002 - the port's
        self.records = Records(schema)
        self.main = main_output(schema)
        self.decoder = msgspec.json.Decoder(Message)

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        accept_media(media, "application/json", beside="application/vnd.apache.arrow.stream, text/csv, application/jsonlines")
        no_binary(json_bytes)
        message = read_json(self.decoder, body)
        if (message.data is None) == (message.input_data is None):
            raise MalformedPayload('send {"data": [row, …]} or {"input_data": …}', field="data", rule="form")
        if message.params:
            raise MalformedPayload("the model takes no params", field="params", rule="unknown")
        if isinstance(message.input_data, Split):
            return self.records.from_split(message.input_data.columns, message.input_data.data, "input_data")
        field, rows = ("data", message.data) if message.input_data is None else ("input_data", message.input_data)
        return self.records.from_instances(rows or [], field)

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`: label or prediction of each row, in order."""
        return JSON_LINES, encode_json(per_row(response.outputs[self.main]))

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`. What is not the caller's fault says, in this platform's header, that the run failed."""
        report = {"message": error.message, "code": error.code}
        report |= {key: value for key, value in (("field", error.field), ("rule", error.rule)) if value is not None}
        is_ours = not isinstance(error, InvalidInput) and not error.retryable and error.code in {"internal", "model_failed"}
        return (JSON_LINES + _FAILED if is_ours else JSON_LINES), encode_json(report)


class AzureQuery(AzureML):
    """The codec of `GET /score`: one row, in the query."""

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:  # noqa: ARG002 - the port's
        """See `base.Codec`: `name=value` for each input; the values of one array are separated by commas."""
        try:
            pairs = parse_qsl(bytes(body).decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS)
        except UnicodeDecodeError as error:
            raise MalformedPayload("the query is not UTF-8", field="query", rule="utf8") from error
        except ValueError as error:
            raise MalformedPayload(f"the query has at most {QUERY_FIELDS:,} fields", field="query", rule="size") from error
        if not pairs:
            raise SchemaMismatch("the query has a value for each input of the model", field="query", rule="required")
        given = dict(pairs)
        if len(given) != len(pairs):
            raise MalformedPayload("a field of the query stands twice", field="query", rule="unique")
        values: dict[str, Any] = {}
        for name, text in given.items():
            column = self.records.columns.get(name)
            if column is None:
                raise self.records.unknown("query")
            values[name] = [column.parse(text)] if column.is_scalar else [[column.parse(item) for item in text.split(",")]]
        return self.records.from_columns(values, "query")
