"""Where KServe V1 and TensorFlow Serving meet: `POST /v1/models/{name}:predict`.

Hides which of the two a body is for. `instances` alone is KServe's and answers its `predictions` of the main output; a `signature_name` or `inputs`
is TensorFlow Serving's, and so are its tokens (NaN, Infinity) and `{"b64": …}` wherever they stand. What KServe's clients send is read once, by
KServe's codec; only what that refuses is looked at again. It must not know HTTP.
"""

from __future__ import annotations

from modelyard.errors import InvalidInput, ModelyardError, UnsupportedMedia
from modelyard.protocols.base import refusal
from modelyard.protocols.kserve_v1 import KServeV1
from modelyard.protocols.tfserving import PLAIN, TFServing
from modelyard.types import InferenceRequest, InferenceResponse, Schema

_SIGNS = (b'"signature_name"', b'"inputs"', b'"b64"', b"NaN", b"Infinity")


class V1Predict:
    """The codec of the shared route."""

    def __init__(self, name: str, schema: Schema) -> None:
        self.kserve = KServeV1(name, schema)
        self.tfserving = TFServing(name, schema)

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        try:
            return self.kserve.decode(body, media, json_bytes)
        except UnsupportedMedia:
            raise
        except InvalidInput:
            if not any(sign in body for sign in _SIGNS):
                raise
        return self.tfserving.decode(body, media, json_bytes)

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:
        """See `base.Codec`."""
        if request.parameters is None or request.parameters["form"] == PLAIN:
            return self.kserve.encode(request, response)
        return self.tfserving.encode(request, response)

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`: both wires refuse alike."""
        return refusal(error)
