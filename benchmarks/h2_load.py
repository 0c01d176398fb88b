"""A closed loop of gRPC calls by hand: `python -m benchmarks.h2_load ADDRESS CONNECTIONS STREAMS SECONDS MESSAGE [KEY]`.

A client library for Python costs more per call than either server, so this one writes frames made before and counts the answers: STREAMS calls
in flight on each of CONNECTIONS connections. Prints the calls per second and the median wait as JSON.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import struct
import sys
import time
from pathlib import Path

from hpack import Encoder

HEADER = struct.Struct(">HBBBL")
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = "/inference.GRPCInferenceService/ModelInfer"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


class Client:
    """One connection with `streams` calls in flight."""

    def __init__(self, address: tuple[str, int], message: bytes, streams: int, key: str) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fields = [(":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "127.0.0.1"), ("content-type", "application/grpc")]
        fields += [("te", "trailers"), ("user-agent", "load/1")] + ([("authorization", f"Bearer {key}")] if key else [])
        encoder = Encoder()
        self.block = encoder.encode(fields)
        self.later = encoder.encode(fields)
        self.message = b"\0" + len(message).to_bytes(4, "big") + message
        self.next_id = 1
        self.rest = b""
        self.began: dict[int, float] = {}
        self.waits: list[float] = []
        self.unread = 0
        self.read_before = 0
        settings = struct.pack(">HLHL", 4, 0x7FFFFFFF, 3, 0)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", 0x7FFF0000 - 65535)))
        self.socket.sendall(b"".join(self.call() for _ in range(streams)))

    def call(self) -> bytes:
        """The frames of one call."""
        stream, self.next_id = self.next_id, self.next_id + 2
        block, self.block = self.block, self.later
        self.began[stream] = time.perf_counter()
        head, data = len(block), len(self.message)
        return b"".join((HEADER.pack(0, head, HEADERS, 4, stream), block, HEADER.pack(data >> 8, data & 0xFF, DATA, 1, stream), self.message))

    def read(self) -> None:
        """Take what came, and ask again for each answer."""
        data = self.rest + self.socket.recv(1 << 18)
        at, size = 0, len(data)
        out = []
        while size - at >= 9:
            high, low, kind, flags, stream = HEADER.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end > size:
                break
            if kind == DATA:
                self.unread += end - at - 9
            elif kind == HEADERS:
                if flags & 1:
                    self.waits.append(time.perf_counter() - self.began.pop(stream))
                    if self.unread == self.read_before:  # an answer that is no refusal has data
                        raise RuntimeError(f"a call was refused: {data[at:end]!r}")
                    self.read_before = self.unread
                    out.append(self.call())
            elif kind == PING and not flags & 1:
                out.append(frame(PING, 1, 0, data[at + 9 : end]))
            elif kind == SETTINGS and not flags & 1:
                out.append(frame(SETTINGS, 1, 0))
            elif kind in {RST_STREAM, GOAWAY}:
                raise RuntimeError(f"the server broke off: {data[at:end]!r}")
            at = end
        self.rest = data[at:]
        if self.unread > 1 << 24:
            out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", self.unread)))
            self.unread = self.read_before = 0
        if out:
            self.socket.sendall(b"".join(out))


def load(address: tuple[str, int], message: bytes, *, connections: int, streams: int, seconds: float, key: str = "") -> dict[str, float]:
    """Calls per second and the median wait in µs."""
    clients = [Client(address, message, streams, key) for _ in range(connections)]
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        for chosen, _ in selector.select(1):
            chosen.data.read()
    elapsed = time.perf_counter() - began
    waits = [wait for client in clients for wait in client.waits]
    for client in clients:
        client.socket.close()
    return {"rate": len(waits) / elapsed, "p50_us": statistics.median(waits) * 1e6 if waits else float("nan")}


def main() -> None:
    """See the module."""
    address, connections, streams, seconds, message, *key = sys.argv[1:]
    host, _, port = address.rpartition(":")
    told = load(
        (host, int(port)), Path(message).read_bytes(), connections=int(connections), streams=int(streams), seconds=float(seconds), key="".join(key)
    )
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
