"""JSON lines, in and out: a row (a list in schema order) or a record (an object by name) a line; an object with every output a line.

Hides nothing but the separation of lines. It must not know HTTP nor on which wire's route it is. Source: jsonlines.org.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.errors import ModelyardError
from modelyard.protocols.base import accept_media, encode_json, no_binary, read_lines, refusal
from modelyard.protocols.records import Records, per_row
from modelyard.types import InferenceRequest, InferenceResponse, Schema

MEDIA = ("application/jsonlines", "application/x-ndjson")
_LINES = b"content-type: application/jsonlines\r\n"


class JsonLines:
    """The codec of `application/jsonlines` and `application/x-ndjson`."""

    def __init__(self, name: str, schema: Schema) -> None:  # noqa: ARG002 - the port's
        self.records = Records(schema)
        self.decoder = msgspec.json.Decoder(Any)

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        accept_media(media, *MEDIA)
        no_binary(json_bytes)
        return self.records.from_instances(read_lines(self.decoder, body), "body")

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`."""
        names = tuple(response.outputs)
        columns = [per_row(array) for array in response.outputs.values()]
        lines = [encode_json(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]
        return _LINES, b"\n".join([*lines, b""])

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`."""
        return refusal(error)
