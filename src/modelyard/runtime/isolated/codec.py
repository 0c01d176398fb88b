"""Named arrays as frames on a socket between a worker and a model's own process: raw numbers, data only, read without trust.

Hides the layout: a prelude of 24 bytes, a descriptor in JSON (names, types, shapes), then each array's elements, row-major, little-endian, every
array at a multiple of 16 so that it can be used where it lies. BYTES elements are a 4-byte length and UTF-8; the length 0xFFFFFFFF stands for a
missing string. Both sides use it, so it needs numpy and the standard library alone. It must not believe what it reads: every count is checked
against the bytes that are there, and no length is believed beyond a limit that the reader sets.
Law: `read(write(x))` equals x (`tests/property/test_frames.py`).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array

PRELUDE = struct.Struct("<BxxxIIIQ")
"""Kind, number of the question, microseconds that the model took, bytes of the descriptor, bytes of the body."""

READY, REFUSED, ASK, ANSWER, FAILED, LIBRARIES = range(1, 7)
DESCRIPTOR_LIMIT_BYTES = 1 << 20
DIMENSIONS_LIMIT = 8
ALIGNED = 16
_MISSING = 0xFFFFFFFF
_STRINGS = "BYTES"
_CODES = {code: np.dtype(code) for code in ("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8")}
_CACHED = 256
_JOINED_BYTES = 1 << 16
_VECTORS = 64

Buffer = bytes | bytearray | memoryview


class Garbled(Exception):
    """The bytes are not a frame; whoever sent them is not to be listened to any longer."""


class Frame(NamedTuple):
    """One message as it lies in the reader's buffer; good until the reader is asked again."""

    kind: int
    ident: int
    micros: int
    descriptor: bytes
    body: memoryview


class _Place(NamedTuple):
    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    start: int
    size_bytes: int


class Writer:
    """Makes frames. Remembers descriptors by the arrays' types and shapes, which repeat; one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[bytes, tuple[int, ...], int]] = {}

    def tensors(self, kind: int, ident: int, arrays: Mapping[str, Array], *, micros: int = 0) -> list[Buffer]:
        """The frame of `arrays` as buffers to send one after another; large arrays are not copied. Raises TypeError for what does not travel."""
        if len(arrays) == 1:
            ((name, array),) = arrays.items()
            key: tuple[Any, ...] = (name, array.dtype, array.shape)
        else:
            key = tuple((name, array.dtype, array.shape) for name, array in arrays.items())
        known = self._known.get(key)
        if known is None:
            return self._first(kind, ident, arrays, key, micros)
        descriptor, pads, total = known
        head = PRELUDE.pack(kind, ident, micros, len(descriptor), total)
        if len(pads) == 1:
            (array,) = arrays.values()
            data = array if array.flags.c_contiguous else np.ascontiguousarray(array)
            # A small frame is cheaper to copy than to send in pieces.
            return [head + descriptor + data.tobytes()] if total <= _JOINED_BYTES else [head, descriptor, _flat(data)]
        if total <= _JOINED_BYTES or len(pads) > _VECTORS:
            parts: list[bytes] = [head, descriptor]
            for array, pad in zip(arrays.values(), pads, strict=True):
                parts += (array.tobytes(), bytes(pad)) if pad else (array.tobytes(),)
            return [b"".join(parts)]
        buffers: list[Buffer] = [head, descriptor]
        for array, pad in zip(arrays.values(), pads, strict=True):
            buffers.append(_flat(np.ascontiguousarray(array)))
            if pad:
                buffers.append(bytes(pad))
        return buffers

    def _first(self, kind: int, ident: int, arrays: Mapping[str, Array], key: tuple[Any, ...], micros: int) -> list[Buffer]:
        listed, bodies, pads, total, is_fixed = [], [], [], 0, True
        for name, array in arrays.items():
            code, body = _body(name, array)
            is_fixed &= code != _STRINGS
            size = len(body)
            pad = -size % ALIGNED
            listed.append([name, code, list(array.shape), size])
            bodies += [body, bytes(pad)]
            pads.append(pad)
            total += size + pad
        if len(pads) == 1 and pads[0]:  # the last pad of a lone array need not travel
            total, bodies, pads = total - pads[0], bodies[:1], [0]
        descriptor = _padded(json.dumps(listed, separators=(",", ":")).encode())
        if is_fixed and all(array.dtype.newbyteorder("<") == array.dtype for array in arrays.values()):
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[key] = descriptor, tuple(pads), total
        return [PRELUDE.pack(kind, ident, micros, len(descriptor), total), descriptor, b"".join(bodies)]


def note(kind: int, ident: int, facts: Mapping[str, Any]) -> bytes:
    """A frame of plain JSON without arrays."""
    descriptor = _padded(json.dumps(facts, separators=(",", ":")).encode())
    return PRELUDE.pack(kind, ident, 0, len(descriptor), 0) + descriptor


class Reader:
    """Takes frames from a socket. `limit_bytes` bounds the body of one; nothing is reserved before a bound was checked."""

    def __init__(self, *, limit_bytes: int, reserve_bytes: int = 1 << 16) -> None:
        self._limit = limit_bytes
        self._reserve = reserve_bytes
        self._buffer = bytearray(reserve_bytes)
        self._start = self._end = 0
        self._known: dict[bytes, tuple[tuple[_Place, ...], int]] = {}

    def room(self) -> memoryview:
        """Where the next bytes go; follow with `filled`. Views of frames given before are no longer good."""
        held = self._end - self._start
        if held == 0:
            self._start = self._end = 0
            if len(self._buffer) > self._reserve:
                self._buffer = bytearray(self._reserve)
        if held >= PRELUDE.size:
            wanted = self._size()
            if wanted > len(self._buffer) - self._start:
                grown = bytearray(max(wanted, self._reserve))
                grown[:held] = memoryview(self._buffer)[self._start : self._end]
                self._buffer, self._start, self._end = grown, 0, held
        elif self._end == len(self._buffer):
            self._buffer[:held] = self._buffer[self._start : self._end]
            self._start, self._end = 0, held
        return memoryview(self._buffer)[self._end :]

    def filled(self, count: int) -> None:
        """`count` bytes came into `room`."""
        self._end += count

    def _size(self) -> int:
        _, _, _, descriptor, body = PRELUDE.unpack_from(self._buffer, self._start)
        if descriptor > DESCRIPTOR_LIMIT_BYTES or body > self._limit:
            raise Garbled("a frame claims more bytes than one may have")
        return int(PRELUDE.size + descriptor + body)

    def next(self) -> Frame | None:
        """The next whole frame, if one is there. Raises Garbled for a length beyond the limit."""
        held = self._end - self._start
        if held < PRELUDE.size:
            return None
        kind, ident, micros, descriptor, body = PRELUDE.unpack_from(self._buffer, self._start)
        if descriptor > DESCRIPTOR_LIMIT_BYTES or body > self._limit:
            raise Garbled("a frame claims more bytes than one may have")
        at = self._start + PRELUDE.size
        end = at + descriptor + body
        if end > self._end:
            return None
        self._start = end
        view = memoryview(self._buffer)
        return Frame(kind, ident, micros, bytes(view[at : at + descriptor]), view[at + descriptor : end])

    def tensors(self, frame: Frame) -> dict[str, Array]:
        """The arrays of `frame`, copied once. Raises Garbled."""
        known = self._known.get(frame.descriptor)
        if known is None:
            known = _places(frame.descriptor)
            if all(place.dtype is not None for place in known[0]):
                if len(self._known) >= _CACHED:
                    self._known.clear()
                self._known[frame.descriptor] = known
        places, total = known
        if total != len(frame.body):
            raise Garbled("a frame's body is not what its descriptor says")
        body = bytearray(frame.body)
        found: dict[str, Array] = {}
        for name, dtype, shape, start, size in places:
            if dtype is None:
                found[name] = _strings(memoryview(body)[start : start + size], math.prod(shape)).reshape(shape)
            else:
                found[name] = np.ndarray(shape, dtype, body, start)
                if dtype.kind == "b" and size and max(body[start : start + size]) > 1:
                    raise Garbled("a truth value is neither 0 nor 1")
        return found


def facts(frame: Frame) -> dict[str, Any]:
    """The JSON of a frame without arrays. Raises Garbled."""
    try:
        found = json.loads(frame.descriptor)
    except (ValueError, RecursionError) as error:
        raise Garbled("a frame's descriptor is not JSON") from error
    if not isinstance(found, dict):
        raise Garbled("a frame's descriptor is not an object")
    return found


def _padded(descriptor: bytes) -> bytes:
    return descriptor.ljust(-(-(PRELUDE.size + len(descriptor)) // ALIGNED) * ALIGNED - PRELUDE.size)


def _flat(array: Array) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _body(name: str, array: Array) -> tuple[str, bytes]:
    if array.dtype.kind in "OUT":
        return _STRINGS, b"".join(_string(name, item) for item in array.reshape(-1).tolist())
    code = array.dtype.newbyteorder("<").str
    if code not in _CODES or array.ndim > DIMENSIONS_LIMIT:
        raise TypeError(f"{name}: arrays of {array.dtype.name} do not travel")
    return code, np.ascontiguousarray(array, _CODES[code]).tobytes()


def _string(name: str, item: Any) -> bytes:
    if item is None:
        return struct.pack("<I", _MISSING)
    if not isinstance(item, str):
        raise TypeError(f"{name}: object arrays hold strings and None")
    encoded = item.encode()
    return struct.pack("<I", len(encoded)) + encoded


def _places(descriptor: bytes) -> tuple[tuple[_Place, ...], int]:
    try:
        listed = json.loads(descriptor)
    except (ValueError, RecursionError) as error:
        raise Garbled("a frame's descriptor is not JSON") from error
    if not isinstance(listed, list):
        raise Garbled("a frame's descriptor is not a list")
    places: list[_Place] = []
    at = 0
    for each in listed:
        name, code, shape, size = _checked(each)
        dtype = None if code == _STRINGS else _CODES[code]
        count = math.prod(shape)
        if (dtype is not None and count * dtype.itemsize != size) or (dtype is None and 4 * count > size):
            raise Garbled("an array's size is not that of its shape")
        places.append(_Place(name, dtype, shape, at, size))
        at += size + (-size % ALIGNED if len(listed) > 1 else 0)
    if len({place.name for place in places}) != len(places):
        raise Garbled("an array stands twice in a frame")
    return tuple(places), at


def _checked(each: Any) -> tuple[str, str, tuple[int, ...], int]:
    if not isinstance(each, list) or len(each) != 4:
        raise Garbled("an array is described by name, type, shape and size")
    name, code, shape, size = each
    extents = shape if isinstance(shape, list) else [-1]
    if not isinstance(name, str) or (code != _STRINGS and code not in _CODES) or len(extents) > DIMENSIONS_LIMIT:
        raise Garbled("an array's name, type or shape is of no known form")
    is_whole = all(type(number) is int and number >= 0 for number in (*extents, size))
    if not is_whole or max(size, math.prod(extent or 1 for extent in extents)) >= 1 << 48:  # numpy counts an empty array's other extents too
        raise Garbled("an array's extent or size is out of range")
    return name, code, tuple(extents), size


def _strings(body: memoryview, count: int) -> Array:
    items = np.empty(count, dtype=object)
    offset = 0
    for position in range(count):
        size = int.from_bytes(body[offset : offset + 4], "little")
        offset += 4
        if size == _MISSING:
            continue
        if offset + size > len(body):
            raise Garbled("a string reaches past its end")
        try:
            items[position] = str(body[offset : offset + size], "utf-8")
        except UnicodeDecodeError as error:
            raise Garbled("a string is not UTF-8") from error
        offset += size
    if offset != len(body):
        raise Garbled("an array's size is not that of its strings")
    return items
