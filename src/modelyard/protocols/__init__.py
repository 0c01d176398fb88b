"""Pure wire codecs: bytes of one protocol to and from the one internal form of a question and an answer.

Each member hides one wire and knows no other; none touches a socket, a clock or the environment. `base.Codec` is what they
have in common, `tensors` and `records` are what JSON values mean under a schema on every wire.
"""

from __future__ import annotations

from importlib import import_module

from modelyard.protocols.base import Codec
from modelyard.types import Schema

CODECS = {
    "oip_v2": "modelyard.protocols.oip_v2:OipV2",
    "kserve_v1": "modelyard.protocols.kserve_v1:KServeV1",
    "mlflow": "modelyard.protocols.mlflow:MLflow",
}


def bind(name: str, schema: Schema) -> dict[str, Codec]:
    """Every codec, bound to the deployment `name` and its schema."""
    codecs: dict[str, Codec] = {}
    for wire, place in CODECS.items():
        module, _, kind = place.partition(":")
        codecs[wire] = getattr(import_module(module), kind)(name, schema)
    return codecs
