"""Open Inference Protocol V2 over REST: the `infer` request and response, JSON and with binary tensors.

Hides the wire's form, the order of its parts and which of two readings of the JSON is used: a decoder typed for the schema, which takes
what well-behaved clients send in one pass, and a general one, which also takes nested data and nulls and says what is
wrong. It must not know HTTP. Sources: Open Inference Protocol (REST), Triton's binary tensor data extension.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from struct import Struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.errors import MalformedPayload, ModelyardError, SchemaMismatch
from modelyard.protocols.base import JSON_LINES, accept_media, check_strings, encode_json, read_json, refusal
from modelyard.protocols.records import Records, matrix_of
from modelyard.protocols.tensors import NUMPY, Column, from_raw, kind_of, to_raw
from modelyard.types import InferenceRequest, InferenceResponse, Schema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelyard.types import Array

MATRIX = "X"
"""The one input by which an all-numeric frame may come whole."""
MEDIA = ("application/json", "application/octet-stream", "application/vnd.inference-request")
ID_LIMIT = 256


class Tensor(msgspec.Struct):
    """One input as it is sent; data flat or nested, or absent where its bytes follow the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Asked(msgspec.Struct):
    """One output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class Message(msgspec.Struct):
    """The whole request, general form."""

    inputs: list[Tensor]
    id: str = ""
    parameters: dict[str, Any] | None = None
    outputs: list[Asked] | None = None


def _typed(element: Any) -> type[msgspec.Struct]:
    """The same message for flat data of one element type: what a numeric model's clients send, read without a Python object too many."""
    tensor: Any = msgspec.defstruct("Tensor", [("name", str), ("shape", list[int]), ("datatype", str), ("data", list[element])])
    rest = [("id", str, ""), ("parameters", dict[str, Any] | None, None), ("outputs", list[Asked] | None, None)]
    return msgspec.defstruct("Message", [("inputs", list[tensor]), *rest])


# One for all models: their code and types stay in the core's caches when many models are asked in turn.
_GENERAL = msgspec.json.Decoder(Message)
_FLOATS: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_typed(float))


class OipV2:
    """The codec of `/v2/models/{name}[/versions/{v}]/infer`."""

    def __init__(self, name: str, schema: Schema) -> None:
        self.schema = schema
        self.records = Records(schema)
        self.columns = self.records.columns
        self.only = self.records.order[0] if len(self.records.order) == 1 else None
        self.general = _GENERAL
        only_floats = all(column.spec.datatype in _CODES for column in self.records.order)
        self.fast = _FLOATS if only_floats else None
        self.outputs = {spec.name: spec for spec in schema.outputs}
        self.head = b'{"model_name":' + encode_json(name) + b',"model_version":"'
        self.prefixes = {
            spec.name: b'{"name":' + encode_json(spec.name) + b',"datatype":"' + _in_json(spec.datatype).encode() + b'","shape":['
            for spec in schema.outputs
        }
        # The shape of one row, which is most answers, is part of a constant.
        self.one_row = {
            spec.name: self.prefixes[spec.name] + b",".join(b"%d" % size for size in (1, *spec.shape[1:])) + b'],"data":' for spec in schema.outputs
        }

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """See `base.Codec`. Flat and nested data are both read; tensors may stand in any order."""
        if media != "application/json":
            accept_media(media, *MEDIA, beside="application/vnd.apache.arrow.stream, text/csv, application/jsonlines")
        if json_bytes is not None:
            return self._decode_binary(body, json_bytes)
        if self.fast is not None:
            try:
                message: Any = self.fast.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return self._decode_general(read_json(self.general, body))
            return self._decode_floats(message)
        return self._decode_general(read_json(self.general, body))

    def _decode_floats(self, message: Any) -> InferenceRequest:
        only, tensors = self.only, message.inputs
        if only is not None and len(tensors) == 1 and tensors[0].name == only.name:
            tensor = tensors[0]
            request = InferenceRequest({only.name: _floats(only, tensor)}, tensor.shape[0])
        elif self._is_matrix(tensors):
            request = self._matrix(tensors[0])
        else:
            request = self._by_name(tensors, _floats)
        if message.id or message.outputs or message.parameters:
            self._complete(request, message)
        return request

    def _decode_general(self, message: Message) -> InferenceRequest:
        tensors = message.inputs
        request = self._matrix(tensors[0]) if self._is_matrix(tensors) else self._by_name(tensors, _read_tensor)
        self._complete(request, message)
        return request

    def _decode_binary(self, body: bytes | bytearray, json_bytes: int) -> InferenceRequest:
        if json_bytes == 0:
            return self._decode_raw(body)
        field = "inference-header-content-length"
        if not 0 < json_bytes <= len(body):
            raise MalformedPayload("Inference-Header-Content-Length is the length of the JSON part", field=field, rule="size")
        view = memoryview(body)
        message = read_json(self.general, view[:json_bytes])
        parts = _Parts(view[json_bytes:])
        tensors = message.inputs
        if self._is_matrix(tensors) and tensors[0].data is None:
            request = self.records.from_matrix(parts.read(self._matrix_column(tensors[0]), tensors[0]))
        else:
            request = self._matrix(tensors[0]) if self._is_matrix(tensors) else self._by_name(tensors, parts.read)
        if parts.at != len(parts.raw):
            raise MalformedPayload("there are bytes behind the JSON that no tensor claims", field=field, rule="size")
        self._complete(request, message)
        return request

    def _decode_raw(self, body: bytes | bytearray) -> InferenceRequest:
        """A body that is nothing but the only input's bytes: its open dimension follows from their number; a BYTES input is one text, all of it."""
        column = self.only
        if column is None:
            raise SchemaMismatch("a raw request is for a model of one input; send JSON before the tensors", field="inputs", rule="raw")
        sizes = list(column.shape)
        if column.width < 0:
            sizes[0] = 1  # then another dimension is the open one
        if sizes.count(-1) > 1 or (column.kind == "s" and column.width not in {1, -1}):
            column.refuse("a raw request is for an input with one open dimension, or one text", "raw")
        if column.kind == "s":
            values = from_raw(column, memoryview(len(body).to_bytes(4, "little") + body), "BYTES", (1,) * len(sizes))
        else:
            datatype = column.spec.datatype
            known = NUMPY[datatype].itemsize * prod(size for size in sizes if size >= 0)
            if known == 0 or not body or len(body) % known:
                column.refuse("its bytes are not as many as shape and datatype say", "size")
            if -1 in sizes:
                sizes[sizes.index(-1)] = len(body) // known
            values = from_raw(column, memoryview(body), datatype, column.fit(sizes))
        request = InferenceRequest({column.name: values}, len(values))
        request.parameters = {f"binary:{name}": True for name in self.outputs}
        return request

    def _is_matrix(self, tensors: list[Any]) -> bool:
        return len(tensors) == 1 and tensors[0].name == MATRIX and self.records.is_numeric and (MATRIX not in self.columns or self.only is None)

    def _matrix_column(self, tensor: Any) -> Column:
        """The frame as one input, which `tensor` fits. Raises SchemaMismatch."""
        width = len(self.columns)
        shape = tensor.shape
        if len(shape) != 2 or shape[0] < 1 or shape[1] != width:
            raise SchemaMismatch(f"input 'X': its shape is [-1, {width}], one column per input of the model", field=MATRIX, rule="shape")
        if kind_of(tensor.datatype) not in {"f", "i"} or (tensor.datatype == "FP16" and tensor.data is not None):
            known = "FP32, FP64 or an integer, or FP16 as binary data (binary_data_size)"
            raise SchemaMismatch(f"input 'X': its datatype is {known}", field=MATRIX, rule="datatype")
        return Column(TensorSpec(name=MATRIX, datatype=tensor.datatype, shape=(-1, width)))

    def _matrix(self, tensor: Any) -> InferenceRequest:
        self._matrix_column(tensor)
        width, shape = len(self.columns), tensor.shape
        data = tensor.data
        if data and type(data[0]) is list:
            if len(data) != shape[0] or any(type(row) is not list or len(row) != width for row in data):
                raise SchemaMismatch("input 'X': its values are not nested as its shape says", field=MATRIX, rule="shape")
            data = [value for row in data for value in row]
        if data is None or len(data) != prod(shape):
            raise SchemaMismatch("input 'X': has not as many values as its shape says", field=MATRIX, rule="size")
        _keep_promise(MATRIX, tensor.datatype, data)
        return self.records.from_matrix(matrix_of(data, shape[0], width))

    def _by_name(self, tensors: list[Any], read: Any) -> InferenceRequest:
        columns = self.columns
        given: dict[str, Array] = {}
        rows = -1
        for tensor in tensors:
            column = columns.get(tensor.name)
            if column is None:
                raise self.records.unknown("inputs")
            if column.name in given:
                column.refuse("stands twice", "unique")
            values = given[column.name] = read(column, tensor)
            if rows not in {-1, len(values)}:
                column.refuse("has as many rows as the other inputs", "rows")
            rows = len(values)
        if len(given) != len(columns):
            missing = next(name for name in columns if name not in given)
            raise SchemaMismatch(f"input '{missing}' is missing", field=missing, rule="required")
        return InferenceRequest(given, rows)

    def _complete(self, request: InferenceRequest, message: Any) -> None:
        if len(message.id) > ID_LIMIT:
            raise MalformedPayload(f"an id has at most {ID_LIMIT} characters", field="id", rule="size")
        request.id = message.id
        wants_binary = _flag(message.parameters, "binary_data_output")
        binary: dict[str, bool] = {}
        if message.outputs:
            for asked in message.outputs:
                if asked.name not in self.outputs:
                    names = ", ".join(self.outputs)
                    raise SchemaMismatch(f"an output is asked for that the model has not; it has: {names}", field="outputs", rule="unknown_output")
                binary[asked.name] = wants_binary if (own := _flag(asked.parameters, "binary_data", None)) is None else own
            request.outputs = tuple(binary)
        elif wants_binary:
            binary = dict.fromkeys(self.outputs, True)
        if any(binary.values()):
            request.parameters = {f"binary:{name}": True for name, is_binary in binary.items() if is_binary}

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:
        """See `base.Codec`. Outputs stand in the order asked for, all in the schema's order when none is asked for."""
        if request.parameters is not None:
            return self._encode_binary(request, response)
        rows, arrays = response.rows, response.outputs
        head = self.head + b'%d","id":' % response.version + encode_json(response.id) + b',"outputs":['
        names = request.outputs or self.prefixes
        if rows == 1:
            parts = [self.one_row[name] + encode_json(arrays[name].ravel().tolist()) for name in names]
        else:
            parts = [self._begin(name, arrays[name]) + encode_json(arrays[name].ravel().tolist()) for name in names]
        return JSON_LINES, head + b"},".join(parts) + b"}]}"

    def _begin(self, name: str, array: Array) -> bytes:
        return self.prefixes[name] + b",".join(b"%d" % size for size in array.shape) + b'],"data":'

    def _encode_binary(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:
        parameters = request.parameters or {}
        parts: list[bytes] = []
        outputs: list[dict[str, Any]] = []
        for name in request.outputs or self.outputs:
            values = response.outputs[name]
            entry: dict[str, Any] = {"name": name, "datatype": self.outputs[name].datatype, "shape": values.shape}
            if f"binary:{name}" in parameters:
                parts.append(to_raw(values, self.outputs[name].datatype))
                entry["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                entry["datatype"] = _in_json(entry["datatype"])
                entry["data"] = values.ravel().tolist()
            outputs.append(entry)
        head = self.head + b'%d","id":' % response.version + encode_json(response.id) + b',"outputs":' + encode_json(outputs) + b"}"
        lines = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n" % len(head)
        return lines, b"".join((head, *parts))

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`."""
        return refusal(error)


class _Parts:
    """The raw tensors behind the JSON, taken in the order in which the JSON lists them."""

    def __init__(self, raw: memoryview) -> None:
        self.raw = raw
        self.at = 0
        self.strings = 0

    def read(self, column: Column, tensor: Tensor) -> Array:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            return _read_tensor(column, tensor)
        if tensor.data is not None:
            column.refuse("has either data or binary_data_size", "form")
        if type(size) is not int or size < 0 or self.at + size > len(self.raw):
            column.refuse("its binary_data_size is within the body", "size")
        part = self.raw[self.at : self.at + size]
        self.at += size
        shape = column.fit(tensor.shape)
        if tensor.datatype == "BYTES":
            self.strings += prod(shape)
            check_strings(self.strings)
        return from_raw(column, part, tensor.datatype, shape)


def _in_json(datatype: str) -> str:
    """The datatype by which an output travels as JSON: this wire has no half floats there, and FP32 holds them all."""
    return "FP32" if datatype == "FP16" else datatype


_CODES = {"FP32": "f", "FP64": "d"}


def _floats(column: Column, tensor: Any) -> Array:
    """Flat JSON numbers of a float input: the hot path."""
    shape = tensor.shape
    if tensor.datatype != column.spec.datatype:
        column.accept(tensor.datatype)
        _keep_promise(column.name, tensor.datatype, tensor.data)
    data = tensor.data
    if shape == column.one_row:
        full, count = column.one_row_shape, column.width
    else:
        full = column.fit(shape)
        count = prod(full)
    if count != len(data):
        column.refuse("has not as many values as its shape says", "size")
    # A third of the cost of np.array; what FP32 cannot hold becomes Inf, which the schema check refuses.
    return np.ndarray(full, column.dtype, _packer(_CODES[column.spec.datatype], count)(*data))


@lru_cache(64)
def _packer(code: str, count: int) -> Callable[..., bytes]:
    """Takes `count` numbers to their bytes, in the machine's own order, which alone lets a number that is too large become Inf."""
    return Struct(f"{count}{code}").pack


def _read_tensor(column: Column, tensor: Tensor) -> Array:
    if tensor.data is None:
        column.refuse("has no data", "required")
    column.accept(tensor.datatype)
    shape = column.fit(tensor.shape)
    values = column.from_nested(tensor.data, shape)
    if column.kind == "f" and kind_of(tensor.datatype) == "i":
        _keep_promise(column.name, tensor.datatype, values.ravel().tolist())
    return values


def _keep_promise(name: str, datatype: str, values: list[Any]) -> None:
    """A tensor said to hold integers holds integers."""
    if kind_of(datatype) == "i" and any(type(value) is float and not value.is_integer() for value in values):
        raise SchemaMismatch(f"input '{name}': holds values that are not of the datatype that it names", field=name, rule="datatype")


def _flag(parameters: dict[str, Any] | None, name: str, default: Any = False) -> Any:
    if parameters is None or name not in parameters:
        return default
    if type(parameters[name]) is not bool:
        raise MalformedPayload(f"the parameter {name} is true or false", field=name, rule="type")
    return parameters[name]
