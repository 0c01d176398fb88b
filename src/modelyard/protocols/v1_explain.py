"""KServe V1 `:explain`: the question of `:predict`, answered by `predictions` and `explanations`, one of each per row.

Hides the envelope and how contributions are named. It must not know how they are found. `parameters` may say what to explain: `class` of a
classifier, `output` and `element` of other models. Source: KServe's V1 protocol page, which leaves the form of an explanation open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from modelyard.errors import MalformedPayload
from modelyard.protocols.base import JSON_LINES, accept_media, encode_json, no_binary, read_json
from modelyard.protocols.kserve_v1 import KServeV1
from modelyard.protocols.records import per_row
from modelyard.types import Explanation, InferenceRequest, InferenceResponse, Schema

HOW_TO_ASK = 'send {"instances": [row, …]}: lists in the order of the inputs, or records by name'


PARAMETERS: dict[str, tuple[type, ...]] = {"class": (str, int, float, bool), "output": (str,), "element": (int,)}
"""What `parameters` may hold, and of which types."""


class Question(msgspec.Struct):
    """The envelope; `inputs` is read so that it can be refused."""

    instances: list[Any] | None = None
    inputs: Any = None
    parameters: dict[str, Any] | None = None


class V1Explain(KServeV1):
    """The codec of `/v1/models/{name}:explain`. What is wanted goes into the request's parameters: `class`, `output`, `element`."""

    def __init__(self, name: str, schema: Schema) -> None:
        super().__init__(name, schema)
        self.question = msgspec.json.Decoder(Question)
        self._sizes = {spec.name: math.prod(spec.shape[1:]) for spec in schema.inputs}
        self._shapes = {spec.name: tuple(spec.shape[1:]) for spec in schema.inputs}

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        accept_media(media, "application/json")
        no_binary(json_bytes)
        message = read_json(self.question, body)
        if message.inputs is not None or message.instances is None:
            raise MalformedPayload(
                'send {"instances": [row, …]}: lists in the order of the inputs, or records by name', field="instances", rule="required"
            )
        request = self.records.from_instances(message.instances, "instances")
        request.parameters = _wanted(message.parameters or {}) or None
        return request

    def encode_explained(self, response: InferenceResponse, explanations: Sequence[Explanation]) -> tuple[bytes, bytes]:
        """Header lines and body of the answer."""
        predictions = per_row(response.outputs[self.main])
        return JSON_LINES, encode_json({"predictions": predictions, "explanations": [self._shown(each) for each in explanations]})

    def _shown(self, explanation: Explanation) -> dict[str, Any]:
        return {
            **explanation.explained,
            "value": explanation.value,
            "base": explanation.base,
            "contributions": self._by_input(explanation.contributions),
            "standard_errors": self._by_input(explanation.standard_errors),
            "method": explanation.method,
            "background_rows": explanation.background_rows,
            "evaluations": explanation.evaluations,
        }

    def _by_input(self, values: Sequence[float]) -> dict[str, Any]:
        """By input's name: a number for a single value, else lists in the shape of a row."""
        shown: dict[str, Any] = {}
        at = 0
        for name, size in self._sizes.items():
            shape = self._shapes[name]
            part = list(values[at : at + size])
            at += size
            shown[name] = part[0] if shape in ((), (1,)) else _nested(part, shape)
        return shown


def _wanted(given: dict[str, Any]) -> dict[str, Any]:
    """The parameters that say something. Raises MalformedPayload, which names none but ours."""
    said = {name: value for name, value in given.items() if value is not None}
    for name, value in said.items():
        if name not in PARAMETERS:
            raise MalformedPayload(f"parameters are {', '.join(PARAMETERS)}", field="parameters", rule="unknown")
        if type(value) not in PARAMETERS[name]:
            raise MalformedPayload(f"the parameter {name!r} has another type", field=name, rule="type")
    return said


def _nested(values: list[float], shape: tuple[int, ...]) -> list[Any]:
    if len(shape) == 1:
        return values
    step = math.prod(shape[1:])
    return [_nested(values[at : at + step], shape[1:]) for at in range(0, len(values), step)]
