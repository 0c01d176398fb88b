"""TensorFlow Serving over gRPC: Predict, Classify and Regress of PredictionService, and the signature that its metadata tells.

Hides TensorProto (values raw, or in the field of their type, the last one repeated) and tf.Example. Answers carry values in the field of their type,
as TensorFlow Serving's own do. It must not know HTTP/2. Source: tensorflow_serving/apis, tensorflow/core/framework/tensor.proto.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import MalformedPayload, ModelyardError, SchemaMismatch
from modelyard.protocols import wire
from modelyard.protocols.messages import kind, parse, pool
from modelyard.protocols.oip_v2 import MATRIX
from modelyard.protocols.records import Records, check_rows
from modelyard.protocols.tensors import Column, from_field, from_raw, kind_of, to_raw
from modelyard.protocols.tfserving import DTYPES, SIGNATURE, Classify, Regress, check_signature, label_of
from modelyard.types import InferenceRequest, InferenceResponse, Schema, TensorSpec

if TYPE_CHECKING:
    from modelyard.types import Array

REPEATED = 1 << 16
"""Elements that the last value of a tensor may be repeated to fill."""

_FIELDS = {
    "BOOL": "bool_val", "INT8": "int_val", "INT16": "int_val", "INT32": "int_val", "INT64": "int64_val", "UINT8": "int_val", "UINT16": "int_val",
    "UINT32": "uint32_val", "UINT64": "uint64_val", "FP16": "half_val", "FP32": "float_val", "FP64": "double_val", "BYTES": "string_val",
}  # fmt: skip


@cache
def _numbers() -> dict[str, int]:
    """The number of each datatype in tensorflow.DataType."""
    values = pool().FindEnumTypeByName("tensorflow.DataType").values_by_name
    return {name: values[dtype].number for name, dtype in DTYPES.items()}


@cache
def _datatypes() -> dict[int, str]:
    return {number: name for name, number in _numbers().items()}


@cache
def _fields() -> dict[str, int]:
    """The number of each field of tensorflow.TensorProto."""
    return {name: field.number for name, field in kind("tensorflow.TensorProto").DESCRIPTOR.fields_by_name.items()}


def address(body: bytes | bytearray) -> tuple[str, int | None, str]:
    """The model's name, version and label in the model_spec of any request of this wire. Raises MalformedPayload."""
    name = label = b""
    version: int | None = None
    for number, sort, _, begin, end in wire.listed(body, 0, len(body)):
        if number == 1 and sort == wire.BYTES:
            for inner, _, _, at, stop in wire.listed(body, begin, end):
                if inner == 1:
                    name = bytes(body[at:stop])
                elif inner == 2:
                    version, label = parse(kind("google.protobuf.Int64Value"), bytes(body[at:stop])).value, b""
                elif inner == 4:
                    version, label = None, bytes(body[at:stop])
    try:
        return name.decode(), version, label.decode()
    except UnicodeDecodeError as error:
        raise MalformedPayload("a name is not UTF-8", field="model_spec", rule="utf8") from error


class TFServingGrpc:
    """The codec of `PredictionService/Predict`."""

    def __init__(self, name: str, schema: Schema) -> None:
        self.name = name
        self.records = Records(schema)
        self.columns = self.records.columns
        self.outputs = {spec.name: spec for spec in schema.outputs}

    def decode(self, body: bytes | bytearray, media: str = "", json_bytes: int | None = None) -> InferenceRequest:  # noqa: ARG002 - the port's
        """See `base.Codec`; `body` is a PredictRequest."""
        message = parse(kind("tensorflow.serving.PredictRequest"), body)
        check_signature(message.model_spec.signature_name)
        inputs = message.inputs
        if len(inputs) == 1 and MATRIX in inputs and self.records.is_numeric and MATRIX not in self.columns:
            request = self._matrix(inputs[MATRIX])
        else:
            request = self._by_name(inputs)
        asked = dict.fromkeys(message.output_filter)
        if not asked.keys() <= self.outputs.keys():
            names = ", ".join(self.outputs)
            raise SchemaMismatch(f"an output is asked for that the model has not; it has: {names}", field="output_filter", rule="unknown_output")
        request.outputs = tuple(asked)
        return request

    def _by_name(self, inputs: Any) -> InferenceRequest:
        given: dict[str, Array] = {}
        rows = -1
        for name, column in self.columns.items():
            if name not in inputs:
                raise SchemaMismatch(f"input '{name}' is missing", field=name, rule="required")
            values = given[name] = _values(column, inputs[name])
            if rows not in {-1, len(values)}:
                column.refuse("has as many rows as the other inputs", "rows")
            rows = len(values)
        if len(inputs) != len(given):
            raise self.records.unknown("inputs")
        return InferenceRequest(given, rows)

    def _matrix(self, tensor: Any) -> InferenceRequest:
        """An all-numeric frame that comes whole."""
        width = len(self.columns)
        datatype: Any = _datatypes().get(tensor.dtype, "?")
        if kind_of(datatype) not in {"f", "i"}:
            raise SchemaMismatch("input 'X': its dtype is DT_HALF, DT_FLOAT, DT_DOUBLE or an integer", field=MATRIX, rule="datatype")
        return self.records.from_matrix(_values(Column(TensorSpec(name=MATRIX, datatype=datatype, shape=(-1, width))), tensor))

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:
        """See `base.Codec`: no header lines, and a PredictResponse."""
        parts = []
        for name in request.outputs or self.outputs:
            tensor = _tensor(response.outputs[name], self.outputs[name].datatype)
            parts.append(wire.tagged(1, wire.tagged(1, name.encode()) + wire.tagged(2, tensor)))
        return b"", b"".join(parts) + _spec(response)

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`: the text, which travels beside the status."""
        return b"", error.message.encode()


class ClassifyGrpc(Classify):
    """The codec of `PredictionService/Classify`."""

    def decode(self, body: bytes | bytearray, media: str = "", json_bytes: int | None = None) -> InferenceRequest:  # noqa: ARG002 - the port's
        """See `base.Codec`; `body` is a ClassificationRequest."""
        self.accept()
        return self._records(_examples(parse(kind("tensorflow.serving.ClassificationRequest"), body)))

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`: no header lines, and a ClassificationResponse."""
        outputs = response.outputs
        if "probability" in outputs and self.schema.classes is not None:
            labels = [label_of(each) for each in self.schema.classes]
            found = [[{"label": label, "score": score} for label, score in zip(labels, row, strict=True)] for row in outputs["probability"].tolist()]
        else:
            found = [[{"label": label_of(label), "score": 0.0}] for label in outputs["label"].ravel().tolist()]
        result = kind("tensorflow.serving.ClassificationResult")(classifications=[{"classes": each} for each in found])
        return b"", wire.tagged(1, result.SerializeToString()) + _spec(response)

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`."""
        return b"", error.message.encode()


class RegressGrpc(Regress):
    """The codec of `PredictionService/Regress`."""

    def decode(self, body: bytes | bytearray, media: str = "", json_bytes: int | None = None) -> InferenceRequest:  # noqa: ARG002 - the port's
        """See `base.Codec`; `body` is a RegressionRequest."""
        self.accept()
        return self._records(_examples(parse(kind("tensorflow.serving.RegressionRequest"), body)))

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:  # noqa: ARG002 - the port's
        """See `base.Codec`: no header lines, and a RegressionResponse."""
        values = response.outputs["prediction"].ravel().tolist()
        result = kind("tensorflow.serving.RegressionResult")(regressions=[{"value": value} for value in values])
        return b"", wire.tagged(1, result.SerializeToString()) + _spec(response)

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`."""
        return b"", error.message.encode()


def signature(schema: Schema) -> bytes:
    """The SignatureDefMap of a model: the one signature, with every input and output."""
    inputs, outputs = ({spec.name: _info(spec) for spec in specs} for specs in (schema.inputs, schema.outputs))
    definition = kind("tensorflow.SignatureDef")(inputs=inputs, outputs=outputs, method_name="tensorflow/serving/predict")
    data: bytes = kind("tensorflow.serving.SignatureDefMap")(signature_def={SIGNATURE: definition}).SerializeToString()
    return data


def _info(spec: TensorSpec) -> Any:
    shape = {"dim": [{"size": size} for size in spec.shape]}
    return kind("tensorflow.TensorInfo")(name=f"{spec.name}:0", dtype=_numbers()[spec.datatype], tensor_shape=shape)


def _spec(response: InferenceResponse) -> bytes:
    """The model_spec of an answer: name, version, signature."""
    version = wire.tagged(2, wire.integer(1, response.version))
    return wire.tagged(2, wire.tagged(1, response.name.encode()) + version + wire.tagged(3, SIGNATURE.encode()))


def _values(column: Column, tensor: Any) -> Array:
    """The values of one TensorProto."""
    datatype = _datatypes().get(tensor.dtype)
    if datatype is None:
        column.refuse("its dtype is not one that is read here", "datatype")
    column.accept(datatype, is_binary=True)
    if tensor.tensor_shape.unknown_rank:
        column.refuse("its shape is known", "shape")
    shape = column.fit([dim.size for dim in tensor.tensor_shape.dim])
    if tensor.tensor_content:
        if datatype == "BYTES":
            column.refuse("strings travel in string_val", "form")
        return from_raw(column, memoryview(tensor.tensor_content), datatype, shape)
    values, size = getattr(tensor, _FIELDS[datatype]), prod(shape)
    if not values or len(values) > size or (len(values) < size and size > REPEATED):
        column.refuse("has not as many values as its shape says", "size")
    given = from_field(column, values, datatype)
    array = given if len(given) == size else np.concatenate([given, np.full(size - len(given), given[-1], given.dtype)])
    array = array.reshape(shape)
    return array if datatype == "BYTES" else column.from_array(array, datatype, is_binary=True)


def _tensor(array: Array, datatype: str) -> bytes:
    """A TensorProto with the values in the field of their type."""
    dims = b"".join(wire.tagged(2, wire.integer(1, size)) for size in array.shape)
    number = _fields()[_FIELDS[datatype]]
    if datatype in {"FP32", "FP64", "BOOL"}:
        values = wire.tagged(number, to_raw(array, datatype))
    elif datatype == "BYTES":
        values = b"".join(wire.tagged(number, ("" if value is None else str(value)).encode()) for value in array.ravel().tolist())
    else:
        bits = array.view(np.uint16) if datatype == "FP16" else array
        values = wire.tagged(number, b"".join(map(wire.varint, bits.ravel().tolist())))
    return wire.integer(1, _numbers()[datatype]) + wire.tagged(2, dims) + values


def _examples(message: Any) -> list[dict[str, Any]]:
    """The examples of a classify or regress request as records; a feature without values is missing."""
    check_signature(message.model_spec.signature_name)
    which = message.input.WhichOneof("kind")
    if which is None:
        raise MalformedPayload("input has an example_list", field="input", rule="required")
    given = getattr(message.input, which)
    context = _record(given.context) if which == "example_list_with_context" else {}
    if not given.examples:
        raise SchemaMismatch("examples has at least one example", field="examples", rule="size")
    check_rows(len(given.examples), "examples")  # before each becomes an object
    return [{**context, **_record(example)} for example in given.examples]


def _record(example: Any) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, feature in example.features.feature.items():
        which = feature.WhichOneof("kind")
        values = list(getattr(feature, which).value) if which is not None else []
        if which == "bytes_list":
            try:
                values = [value.decode() for value in values]
            except UnicodeDecodeError as error:
                raise MalformedPayload("a feature's bytes are not UTF-8", field="features", rule="utf8") from error
        record[name] = values or None
    return record
