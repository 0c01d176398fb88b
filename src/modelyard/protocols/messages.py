"""The protobuf messages of all gRPC wires, made from the checked-in descriptor set in a pool of their own.

Hides where the descriptors lie and that the pool is private: another package's copy of the same .proto files, in the same process, meets none of
ours. protobuf is loaded with the first message, since most workers start before anybody asks by gRPC. `make messages` writes the set
(`tests/house/test_messages.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from modelyard.errors import MalformedPayload, PayloadTooLarge
from modelyard.protocols import wire

SMALL_BYTES = 32 << 10
"""Up to here a message may hold anything: whatever it becomes is little."""
GROWTH, SPARE_BYTES = 2, 16 << 20
"""A larger message may take so many times its own size when it is read, and so much beside."""
NUMBER_BYTES, FIELD_BYTES, MESSAGE_BYTES = 32, 128, 160
"""What one packed integer, any other field, and one message within another take at most, here and in protobuf."""
DEPTH = 100

_LOADING = Lock()


def _loaded() -> tuple[Any, dict[str, bytes]]:
    with _LOADING:  # two threads that came first together would each have a pool, and messages of one are not of the other
        return _read()


@cache
def _read() -> tuple[Any, dict[str, bytes]]:
    from importlib.resources import files

    from google.protobuf import descriptor_pb2, descriptor_pool

    found = descriptor_pb2.FileDescriptorSet.FromString((files("modelyard.protocols") / "proto" / "messages.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    texts = {}
    for file in found.file:  # in the order of their imports
        texts[file.name] = file.SerializeToString()
        pool.AddSerializedFile(texts[file.name])
    return pool, texts


def pool() -> Any:
    """The pool with every file of ours."""
    return _loaded()[0]


def file_bytes(name: str) -> bytes:
    """The descriptor of the file `name`, serialised. KeyError where there is none."""
    return _loaded()[1][name]


@cache
def kind(name: str) -> Any:
    """The class of the message `name`, which is written with its package."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def parse(message: Any, data: bytes | bytearray) -> Any:
    """`data` as a `message` (a class that `kind` gave). Raises MalformedPayload, which holds no data, or PayloadTooLarge for one of so many small
    parts that reading it would take a multiple of its size."""
    if len(data) > SMALL_BYTES:
        _check_growth(message.DESCRIPTOR, data)
    try:
        return message.FromString(data)
    except (_decode_error(), ValueError, RecursionError) as error:
        raise MalformedPayload("the message is not one of this method's", field="message", rule="protobuf") from error


class _Part(NamedTuple):
    """What a field of a message is made of: messages of a kind, or integers, which may be packed."""

    message: Any = None
    is_integer: bool = False


_PLAIN = _Part()


@cache
def _parts(descriptor: Any) -> dict[int, _Part]:
    """The fields of a message that may be many in few bytes, by number."""
    from google.protobuf.descriptor import FieldDescriptor as Field

    whole = (Field.CPPTYPE_INT32, Field.CPPTYPE_INT64, Field.CPPTYPE_UINT32, Field.CPPTYPE_UINT64, Field.CPPTYPE_BOOL, Field.CPPTYPE_ENUM)
    return {field.number: _Part(field.message_type, field.cpp_type in whole) for field in descriptor.fields}


def _check_growth(descriptor: Any, data: bytes | bytearray) -> None:
    """Raise PayloadTooLarge, before protobuf has made anything of it, for a message whose parts would take more than GROWTH times its size and
    SPARE_BYTES. It looks at no more of them than that."""
    left = GROWTH * len(data) + SPARE_BYTES
    within: list[tuple[dict[int, _Part], Iterator[tuple[int, int, int, int, int]]]] = [(_parts(descriptor), wire.fields(data, 0, len(data)))]
    while within:
        parts, fields = within[-1]
        for number, sort, _, begin, end in fields:
            part = parts.get(number, _PLAIN) if sort == wire.BYTES else _PLAIN
            if part.message is not None:
                left -= MESSAGE_BYTES
                within.append((_parts(part.message), wire.fields(data, begin, end)))
            elif part.is_integer:
                left -= FIELD_BYTES + NUMBER_BYTES * int(np.count_nonzero(np.frombuffer(data, np.uint8, end - begin, begin) < 0x80))
            else:
                left -= FIELD_BYTES
            if left < 0:
                told = "the message has too many small parts for its size; send values raw (raw_input_contents, tensor_content), or fewer rows"
                raise PayloadTooLarge(told, field="message", rule="growth")
            if part.message is not None:
                break
        else:
            within.pop()
        if len(within) > DEPTH:
            raise MalformedPayload("the message is nested too deeply", field="message", rule="depth")


def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    kind: type[Exception] = DecodeError
    return kind
