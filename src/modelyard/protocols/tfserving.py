"""TensorFlow Serving over REST: predict in row and column form, classify, regress, and the signature that its metadata tells.

Hides three envelopes, `{"b64": …}` in the place of any value, and the bare tokens NaN and Infinity, which this wire reads and writes though JSON has
none. It must not know HTTP. Source: TensorFlow Serving's RESTful API page, `util/json_tensor.cc`.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.errors import InvalidInput, MalformedPayload, ModelyardError, SchemaMismatch
from modelyard.protocols.base import JSON_LINES, accept_media, encode_json, no_binary, read_json_or_tokens, refusal
from modelyard.protocols.records import Records, check_rows, per_row
from modelyard.types import InferenceRequest, InferenceResponse, Schema, TensorSpec

if TYPE_CHECKING:
    from modelyard.types import Array

SIGNATURE = "serving_default"
ROW, COLUMN, PLAIN = "row", "column", "plain"
"""How a predict request came, as `parameters["form"]`: PLAIN is the row form without a signature's name, which is KServe's request as well."""

DTYPES = {
    "BOOL": "DT_BOOL", "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32", "UINT64": "DT_UINT64", "FP16": "DT_HALF", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BYTES": "DT_STRING",
}  # fmt: skip
"""TensorFlow's names of the datatypes."""


class Asked(msgspec.Struct):
    """A predict request."""

    signature_name: str | None = None
    instances: list[Any] | None = None
    inputs: Any = None


class Examples(msgspec.Struct):
    """A classify or regress request: examples by feature, and features that all of them share."""

    signature_name: str | None = None
    context: dict[str, Any] | None = None
    examples: list[dict[str, Any]] | None = None


class TFServing:
    """The codec of `/v1/models/{name}:predict`."""

    def __init__(self, name: str, schema: Schema) -> None:  # noqa: ARG002 - the port's
        self.records = Records(schema)
        self.decoder = msgspec.json.Decoder(Asked)
        self.names = tuple(spec.name for spec in schema.outputs)

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        accept_media(media, "application/json")
        no_binary(json_bytes)
        asked = read_json_or_tokens(self.decoder, Asked, body)
        check_signature(asked.signature_name)
        if (asked.instances is None) == (asked.inputs is None):
            raise MalformedPayload("send exactly one of `instances` (rows) and `inputs` (columns)", field="instances", rule="form")
        if asked.instances is not None:
            rows = asked.instances
            request = _retried(body, lambda change: self.records.from_instances(change(rows), "instances"))
            form = PLAIN if asked.signature_name is None else ROW
        else:
            request = _retried(body, lambda change: self._columns(change(asked.inputs)))
            form = COLUMN
        request.parameters = {"form": form}
        return request

    def _columns(self, inputs: Any) -> InferenceRequest:
        order = self.records.order
        if type(inputs) is dict:
            return self.records.from_columns(inputs, "inputs")
        if len(order) != 1:
            raise SchemaMismatch("inputs is an object with a tensor for each input of the model", field="inputs", rule="type")
        return self.records.from_columns({order[0].name: inputs}, "inputs")

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:
        """See `base.Codec`: every output, by name where there are several; in the form in which the request came."""
        names = self.names
        columns = [_values(name, response.outputs[name]) for name in names]
        if (request.parameters or {}).get("form") == COLUMN:
            answer: Any = {"outputs": columns[0] if len(names) == 1 else dict(zip(names, columns, strict=True))}
        elif len(names) == 1:
            answer = {"predictions": columns[0]}
        else:
            answer = {"predictions": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]}
        return JSON_LINES, _write(answer, response)

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`."""
        return refusal(error)


class _OfExamples:
    """What classify and regress share: examples in, results out."""

    def __init__(self, name: str, schema: Schema) -> None:  # noqa: ARG002 - the port's
        self.schema = schema
        self.records = Records(schema)
        self.decoder = msgspec.json.Decoder(Examples)

    def accept(self) -> None:
        """Raise InvalidInput where the model has no such signature."""

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`."""
        accept_media(media, "application/json")
        no_binary(json_bytes)
        self.accept()
        asked = read_json_or_tokens(self.decoder, Examples, body)
        check_signature(asked.signature_name)
        if asked.examples is None:
            raise MalformedPayload('send {"examples": [{feature: value, …}, …]}', field="examples", rule="required")
        if not asked.examples:
            raise SchemaMismatch("examples has at least one example", field="examples", rule="size")
        check_rows(len(asked.examples), "examples")  # before each becomes another object
        context, examples = asked.context or {}, asked.examples
        return _retried(body, lambda change: self._records(change([{**context, **example} for example in examples])))

    def _records(self, examples: list[dict[str, Any]]) -> InferenceRequest:
        # A feature of one value may come bare or as a list of one.
        for column in self.records.order:
            if column.is_scalar:
                for example in examples:
                    value = example.get(column.name)
                    if type(value) is list and len(value) == 1:
                        example[column.name] = value[0]
        return self.records.from_records(examples, "examples")

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`."""
        return refusal(error)


class Classify(_OfExamples):
    """The codec of `/v1/models/{name}:classify`: pairs of class and score for each example."""

    def accept(self) -> None:
        """See `_OfExamples`."""
        if self.schema.task != "classification":
            raise InvalidInput("the model is no classifier; ask :predict or :regress", field="signature_name", rule="task")

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`. A model without probabilities gives its label with score 0, as this wire has it."""
        outputs = response.outputs
        if "probability" in outputs and self.schema.classes is not None:
            labels = [label_of(each) for each in self.schema.classes]
            results = [list(map(list, zip(labels, scores, strict=True))) for scores in outputs["probability"].tolist()]
        else:
            results = [[[label_of(label), 0.0]] for label in per_row(outputs["label"])]
        return JSON_LINES, _write({"results": results}, response)


class Regress(_OfExamples):
    """The codec of `/v1/models/{name}:regress`: one number for each example."""

    def accept(self) -> None:
        """See `_OfExamples`."""
        spec = next((each for each in self.schema.outputs if each.name == "prediction"), None)
        if spec is None or self.schema.task != "regression" or spec.shape not in {(-1,), (-1, 1)}:
            raise InvalidInput("the model gives no single number per row; ask :predict", field="signature_name", rule="task")

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`."""
        return JSON_LINES, _write({"results": per_row(response.outputs["prediction"])}, response)


def metadata(name: str, version: int, schema: Schema) -> dict[str, Any]:
    """What `/v1/models/{name}/metadata` answers: the one signature, with every input and output."""
    signature = {
        "inputs": {spec.name: _tensor_info(spec) for spec in schema.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in schema.outputs},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in spec.shape]
    return {"dtype": DTYPES[spec.datatype], "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": f"{spec.name}:0"}


def check_signature(name: str | None) -> None:
    """Raise InvalidInput for a signature that the model has not: it has one."""
    if name not in {None, "", SIGNATURE}:
        raise InvalidInput(f"no such signature; the model has {SIGNATURE}", field="signature_name", rule="known")


def label_of(label: Any) -> str:
    """A class as this wire's text."""
    return label if isinstance(label, str) else json.dumps(label)


def _values(name: str, array: Array) -> list[Any]:
    """One value per row; outputs whose name ends in `_bytes` are binary by this wire's convention."""
    values = per_row(array)
    return _encoded(values) if name.endswith("_bytes") and array.dtype == object else values


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return {"b64": base64.b64encode(str(value).encode()).decode()}


def _write(answer: Any, response: InferenceResponse) -> bytes:
    """JSON, with the tokens NaN and Infinity where an output holds them."""
    if all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in response.outputs.values()):
        return encode_json(answer)
    return json.dumps(answer).encode()


def _retried(body: bytes | bytearray, ask: Any) -> InferenceRequest:
    """`ask` with values as they stand, and when these do not fit and there may be base64 among them, with it decoded."""
    try:
        return ask(lambda value: value)  # type: ignore[no-any-return]
    except SchemaMismatch:
        if b'"b64"' not in body:
            raise
    try:
        return ask(_decoded)  # type: ignore[no-any-return]
    except RecursionError as error:
        raise MalformedPayload("JSON is nested too deeply", field="body", rule="depth") from error


def _decoded(value: Any) -> Any:
    """`value` with each `{"b64": …}` as the text that it holds. As deep as a decoder of JSON let it be."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or type(value.get("b64")) is not str:
        return {name: _decoded(item) for name, item in value.items()}
    try:
        return base64.b64decode(value["b64"], validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise MalformedPayload("a b64 value is base64 of UTF-8 text", field="b64", rule="base64") from error
