"""Open Inference Protocol V2 over gRPC: ModelInferRequest and ModelInferResponse.

Hides the two places where values may stand (`contents`, `raw_input_contents`), and that a client's messages differ in little but their values:
the form of one, once read and checked, is kept, and the next that is equal to it outside the values is not parsed again. Values of fixed size are
taken where they lie. It must not know HTTP/2. Sources: Open Inference Protocol (gRPC), Triton's and KServe's clients.
"""

from __future__ import annotations

from functools import cache
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import MalformedPayload, ModelyardError, SchemaMismatch
from modelyard.protocols import wire
from modelyard.protocols.messages import kind, parse
from modelyard.protocols.oip_v2 import ID_LIMIT, MATRIX
from modelyard.protocols.records import Records
from modelyard.protocols.tensors import NUMPY, Column, from_field, from_raw, kind_of, to_raw
from modelyard.types import InferenceRequest, InferenceResponse, Schema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard.types import Array

REQUEST, CONTENTS = "inference.ModelInferRequest", "inference.InferTensorContents"
RAW = "raw"
"""Set in a request's parameters where the answer's values travel raw as the request's did."""

_NAME, _VERSION, _INPUTS, _RAW_INPUTS = 1, 2, 5, 7
_CONTENTS = 5
_FIELDS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
Place = tuple[int, int, bool]
"""Where values lie in a message, and whether raw."""

FORMS = 64
FORM_BYTES = 8192
FEW = 16


def address(body: bytes | bytearray) -> tuple[str, str]:
    """The model's name and version that a ModelInferRequest is for. Raises MalformedPayload.

    Every known client writes them first; a message of another order is parsed. `decode` holds that nothing behind says otherwise.
    """
    try:
        if body[0] == 0x0A and (end := 2 + body[1]) <= min(0x81, len(body)):
            name = body[2:end].decode()
            if len(body) > end + 1 and body[end] == 0x12 and body[end + 1] < 0x80:
                return name, body[end + 2 : end + 2 + body[end + 1]].decode()
            if len(body) <= end or body[end] > 0x12:
                return name, ""
    except (IndexError, UnicodeDecodeError):
        pass  # the parser says what it is
    message = parse(kind(REQUEST), body)
    return message.model_name, message.model_version


class _Leaf:
    """Where the values of one input lie in a message, and what they are."""

    __slots__ = ("begin", "column", "datatype", "dtype", "end", "is_plain", "shape")

    def __init__(self, column: Column, datatype: str, shape: tuple[int, ...], begin: int, end: int) -> None:
        self.column = column
        self.datatype = datatype
        self.shape = shape
        self.begin = begin
        self.end = end
        self.dtype = NUMPY[datatype]
        size = prod(shape) * self.dtype.itemsize
        self.is_plain = datatype not in {"BYTES", "BOOL"} and column.dtype == self.dtype and size == end - begin

    def read(self, body: bytes | bytearray) -> Array:
        if self.is_plain:
            return np.ndarray(self.shape, self.dtype, body, self.begin)
        return from_raw(self.column, memoryview(body)[self.begin : self.end], self.datatype, self.shape)


class _Form:
    """All of a message but its values."""

    __slots__ = ("fixed", "leaves", "names", "outputs", "parameters", "rows")

    def __init__(self, body: bytes | bytearray, names: list[str], leaves: list[_Leaf], request: InferenceRequest) -> None:
        self.names = names
        self.leaves = leaves
        self.rows = request.rows
        self.outputs = request.outputs
        self.parameters = request.parameters
        fixed: list[tuple[int, bytes]] = []
        at = 0
        for leaf in sorted(leaves, key=lambda leaf: leaf.begin):
            fixed.append((at, bytes(body[at : leaf.begin])))
            at = leaf.end
        fixed.append((at, bytes(body[at:])))
        self.fixed = tuple(part for part in fixed if part[1])

    def fits(self, body: bytes | bytearray) -> bool:
        return all(body.startswith(part, at) for at, part in self.fixed)


class OipV2Grpc:
    """The codec of `GRPCInferenceService/ModelInfer`."""

    def __init__(self, name: str, schema: Schema) -> None:
        self.name = name
        self.records = Records(schema)
        self.columns = self.records.columns
        self.outputs = {spec.name: spec for spec in schema.outputs}
        self._forms: dict[int, _Form] = {}
        self._head = wire.tagged(1, name.encode())
        self._heads: dict[int, bytes] = {}
        self._has_half = any(spec.datatype == "FP16" for spec in schema.outputs)
        self._described = {spec.name: wire.tagged(1, spec.name.encode()) + wire.tagged(2, spec.datatype.encode()) for spec in schema.outputs}
        # What stands before the values of one row, which is most answers, is a constant.
        self._one_row = {spec.name: self._describe(spec.name, (1, *spec.shape[1:])) for spec in schema.outputs}

        self._raw_row = self._raw_answer()

    def _raw_answer(self) -> tuple[bytes, tuple[tuple[str, bytes, Any], ...]] | None:
        """All but the values of a raw answer of one row, where every output has a fixed size: what is said of the outputs, and what precedes each."""
        if any(spec.datatype == "BYTES" or min(spec.shape[1:], default=1) < 0 for spec in self.outputs.values()):
            return None
        sizes = {name: prod(spec.shape[1:]) * NUMPY[spec.datatype].itemsize for name, spec in self.outputs.items()}
        told = b"".join(wire.tagged(5, self._one_row[name]) for name in self.outputs)
        return told, tuple((name, b"\x32" + wire.varint(sizes[name]), NUMPY[spec.datatype]) for name, spec in self.outputs.items())

    def decode(self, body: bytes | bytearray, media: str = "", json_bytes: int | None = None) -> InferenceRequest:  # noqa: ARG002 - the port's
        """See `base.Codec`; `body` is a ModelInferRequest and must not change any more."""
        form = self._forms.get(len(body))
        if form is not None and form.fits(body):
            request = InferenceRequest(dict(zip(form.names, [leaf.read(body) for leaf in form.leaves], strict=True)), form.rows)
            request.outputs = form.outputs
            request.parameters = form.parameters
            return request
        return self._decode(body)

    def _decode(self, body: bytes | bytearray) -> InferenceRequest:
        top = wire.listed(body, 0, len(body))
        raw = [(begin, end, True) for number, sort, _, begin, end in top if number == _RAW_INPUTS and sort == wire.BYTES]
        if raw:
            # Without the values, which are taken where they lie.
            message = parse(kind(REQUEST), b"".join(bytes(body[start:end]) for number, _, start, _, end in top if number != _RAW_INPUTS))
        else:
            message = parse(kind(REQUEST), body)
        if message.model_name != self.name:
            raise MalformedPayload("the message names two models", field="model_name", rule="unique")
        # Of very many, which are refused soon, an object for each would take more than all that they hold.
        tensors: Sequence[Any] = list(message.inputs) if len(message.inputs) <= len(self.columns) else message.inputs
        if raw and len(raw) != len(tensors):
            raise MalformedPayload("raw_input_contents has one entry for each input", field="raw_input_contents", rule="size")
        places: list[Place | None] = list(raw) if raw else _packed(body, top, tensors)
        if self._is_matrix(tensors):
            request, leaves = self._matrix(body, tensors[0], places[0])
        else:
            request, leaves = self._by_name(body, tensors, places)
        self._complete(request, message, is_raw=bool(raw))
        if leaves is not None and not request.id and len(body) - sum(leaf.end - leaf.begin for leaf in leaves) <= FORM_BYTES:
            if len(self._forms) >= FORMS:
                self._forms.clear()
            self._forms[len(body)] = _Form(body, list(request.inputs), leaves, request)
        return request

    def _is_matrix(self, tensors: Sequence[Any]) -> bool:
        return len(tensors) == 1 and tensors[0].name == MATRIX and self.records.is_numeric and MATRIX not in self.columns

    def _matrix(self, body: bytes | bytearray, tensor: Any, place: Place | None) -> tuple[InferenceRequest, None]:
        """An all-numeric frame that comes whole."""
        width, datatype, shape = len(self.columns), tensor.datatype, list(tensor.shape)
        if len(shape) != 2 or shape[0] < 1 or shape[1] != width:
            raise SchemaMismatch(f"input 'X': its shape is [-1, {width}], one column per input of the model", field=MATRIX, rule="shape")
        if kind_of(datatype) not in {"f", "i"}:
            raise SchemaMismatch("input 'X': its datatype is FP16, FP32, FP64 or an integer", field=MATRIX, rule="datatype")
        column = Column(TensorSpec(name=MATRIX, datatype=datatype, shape=(-1, width)))
        values, _ = _values(column, body, tensor, place)
        return self.records.from_matrix(values), None

    def _by_name(self, body: bytes | bytearray, tensors: Sequence[Any], places: list[Place | None]) -> tuple[InferenceRequest, list[_Leaf] | None]:
        given: dict[str, Array] = {}
        leaves: list[_Leaf] = []
        rows = -1
        for tensor, place in zip(tensors, places, strict=True):
            column = self.columns.get(tensor.name)
            if column is None:
                raise self.records.unknown("inputs")
            if column.name in given:
                column.refuse("stands twice", "unique")
            values, leaf = _values(column, body, tensor, place)
            if leaf is not None:
                leaves.append(leaf)
            given[column.name] = values
            if rows not in {-1, len(values)}:
                column.refuse("has as many rows as the other inputs", "rows")
            rows = len(values)
        if len(given) != len(self.columns):
            missing = next(name for name in self.columns if name not in given)
            raise SchemaMismatch(f"input '{missing}' is missing", field=missing, rule="required")
        return InferenceRequest(given, rows), leaves if len(leaves) == len(given) else None

    def _complete(self, request: InferenceRequest, message: Any, *, is_raw: bool) -> None:
        if len(message.id) > ID_LIMIT:
            raise MalformedPayload(f"an id has at most {ID_LIMIT} characters", field="id", rule="size")
        request.id = message.id
        asked = dict.fromkeys(each.name for each in message.outputs)
        if not asked.keys() <= self.outputs.keys():
            names = ", ".join(self.outputs)
            raise SchemaMismatch(f"an output is asked for that the model has not; it has: {names}", field="outputs", rule="unknown_output")
        request.outputs = tuple(asked)
        if is_raw or self._has_half:
            request.parameters = {RAW: True}

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:
        """See `base.Codec`: no header lines, and a ModelInferResponse. Outputs stand in the order asked for, else in the schema's."""
        head = self._heads.get(response.version)
        if head is None:
            head = self._heads[response.version] = self._head + wire.tagged(2, b"%d" % response.version)
        given = response.id.encode()
        parts = [head, b"\x1a", wire.varint(len(given)), given]
        names = request.outputs or self.outputs
        is_one, arrays, outputs = response.rows == 1, response.outputs, self.outputs
        if request.parameters is None:
            for name in names:
                array = arrays[name]
                described = self._one_row[name] if is_one else self._describe(name, array.shape)
                parts.append(wire.tagged(5, described + wire.tagged(_CONTENTS, _contents(array, outputs[name].datatype))))
            return b"", b"".join(parts)
        if is_one and self._raw_row is not None and not request.outputs:
            told, row = self._raw_row
            parts.append(told)
            for name, begin, dtype in row:
                array = arrays[name]
                parts += (begin, array.tobytes() if array.dtype == dtype else array.astype(dtype).tobytes())
            return b"", b"".join(parts)
        raws: list[bytes] = []
        for name in names:
            array = arrays[name]
            parts.append(wire.tagged(5, self._one_row[name] if is_one else self._describe(name, array.shape)))
            datatype = outputs[name].datatype
            data = array.tobytes() if array.dtype == NUMPY[datatype] and datatype != "BYTES" else to_raw(array, datatype)
            raws += (b"\x32", wire.varint(len(data)), data)
        return b"", b"".join(parts + raws)

    def _describe(self, name: str, shape: tuple[int, ...]) -> bytes:
        return self._described[name] + wire.tagged(3, b"".join(map(wire.varint, shape)))

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """See `base.Codec`: the text, which travels beside the status."""
        return b"", error.message.encode()


class OipV2GrpcStream(OipV2Grpc):
    """The codec of `GRPCInferenceService/ModelStreamInfer`: the same answers, each in the envelope of the stream."""

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:
        """See `base.Codec`: no header lines, and a ModelStreamInferResponse."""
        return b"", wire.tagged(2, super().encode(request, response)[1])


def _packed(body: bytes | bytearray, top: list[tuple[int, int, int, int, int]], tensors: Sequence[Any]) -> list[Place | None]:
    """Where the packed floats of each tensor lie, None where they do not lie in one piece."""
    found: list[Place | None] = []
    # A field of another sort under the same number is none of the message's.
    inputs = [(begin, end) for number, sort, _, begin, end in top if number == _INPUTS and sort == wire.BYTES]
    for (begin, end), tensor in zip(inputs, tensors, strict=True):
        wanted = {"FP32": 6, "FP64": 7}.get(tensor.datatype)
        inner = wire.fields(body, begin, end) if wanted is not None else ()
        contents = [(at, stop) for number, sort, _, at, stop in inner if number == _CONTENTS and sort == wire.BYTES]
        place: Place | None = None
        if len(contents) == 1:
            values = list(islice(wire.fields(body, *contents[0]), 2))
            if len(values) == 1 and values[0][:2] == (wanted, wire.BYTES):
                place = (*values[0][3:], False)
        found.append(place)
    return found


def _values(column: Column, body: bytes | bytearray, tensor: Any, place: Place | None) -> tuple[Array, _Leaf | None]:
    """The values of one input, and where they lie if they may be taken from there again."""
    datatype = tensor.datatype
    column.accept(datatype, is_binary=True)
    shape = column.fit(list(tensor.shape))
    if place is not None:
        begin, end, is_raw = place
        if is_raw and tensor.contents.ListFields():
            column.refuse("has its values either in contents or raw", "form")
        if not is_raw and end - begin != prod(shape) * NUMPY[datatype].itemsize:
            column.refuse("has not as many values as its shape says", "size")
        leaf = _Leaf(column, datatype, shape, begin, end)
        return leaf.read(body), leaf
    if datatype == "FP16":
        column.refuse("FP16 travels in raw_input_contents", "form")
    if [field.name for field, _ in tensor.contents.ListFields()] != [_FIELDS[datatype]]:
        column.refuse(f"has its values in {_FIELDS[datatype]}", "form")
    values = getattr(tensor.contents, _FIELDS[datatype])
    if len(values) != prod(shape):
        column.refuse("has not as many values as its shape says", "size")
    array = from_field(column, values, datatype).reshape(shape)
    return (array if datatype == "BYTES" else column.from_array(array, datatype)), None


@cache
def _numbers() -> dict[str, int]:
    """The number of each field of InferTensorContents."""
    return {name: field.number for name, field in kind(CONTENTS).DESCRIPTOR.fields_by_name.items()}


def _contents(array: Array, datatype: str) -> bytes:
    """InferTensorContents with the values of `array`."""
    number = _numbers()[_FIELDS[datatype]]
    if datatype in {"FP32", "FP64", "BOOL"}:
        return wire.tagged(number, to_raw(array, datatype))
    values = array.ravel().tolist()
    if datatype == "BYTES":
        return b"".join(wire.tagged(number, ("" if value is None else str(value)).encode()) for value in values)
    if len(values) <= FEW:
        return wire.tagged(number, b"".join(map(wire.varint, values)))
    contents: bytes = kind(CONTENTS)(**{_FIELDS[datatype]: values}).SerializeToString()
    return contents
