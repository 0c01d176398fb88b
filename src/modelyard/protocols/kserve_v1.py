"""KServe V1: `:predict` with `instances` (rows as lists in schema order, or records by name), answered by `predictions`, one per row.

Hides the envelope, and that records of a frame are read by a decoder typed for the schema where it takes them. It must not know HTTP. `inputs` and
`signature_name` belong to TensorFlow Serving's forms of the same route (`v1_predict` knows both) and are refused. Source: KServe's V1 protocol page.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.errors import MalformedPayload, ModelyardError
from modelyard.protocols.base import JSON_LINES, accept_media, encode_json, read_json, refusal
from modelyard.protocols.records import Records, main_output, per_row
from modelyard.protocols.rows import RecordReader
from modelyard.types import InferenceRequest, InferenceResponse, Schema


class Message(msgspec.Struct):
    """The envelope; what belongs to other forms is read so that it can be refused."""

    instances: list[Any] | None = None
    inputs: Any = None
    signature_name: Any = None
    parameters: dict[str, Any] | None = None


class KServeV1:
    """The codec of `/v1/models/{name}:predict`."""

    def __init__(self, name: str, schema: Schema) -> None:  # noqa: ARG002 - the port's
        self.records = Records(schema)
        self.main = main_output(schema)
        self.decoder = msgspec.json.Decoder(Message)
        self.fast = RecordReader.of(self.records)

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        accept_media(media, "application/json")
        if json_bytes is not None:
            raise MalformedPayload("binary tensors travel by the V2 route", field="inference-header-content-length", rule="form")
        if self.fast is not None and (request := self.fast.read(body)) is not None:
            return request
        message = read_json(self.decoder, body)
        if message.inputs is not None or message.signature_name is not None or message.instances is None:
            raise MalformedPayload(
                'send {"instances": [row, …]}: lists in the order of the inputs, or records by name', field="instances", rule="required"
            )
        if message.parameters:
            raise MalformedPayload("the model takes no parameters", field="parameters", rule="unknown")
        return self.records.from_instances(message.instances, "instances")

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`: label or prediction of each row, in order."""
        return JSON_LINES, b'{"predictions":' + encode_json(per_row(response.outputs[self.main])) + b"}"

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`."""
        return refusal(error)
