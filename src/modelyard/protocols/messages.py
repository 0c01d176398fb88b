"""The protobuf messages of all gRPC wires, made from the checked-in descriptor set in a pool of their own.

Hides where the descriptors lie and that the pool is private: another package's copy of the same .proto files, in the same process, meets none of
ours. protobuf is loaded with the first message, since most workers start before anybody asks by gRPC. `make messages` writes the set
(`tests/house/test_messages.py`).
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any

from modelyard.errors import MalformedPayload

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
    """`data` as a `message` (a class that `kind` gave). Raises MalformedPayload, which holds no data."""
    try:
        return message.FromString(data)
    except (_decode_error(), ValueError, RecursionError) as error:
        raise MalformedPayload("the message is not one of this method's", field="message", rule="protobuf") from error


def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    kind: type[Exception] = DecodeError
    return kind
