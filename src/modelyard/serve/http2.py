"""What HTTP/2 is on the wire: frames, error codes, limits, and header blocks with what was learned from earlier ones.

Hides HPACK: a block that was read before, byte for byte, under the same dynamic table is not decoded again (clients send nearly the same one
with each call). Pure: no socket, no clock. It must not know gRPC. Sources: RFC 9113, RFC 7541.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, HTTP_1_1_REQUIRED = range(7, 14)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
NO_PRIORITIES = 9

STREAMS = 256
"""Streams of one connection that may be open at once."""
FRAME_BYTES = 64 << 10
"""The largest frame that is taken."""
STREAM_WINDOW = 128 << 10
"""What a stream may send before it is known how long its message is."""
CONNECTION_WINDOW = 8 << 20
"""What a connection may send between two of our updates; memory is bounded by the streams' windows."""
LIST_BYTES = 16 << 10
"""The largest header list that is answered with anything but a refusal."""
BLOCK_BYTES = 64 << 10
"""The largest header block that is read at all, so that the table stays the peer's; a longer one ends the connection."""
CONTINUATIONS = 32
STREAM_ID_LIMIT = 0x7FFFFFFF
WINDOW_LIMIT = 0x7FFFFFFF
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_BYTES = 16_384

KNOWN_BLOCKS = 128
KNOWN_BLOCK_BYTES = 2048

HEADER = struct.Struct(">HBBBL")
"""Length (16 and 8 bits), kind, flags, stream."""
_SETTING = struct.Struct(">HL")
_U32 = struct.Struct(">L")

Fields = list[tuple[bytes, bytes]]


class ConnectionFailed(Exception):
    """The peer broke the protocol or a limit in a way that ends the connection: GOAWAY with `code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StreamFailed(Exception):
    """The peer broke the protocol on one stream: RST_STREAM with `code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The pairs of a SETTINGS frame, in order; those that RFC 9113 bounds are within their bounds. Raises ConnectionFailed."""
    if len(payload) % 6:
        raise ConnectionFailed(FRAME_SIZE_ERROR, "a SETTINGS frame holds pairs of six bytes")
    pairs: list[tuple[int, int]] = list(_SETTING.iter_unpack(payload))
    for name, value in pairs:
        if name == ENABLE_PUSH and value > 1:
            raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is 0 or 1")
        if name == INITIAL_WINDOW_SIZE and value > WINDOW_LIMIT:
            raise ConnectionFailed(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is at most 2^31 - 1")
        if name == MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value < 1 << 24:
            raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is from 2^14 to 2^24 - 1")
    return pairs


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, _U32.pack(size))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, _U32.pack(code))


def goaway(last: int, code: int, message: str = "") -> bytes:
    """A GOAWAY frame; `last` is the highest stream that was or will be worked on."""
    return frame(GOAWAY, 0, 0, _U32.pack(last) + _U32.pack(code) + message.encode())


def number(payload: bytes) -> int:
    """The 31 or 32 bits of a frame that holds one number. Raises ConnectionFailed for another size."""
    if len(payload) != 4:
        raise ConnectionFailed(FRAME_SIZE_ERROR, "the frame holds four bytes")
    value: int = _U32.unpack(payload)[0]
    return value


def unpadded(data: bytes, begin: int, end: int, flags: int, *, prioritised: bool = False) -> tuple[int, int]:
    """Where the content of a frame's payload lies, without padding and, in HEADERS, without the priority. Raises ConnectionFailed."""
    if flags & PADDED:
        if begin == end:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "a padded frame says how much padding it has")
        end -= data[begin]
        begin += 1
    if prioritised and flags & PRIORITISED:
        begin += 5
    if begin > end:
        raise ConnectionFailed(PROTOCOL_ERROR, "the padding is longer than the frame")
    return begin, end


# Header fields.

_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})


def check_fields(fields: Fields) -> None:
    """Raise StreamFailed unless `fields` are a well-formed request head (RFC 9113, 8.2 and 8.3)."""
    seen: set[bytes] = set()
    is_regular = False
    for name, value in fields:
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise StreamFailed(PROTOCOL_ERROR, "a header field is malformed")
        if name.startswith(b":"):
            if is_regular or name in seen or name not in _PSEUDO:
                raise StreamFailed(PROTOCOL_ERROR, "the pseudo-header fields are malformed")
            seen.add(name)
        else:
            is_regular = True
            if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
                raise StreamFailed(PROTOCOL_ERROR, "a header field belongs to HTTP/1.1")
    if not seen >= {b":method", b":scheme", b":path"}:
        raise StreamFailed(PROTOCOL_ERROR, "a request has :method, :scheme and :path")


def check_trailers(fields: Fields) -> None:
    """Raise StreamFailed unless `fields` may stand behind a request's body."""
    if any(not _NAME.fullmatch(name) or name.startswith(b":") or _BAD_VALUE.search(value) for name, value in fields):
        raise StreamFailed(PROTOCOL_ERROR, "a trailer field is malformed")


def list_bytes(fields: Fields) -> int:
    """The size of a header list as SETTINGS_MAX_HEADER_LIST_SIZE counts it."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


class _Table(HeaderTable):  # type: ignore[misc, unused-ignore]
    """A dynamic table that says when it changed."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.generation += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, size: int) -> None:
        self.generation += 1
        HeaderTable.maxsize.fset(self, size)  # type: ignore[attr-defined]


class Blocks:
    """The header blocks of one connection, which must be read in the order in which they came, each once.

    `make` turns fields into what is remembered: it may raise StreamFailed, and gives an object with `is_cacheable`.
    """

    def __init__(self, make: Callable[[Fields], Any]) -> None:
        self._make = make
        self._decoder = Decoder(max_header_list_size=BLOCK_BYTES)
        self._table = self._decoder.header_table = _Table()
        self._known: dict[bytes, Any] = {}

    def head(self, block: bytes) -> Any:
        """What `make` makes of the request head in `block`. Raises ConnectionFailed or StreamFailed."""
        head = self._known.get(block)
        if head is not None:
            return head
        before = self._table.generation
        fields = self.fields(block)
        head = self._make(fields)
        if self._table.generation == before and head.is_cacheable and len(block) <= KNOWN_BLOCK_BYTES:
            if len(self._known) >= KNOWN_BLOCKS:
                self._known.clear()
            self._known[block] = head
        return head

    def fields(self, block: bytes) -> Fields:
        """The fields in `block`. Raises ConnectionFailed: where one block cannot be read, none behind it can."""
        before = self._table.generation
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, f"a header list has at most {LIST_BYTES:,} bytes") from None
        except (HPACKError, IndexError, ValueError):
            raise ConnectionFailed(COMPRESSION_ERROR, "a header block cannot be decoded") from None
        finally:
            if self._table.generation != before:
                self._known.clear()  # an index may mean something else now


class Allowance:
    """How much of something a peer may do beyond what is useful: a burst, refilled with time and by being useful."""

    __slots__ = ("_burst", "_left", "_per_s", "_since_s")

    def __init__(self, burst: int, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._since_s = now

    def spend(self, now: float, size: int = 1) -> bool:
        """Take `size` from it; False when it is used up."""
        self._left = min(self._burst, self._left + (now - self._since_s) * self._per_s) - size
        self._since_s = now
        return self._left >= 0

    def earn(self, size: int) -> None:
        """Give back for a useful frame."""
        self._left = min(self._burst, self._left + size)
