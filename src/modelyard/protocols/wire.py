"""Protobuf's wire form by hand, where that spares a copy or an object: fields found in place, and fields written.

Hides varints and tags. Pure. It must not know any message; what is not plain here is left to protobuf itself. Source: Protocol Buffers, Encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from modelyard.errors import MalformedPayload, PayloadTooLarge

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIELDS = 32_768
"""Fields of one message that are looked at one by one: each costs some 200 bytes and most of a microsecond."""
_SIZES = {FIXED64: 8, FIXED32: 4}
_MASK = (1 << 64) - 1


def fields(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Each field between `at` and `end`: number, wire type, where its tag begins, where its content begins and ends. Raises MalformedPayload."""
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == BYTES:
            size, at = _varint(data, at, end)
        elif kind == VARINT:
            _, stop = _varint(data, at, end)
            size = stop - at
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise _malformed()
        if size > end - at:
            raise _malformed()
        yield tag >> 3, kind, start, at, at + size
        at += size


def listed(data: bytes | bytearray, at: int, end: int) -> list[tuple[int, int, int, int, int]]:
    """As `fields`, all at once. Raises PayloadTooLarge for more than FIELDS of them, of which it looks at no more."""
    found = list(islice(fields(data, at, end), FIELDS + 1))
    if len(found) > FIELDS:
        raise PayloadTooLarge(f"a message has at most {FIELDS:,} fields; send flat tensors", field="message", rule="fields")
    return found


def _varint(data: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _malformed()


def _malformed() -> MalformedPayload:
    return MalformedPayload("the message is not one of this method's", field="message", rule="protobuf")


def varint(value: int) -> bytes:
    """`value` (negative ones as 64 bits) as a varint."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= _MASK
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL = tuple(bytes((value,)) for value in range(0x80))


def tagged(number: int, content: bytes) -> bytes:
    """A field of `content`: bytes, a string, a message or packed numbers."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def integer(number: int, value: int) -> bytes:
    """A field of one integer."""
    return varint(number << 3) + varint(value)
