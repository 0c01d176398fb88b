"""MLflow's scoring protocol, and what else comes to `/invocations`.

Hides the four JSON forms (`dataframe_split`, `dataframe_records`, `instances`, `inputs`) and the plain list of rows or records that SageMaker's
clients send; MLflow's own client writes NaN as a bare token. CSV and the other bulk forms have codecs of their own. It must not know HTTP. Source:
MLflow's "Local inference spec" (scoring server), SageMaker's common inference formats.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.errors import MalformedPayload, ModelyardError, SchemaMismatch, UnsupportedMedia
from modelyard.protocols.base import JSON_LINES, TEXT_LINES, accept_media, encode_json, no_binary, read_json_or_tokens
from modelyard.protocols.records import Records, main_output, per_row
from modelyard.types import InferenceRequest, InferenceResponse, Schema

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


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

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        accept_media(media, "application/json", beside="text/csv, application/jsonlines, application/vnd.apache.arrow.stream")
        no_binary(json_bytes)
        message = read_json_or_tokens(self.decoder, Message | list[Any], body)
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
            return self.records.from_split(message.dataframe_split.columns, message.dataframe_split.data, "dataframe_split")
        if isinstance(message.inputs, dict):
            return self.records.from_columns(message.inputs, "inputs")
        return self.records.from_instances(getattr(message, given[0]), given[0])

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`: label or prediction of each row, in order."""
        return JSON_LINES, b'{"predictions":' + encode_json(per_row(response.outputs[self.main])) + b"}"

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`: MLflow's form; code, field and rule stand beside it. A media type that is not read is told in plain text."""
        if isinstance(error, UnsupportedMedia):
            return TEXT_LINES, error.message.encode()
        report: dict[str, Any] = {"error_code": "BAD_REQUEST" if isinstance(error, _CALLERS) else error.code.upper(), "message": error.message}
        report |= {key: value for key, value in (("field", error.field), ("rule", error.rule)) if value is not None}
        return JSON_LINES, encode_json(report)


_CALLERS = (MalformedPayload, SchemaMismatch)
