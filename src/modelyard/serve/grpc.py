"""What one gRPC call may be: its head once parsed, the framing of its messages, and the header blocks of an answer.

Hides gRPC's own fields (timeouts, codings, percent-encoded messages) and how an answer's blocks are written (literals that no table keeps, so that
they are constants). Pure: no socket, no clock. Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import re
import struct
import zlib
from functools import lru_cache
from typing import Any, ClassVar

from modelyard.errors import InvalidInput, MalformedPayload, ModelyardError, Overloaded, PayloadTooLarge, UnsupportedMedia
from modelyard.serve.admission import NORMAL, PRIORITIES
from modelyard.serve.errors import GRPC
from modelyard.serve.http import DEADLINE_LIMIT_S, TRACESTATE_BYTES, is_header_safe
from modelyard.serve.http2 import LIST_BYTES, Fields, check_fields, list_bytes

PREFIX = struct.Struct(">BL")
"""Whether the message is compressed, and its length."""

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_CODINGS = frozenset({"identity", "gzip"})


class Head:
    """A call's header list, read once and then immutable: the same list always means the same head.

    `refusal` is why the call cannot be taken, `http_status` stands for what is no gRPC at all.
    """

    media: ClassVar[str] = "application/grpc"
    json_bytes: ClassVar[None] = None

    __slots__ = (
        "_fields", "admitted", "authorization", "caller", "coding", "host", "http_status", "is_cacheable", "origin", "path", "placed", "priority",
        "refusal", "request_id", "route", "timeout_s", "traceparent", "tracestate",
    )  # fmt: skip

    def __init__(self, fields: Fields) -> None:
        check_fields(fields)
        self._fields = fields
        self.path = ""
        self.coding = "identity"
        self.http_status = 0
        self.timeout_s: float | None = None
        self.authorization = b""
        self.host = b""
        self.origin = b""
        self.request_id = b""
        self.traceparent = b""
        self.tracestate = b""
        self.priority = NORMAL
        self.refusal: ModelyardError | None = None
        self.is_cacheable = True
        self.route: Any = None
        self.admitted = -1
        """The epoch of the access keys under which this head was let in, as `caller`."""
        self.caller: Any = None
        self.placed: Any = None
        """See `dataplane.Carries`."""
        media = b""
        for name, value in fields:
            if name == b":path":
                self.path = value.decode("latin-1")
            elif name == b":method":
                if value != b"POST":
                    self.http_status = 405
            elif name == b":authority":
                self.host = value
            elif name == b"origin":
                self.origin = value
            elif name == b"content-type":
                media = value
            else:
                take = _TAKERS.get(name)
                if take is not None:
                    take(self, value)
        if not re.fullmatch(rb"application/grpc(\+proto)?(;.*)?", media):
            self.http_status = self.http_status or 415
        if list_bytes(fields) > LIST_BYTES:
            self.refusal = Overloaded(f"the metadata of a call has at most {LIST_BYTES:,} bytes")

    def value(self, name: bytes) -> bytes:
        """The value of the metadata `name`, of several the list; empty without one."""
        return b",".join([value for key, value in self._fields if key == name])


def _timeout(head: Head, value: bytes) -> None:
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        head.refusal = InvalidInput("grpc-timeout is up to eight digits and one of H M S m u n", field="grpc-timeout", rule="form")
    else:
        head.timeout_s = min(int(match[1]) * _UNITS[match[2]], DEADLINE_LIMIT_S)


def _coding(head: Head, value: bytes) -> None:
    head.coding = value.decode("latin-1")
    if head.coding not in _CODINGS:
        head.refusal = UnsupportedMedia("messages may be coded as identity or gzip", field="grpc-encoding", rule="coding")


def _authorization(head: Head, value: bytes) -> None:
    head.authorization = value


def _request_id(head: Head, value: bytes) -> None:
    head.is_cacheable = False
    head.request_id = value if is_header_safe(value.decode("latin-1")) else b""


def _traceparent(head: Head, value: bytes) -> None:
    head.is_cacheable = False
    head.traceparent = value if is_header_safe(value.decode("latin-1")) else b""


def _tracestate(head: Head, value: bytes) -> None:
    head.is_cacheable = False
    joined = head.tracestate + b"," + value if head.tracestate else value  # several fields are one list
    head.tracestate = joined if len(joined) <= TRACESTATE_BYTES else b""


def _priority(head: Head, value: bytes) -> None:
    asked = PRIORITIES.get(value.strip().lower().decode("latin-1"))
    if asked is None:
        head.refusal = InvalidInput("x-priority is high, normal or low", field="x-priority", rule="form")
    else:
        head.priority = asked


_TAKERS = {
    b"grpc-timeout": _timeout,
    b"grpc-encoding": _coding,
    b"authorization": _authorization,
    b"x-request-id": _request_id,
    b"traceparent": _traceparent,
    b"tracestate": _tracestate,
    b"x-priority": _priority,
}


class Asked:
    """One call as OpenTelemetry's conventions for RPC servers have it; made only for one that is traced."""

    __slots__ = ("attributes", "name", "tracestate")

    def __init__(self, head: Head) -> None:
        # A method that is none of ours is the caller's own text.
        path = head.path.removeprefix("/") if head.route is not None else ""
        service, _, method = path.partition("/")
        self.name = path or "grpc"
        self.tracestate = head.tracestate
        self.attributes: dict[str, Any] = {
            "rpc.system": "grpc",
            "rpc.grpc.status_code": 0,
            "network.protocol.name": "http",
            "network.protocol.version": "2",
        }
        if path:
            self.attributes |= {"rpc.service": service, "rpc.method": method}


def plain(data: bytes | bytearray, flag: int, coding: str, limit_bytes: int) -> bytes | bytearray:
    """The message in `data` without its coding, at most `limit_bytes` of it. Raises MalformedPayload or PayloadTooLarge."""
    if flag == 0:
        return data
    if flag != 1 or coding != "gzip":
        raise MalformedPayload("a message is compressed that said it was not", field="grpc-encoding", rule="coding")
    stream = zlib.decompressobj(31)
    try:
        message = stream.decompress(data, limit_bytes + 1)
    except zlib.error:
        raise MalformedPayload("a message is not gzip", field="grpc-encoding", rule="coding") from None
    if len(message) > limit_bytes:
        raise too_large(limit_bytes)
    if not stream.eof or stream.unused_data:
        raise MalformedPayload("a message is not one whole gzip stream", field="grpc-encoding", rule="coding")
    return message


def too_large(limit_bytes: int) -> PayloadTooLarge:
    """The refusal of a message above `limit_bytes`."""
    return PayloadTooLarge(
        f"a message has at most {limit_bytes:,} bytes: send fewer rows at a time, or raise max_message_bytes", field="message", rule="size"
    )


# Answers.


def _string(value: bytes) -> bytes:
    size = len(value)
    if size < 0x7F:
        return bytes((size,)) + value
    rest = size - 0x7F
    encoded = bytearray(b"\x7f")
    while rest >= 0x80:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded) + value


def field(name: bytes, value: bytes) -> bytes:
    """A header field as a literal that no table keeps (RFC 7541, 6.2.2)."""
    return b"\0" + _string(name) + _string(value)


@lru_cache(4096)
def model_fields(name: str, version: int) -> bytes:
    """The fields that say which version of which deployment answers."""
    return field(b"x-model-name", name.encode()) + field(b"x-model-version", b"%d" % version)


_STATUS_200 = b"\x88"  # RFC 7541, appendix A
HEAD = _STATUS_200 + field(b"content-type", b"application/grpc")
"""The block in front of an answer's messages."""
PREDICTION_ID = b"\0" + _string(b"x-prediction-id")
OK = field(b"grpc-status", b"0")
"""The block behind an answer."""


def percent_encoded(text: str) -> bytes:
    """`text` as grpc-message carries it: printable ASCII as it is, all else (and `%`) as %XX of its UTF-8."""
    return b"".join(bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in text.encode())


def trailers(status: int, message: str, *more: tuple[bytes, bytes]) -> bytes:
    """The block that ends a call with `status`."""
    return field(b"grpc-status", b"%d" % status) + field(b"grpc-message", percent_encoded(message)) + b"".join(field(*each) for each in more)


def refusal(error: ModelyardError) -> bytes:
    """The block that ends a call with `error`: its status, its message, and beside them code, field and rule."""
    more = [(b"x-error-code", error.code.encode())]
    if error.field is not None:
        more.append((b"x-error-field", percent_encoded(error.field)))
    if error.rule is not None:
        more.append((b"x-error-rule", percent_encoded(error.rule)))
    if isinstance(error, Overloaded):
        more.append((b"grpc-retry-pushback-ms", b"%d" % max(1, round(error.retry_after_s * 1000))))
    if isinstance(error, UnsupportedMedia):
        more.append((b"grpc-accept-encoding", b"identity,gzip"))
    return trailers(GRPC.get(type(error), GRPC[ModelyardError]), error.message, *more)


def not_grpc(status: int) -> bytes:
    """The only block of the answer to what is no gRPC."""
    return field(b":status", b"%d" % status)
