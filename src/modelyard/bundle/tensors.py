"""Named arrays as bytes: the form of golden records. Data only, one byte string for one meaning.

Hides the layout, which follows the binary tensors of the Open Inference Protocol V2: 8 bytes with the header's length (little-endian), a
canonical JSON header, then each array's elements, row-major and little-endian. BYTES elements are a 4-byte length and UTF-8; the length
0xFFFFFFFF stands for a missing string.
Law: `unpack(pack(x))` equals x, and pack is a function of the values alone (`tests/property/test_tensors.py`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.bundle import canonical
from modelyard.errors import InvalidInput, UnsupportedFormat

if TYPE_CHECKING:
    from modelyard.types import Array

HEADER_LIMIT_BYTES = 4 << 20
DIMENSIONS_LIMIT = 8
ELEMENTS_LIMIT = 1 << 40  # counting an extent of 0 as 1: numpy refuses to shape even nothing beyond its own limit
_MISSING = 0xFFFFFFFF
_NUMPY = {
    "BOOL": "|b1",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_DATATYPES = {np.dtype(code).name: datatype for datatype, code in _NUMPY.items()}


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    size_bytes: int


def pack(arrays: Mapping[str, Array]) -> bytes:
    """`arrays` in their order as one byte string. Strings are object (or str) arrays with None for missing. Raises InvalidInput for other types."""
    bodies = {name: _body(name, np.asarray(array)) for name, array in arrays.items()}
    header = canonical.encode(
        [_Tensor(name, datatype, tuple(np.shape(arrays[name])), len(body)) for name, (datatype, body) in bodies.items()],
    )
    return b"".join((struct.pack("<Q", len(header)), header, *(body for _, body in bodies.values())))


def unpack(data: bytes) -> dict[str, Array]:
    """The arrays in `data`, read-only, in their order. Every count is checked against the bytes that are there. Raises UnsupportedFormat."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(HEADER_LIMIT_BYTES, len(data) - 8):
        raise _refusal("its header is longer than it")
    header = canonical.decode(data[8 : 8 + size], tuple[_Tensor, ...], name="a record of tensors")
    offset = 8 + size
    arrays: dict[str, Array] = {}
    for tensor in header:
        end = offset + tensor.size_bytes
        if tensor.name in arrays or tensor.size_bytes < 0 or end > len(data):
            raise _refusal("a tensor stands twice in it or reaches past its end")
        arrays[tensor.name] = _array(tensor, memoryview(data)[offset:end])
        offset = end
    if offset != len(data):
        raise _refusal("there are bytes behind its last tensor")
    return arrays


def _body(name: str, array: Array) -> tuple[str, bytes]:
    if array.dtype.kind in "OUT":
        return "BYTES", b"".join(_string(name, item) for item in array.reshape(-1).tolist())
    datatype = _DATATYPES.get(array.dtype.name)
    if datatype is None:
        raise InvalidInput(f"{name}: arrays of {array.dtype.name} cannot be recorded", field=name, rule="datatype")
    plain = np.ascontiguousarray(array, dtype=_NUMPY[datatype])
    if array.dtype.kind == "f":
        plain = np.where(np.isnan(plain), plain.dtype.type(np.nan), plain)  # NaN has many bit patterns; record one
    return datatype, plain.tobytes()


def _string(name: str, item: Any) -> bytes:
    if item is None:
        return struct.pack("<I", _MISSING)
    if not isinstance(item, str):
        raise InvalidInput(f"{name}: object arrays hold strings and None", field=name, rule="datatype")
    try:
        encoded = item.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} holds a string that is not Unicode text", field=name, rule="utf-8") from error
    return struct.pack("<I", len(encoded)) + encoded


def _array(tensor: _Tensor, body: memoryview) -> Array:
    if (
        len(tensor.shape) > DIMENSIONS_LIMIT
        or any(extent < 0 for extent in tensor.shape)
        or math.prod(max(1, extent) for extent in tensor.shape) > ELEMENTS_LIMIT
    ):
        raise _refusal("a tensor's shape is out of range")
    count = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return _strings(body, count).reshape(tensor.shape)
    code = _NUMPY.get(tensor.datatype)
    if code is None or count * np.dtype(code).itemsize != len(body):
        raise _refusal("a tensor's size is not that of its shape")
    if code == "|b1" and len(body) and max(body) > 1:
        raise _refusal("a truth value is neither 0 nor 1")
    return np.frombuffer(body, dtype=code).reshape(tensor.shape)


def _strings(body: memoryview, count: int) -> Array:
    if count * 4 > len(body):
        raise _refusal("a tensor's size is not that of its shape")
    items = np.empty(count, dtype=object)
    offset = 0
    for position in range(count):
        size = int.from_bytes(body[offset : offset + 4], "little")
        offset += 4
        if size == _MISSING:
            continue
        if offset + size > len(body):
            raise _refusal("a string reaches past its end")
        try:
            items[position] = str(body[offset : offset + size], "utf-8")
        except UnicodeDecodeError as error:
            raise _refusal("a string is not UTF-8") from error
        offset += size
    if offset != len(body):
        raise _refusal("a tensor's size is not that of its strings")
    items.flags.writeable = False
    return items


def _refusal(why: str) -> UnsupportedFormat:
    return UnsupportedFormat(f"a record of tensors is malformed: {why}", rule="tensors")
