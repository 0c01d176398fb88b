"""HTTP/2 by hand for tests: frames written and read one by one, over a socket or against a connection without one.

It keeps no rule that the server should keep for itself, so that a test can break each of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from hpack import Decoder, Encoder

from modelyard.serve import http2
from modelyard.serve.http2 import frame

INFER = "/inference.GRPCInferenceService/ModelInfer"


class Frame(NamedTuple):
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == http2.RST_STREAM else self.payload[4:8], "big")


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the beginning of `data`, and what is left."""
    frames, at = [], 0
    while len(data) - at >= 9:
        high, low, kind, flags, stream = http2.HEADER.unpack_from(data, at)
        size = high << 8 | low
        if len(data) - at - 9 < size:
            break
        frames.append(Frame(kind, flags, stream, data[at + 9 : at + 9 + size]))
        at += 9 + size
    return frames, data[at:]


def message(data: bytes, flag: int = 0) -> bytes:
    """A gRPC message in its framing."""
    return bytes((flag,)) + len(data).to_bytes(4, "big") + data


def fields(path: str = INFER, **more: str) -> list[tuple[str, str]]:
    """The head of a gRPC call; `grpc_timeout="1S"` is the field grpc-timeout."""
    given = {"content-type": "application/grpc", "te": "trailers"} | {name.replace("_", "-"): value for name, value in more.items()}
    return [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"), *given.items()]


class Caller:
    """One client's side of a connection: what it writes goes to `send`, what comes is taken by `feed`."""

    def __init__(self, send: Callable[[bytes], Any]) -> None:
        self.send = send
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.frames: list[Frame] = []
        self.next_id = 1
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what the server sent."""
        frames, self._rest = split(self._rest + data)
        self.frames += frames

    def greet(self, settings: dict[int, int] | None = None) -> None:
        """Send preface and SETTINGS."""
        self.send(http2.PREFACE + http2.settings(settings or {}))

    def begin(self, head: list[tuple[str, str]] | None = None, *, ends: bool = False) -> int:
        """Open a stream; gives its number."""
        number, self.next_id = self.next_id, self.next_id + 2
        flags = http2.END_HEADERS | (http2.END_STREAM if ends else 0)
        self.send(frame(http2.HEADERS, flags, number, self.encoder.encode(head or fields())))
        return number

    def data(self, number: int, data: bytes, *, ends: bool = True) -> None:
        """Send DATA in frames of the smallest largest size."""
        while len(data) > http2.DEFAULT_FRAME_BYTES:
            self.send(frame(http2.DATA, 0, number, data[: http2.DEFAULT_FRAME_BYTES]))
            data = data[http2.DEFAULT_FRAME_BYTES :]
        self.send(frame(http2.DATA, http2.END_STREAM if ends else 0, number, data))

    def call(self, data: bytes, head: list[tuple[str, str]] | None = None) -> int:
        """A whole unary call; gives its stream."""
        number = self.begin(head)
        self.data(number, message(data))
        return number

    def of(self, number: int) -> list[Frame]:
        """The frames of one stream so far."""
        return [each for each in self.frames if each.stream == number and each.kind not in {http2.WINDOW_UPDATE}]

    def headers(self) -> dict[int, dict[str, str]]:
        """All header fields so far, by stream; must be asked once, because of the table."""
        found: dict[int, dict[str, str]] = {}
        for each in self.frames:
            if each.kind == http2.HEADERS:
                found.setdefault(each.stream, {}).update({str(name): str(value) for name, value in self.decoder.decode(each.payload)})
        return found

    def body(self, number: int) -> bytes:
        """The data of one stream so far."""
        return b"".join(each.payload for each in self.frames if each.stream == number and each.kind == http2.DATA)

    @property
    def goaway(self) -> Frame | None:
        """The last GOAWAY, if one came."""
        return next((each for each in reversed(self.frames) if each.kind == http2.GOAWAY), None)


class Socketed(Caller):
    """A Caller on a TCP connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(self._send)
        self.connection = connection
        self.is_closed = False
        self.is_cut = False
        """Whether the server takes no more; what it said before can still be read."""

    def _send(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except OSError:
            self.is_cut = True

    def read(self, until: Callable[[], bool]) -> None:
        """Read until `until`, the end, or silence for the socket's timeout (which fails)."""
        while not until() and not self.is_closed:
            try:
                data = self.connection.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                self.is_closed = True
            self.feed(data)

    def ended(self, number: int) -> bool:
        """Whether the stream's answer is whole."""
        return any(each.flags & http2.END_STREAM for each in self.of(number) if each.kind in {http2.DATA, http2.HEADERS}) or any(
            each.kind == http2.RST_STREAM for each in self.of(number)
        )

    def answer(self, number: int) -> dict[str, str]:
        """Read until the stream's answer is whole; gives its fields."""
        self.read(lambda: self.ended(number) or self.goaway is not None)
        return self.headers().get(number, {})


@contextmanager
def connected(address: str, *, timeout: float = 20, settings: dict[int, int] | None = None, greets: bool = True) -> Any:
    """A Socketed at `host:port`."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller = Socketed(connection)
        if greets:
            caller.greet(settings)
        yield caller
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
