"""HTTP/2 for one event loop: connections and their streams, flow control both ways, within limits.

Hides frames, windows, the order in which answers leave, time limits, and what a peer may do without being useful before it is sent away
(rapid resets, floods of PING, SETTINGS or empty frames). It must not know gRPC, routes or models: a `Stream` of the server's own kind takes what
arrives. All of it runs in the event loop's thread. Source: RFC 9113.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from modelyard.config import Settings
from modelyard.serve import http2
from modelyard.serve.http import BODY_BYTES_S, BODY_GRACE_S, HEADER_TIMEOUT_S, LINGER_S, STALLED_WRITE_S
from modelyard.serve.http2 import Allowance, Blocks, ConnectionFailed, StreamFailed, frame
from modelyard.serve.tls import Tls

SWEEP_S = 0.5
IDLE_S = 300.0
"""A connection without a stream is asked to go after so long; a client connects again by itself."""
SILENT_S = 75.0
"""A connection with streams, but without a byte for so long, is asked whether it lives."""
PONG_S = 20.0
OUT_BYTES = 256 << 10
"""While more than this waits to be sent, or will when what is in work is answered, no further request of the connection is worked on."""
MESSAGES_BYTES = 8 << 20
"""What the messages under way of one connection may take together, beyond the first window of each stream."""
LINGER_BYTES = 32 << 20
RESETS, RESETS_S = 500, 33.0
"""Streams that a peer may break off: a burst, and a rate."""
IDLE_FRAMES, IDLE_FRAMES_S = 1000, 10.0
"""Frames without use (PING, SETTINGS, PRIORITY, empty ones): a burst, and a rate."""
EARNED = 8
"""Idle frames that a request pays for: a client may measure the line and open windows with each."""
SMALL_UPDATE = 1024
REMEMBERED = 512
"""Streams that we broke off: what the peer had sent before it knew is let pass."""

_DRAIN_PING = b"modelyrd"
_HEADER = http2.HEADER


class Stream:
    """One request and its answer to be. Lives in the event loop; the kinds below say what is done with what arrives."""

    __slots__ = ("connection", "id", "is_ended", "is_live", "mark", "mark_s", "outgoing", "reserved", "room", "trailers", "window")

    def __init__(self, connection: Connection, id: int, now: float) -> None:
        self.connection = connection
        self.id = id
        self.is_live = True
        """Whether an answer can still be sent."""
        self.is_ended = False
        """Whether the peer has sent everything."""
        self.window = connection.peer_window
        """What we may send."""
        self.room = http2.STREAM_WINDOW
        """What the peer may send."""
        self.reserved = 0
        self.outgoing: deque[memoryview] | None = None
        self.trailers: bytes | None = None
        self.mark = 0
        self.mark_s = now

    # What arrives.

    def take(self, data: bytes) -> None:
        """Take a part of the body; `is_ended` says whether it is the last."""

    def gone(self) -> None:
        """Nobody waits any more."""

    @property
    def awaited(self) -> int:
        """Bytes received of what must go on arriving, above 0; 0 while nothing is due."""
        return 0

    @property
    def is_busy(self) -> bool:
        """Whether an answer is due."""
        return True

    def overdue(self, now: float) -> None:
        """Called about every half second, to end what has overstayed."""

    def drain(self) -> None:
        """The server ends: what would go on for ever ends now."""

    def late(self) -> None:
        """What is due arrives too slowly."""

    # What is sent.

    def grant(self, size: int) -> None:
        """Let the peer send `size` bytes more."""
        if size > 0 and self.is_live and not self.is_ended:
            self.room += size
            self.connection.write(http2.window_update(self.id, size))

    def reply(self, head: bytes, data: bytes, trailers: bytes) -> None:
        """Answer whole: header block, data, trailer block. At most once, and only where nothing was sent before."""
        connection, size, number = self.connection, len(data), self.id
        if not self.is_live:
            return
        if size <= self.window and size <= connection.window and size <= connection.peer_frame_bytes and not connection.is_write_paused:
            connection.window -= size
            pack = _HEADER.pack
            parts = (
                pack(len(head) >> 8, len(head) & 0xFF, http2.HEADERS, http2.END_HEADERS, number), head,
                pack(size >> 8, size & 0xFF, http2.DATA, 0, number), data,
                pack(len(trailers) >> 8, len(trailers) & 0xFF, http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, number), trailers,
            )  # fmt: skip
            connection.write(b"".join(parts))
            connection.close_stream(self)
            return
        self.begin(head)
        self.send(data)
        self.end(trailers)

    def begin(self, head: bytes) -> None:
        """Send the header block."""
        self.connection.write(frame(http2.HEADERS, http2.END_HEADERS, self.id, head))

    def send(self, data: bytes) -> None:
        """Send data, as the peer's windows allow."""
        if self.is_live and data:
            self.connection.send(self, data)

    def end(self, trailers: bytes) -> None:
        """Send the trailer block (or, where nothing was sent, the only one) behind all data, and close."""
        if not self.is_live:
            return
        if self.outgoing:
            self.trailers = trailers
            return
        self.connection.write(frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, self.id, trailers))
        self.connection.close_stream(self)

    def reset(self, code: int) -> None:
        """Break it off."""
        if self.is_live:
            self.connection.write(http2.reset(self.id, code))
            self.connection.forget(self, is_ours=True)


class Host(Protocol):
    """What a connection asks of its server."""

    settings: Settings
    connections: set[Connection]
    accepted: int
    loop: asyncio.AbstractEventLoop
    is_draining: bool
    tls: Tls | None

    def head(self, fields: http2.Fields) -> Any:
        """What is kept of a request's head. Raises StreamFailed."""

    def open(self, connection: Connection, id: int, head: Any, now: float, *, is_ended: bool) -> Stream:
        """A stream for the request with `head`, put among the connection's."""

    def refused(self, code: int) -> None:
        """Count a connection or stream that broke the protocol."""


class Connection(asyncio.Protocol):
    """One client's connection. `heard_s` is when something arrived last; `held` are requests that wait until answers have left."""

    __slots__ = (
        "_accepts_below", "_block", "_block_flags", "_blocked", "_blocks", "_broken", "_closing_s", "_continuations", "_discarded", "_idle_frames",
        "_is_greeted", "_is_read_paused", "_is_releasing", "_is_settled", "_partial_s", "_pinged_s", "_received", "_resets", "_rest", "_sent_s",
        "_waiting", "answer_bytes", "heard_s", "held", "host", "in_work", "is_write_paused", "last_id", "peer_frame_bytes", "peer_window",
        "queued_bytes", "reserved", "streams", "transport", "window",
    )  # fmt: skip

    def __init__(self, host: Host) -> None:
        now = monotonic()
        self.host = host
        self.transport: Any = None
        self.streams: dict[int, Stream] = {}
        self.last_id = 0
        self.window = http2.DEFAULT_WINDOW
        self.peer_window = http2.DEFAULT_WINDOW
        self.peer_frame_bytes = http2.DEFAULT_FRAME_BYTES
        self.queued_bytes = 0
        self.in_work = 0
        self.answer_bytes = 0
        self.reserved = 0
        self.held: deque[Callable[[], None]] = deque()
        self.is_write_paused = False
        self.heard_s = now
        self._sent_s = now
        self._blocks = Blocks(host.head)
        self._blocked: dict[int, Stream] = {}
        self._waiting: deque[tuple[Stream, int]] = deque()
        self._broken: dict[int, None] = {}
        self._accepts_below = http2.STREAM_ID_LIMIT + 1
        self._block: tuple[int, bytearray] | None = None
        self._block_flags = 0
        self._continuations = 0
        self._received = 0
        self._rest = b""
        self._partial_s = now
        self._is_greeted = False
        self._is_releasing = False
        self._is_settled = False
        self._is_read_paused = False
        self._closing_s = 0.0
        self._discarded = 0
        self._pinged_s = 0.0
        self._resets = Allowance(RESETS, RESETS_S, now)
        self._idle_frames = Allowance(IDLE_FRAMES, IDLE_FRAMES_S, now)

    # asyncio calls these.

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=OUT_BYTES)
        host = self.host
        if host.tls is not None and not host.tls.admits(transport.get_extra_info("ssl_object")):
            self._closing_s = monotonic()
            transport.abort()
            return
        said = {
            http2.MAX_CONCURRENT_STREAMS: http2.STREAMS,
            http2.INITIAL_WINDOW_SIZE: http2.STREAM_WINDOW,
            http2.MAX_FRAME_SIZE: http2.FRAME_BYTES,
            http2.MAX_HEADER_LIST_SIZE: http2.LIST_BYTES,
            http2.NO_PRIORITIES: 1,
        }
        transport.write(http2.settings(said) + http2.window_update(0, http2.CONNECTION_WINDOW - http2.DEFAULT_WINDOW))
        if len(host.connections) >= host.settings.max_connections:
            self._fail(ConnectionFailed(http2.ENHANCE_YOUR_CALM, "this server has as many connections as it takes; try again"))
        host.connections.add(self)
        host.accepted += 1

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self.host.connections.discard(self)
        self.transport = None
        self._abandon()

    def eof_received(self) -> bool:
        return False  # a client that half-closes sends no more WINDOW_UPDATE: nothing can be promised to it

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._sent_s = monotonic()
        if self.transport is not None and not self._is_read_paused:
            self._is_read_paused = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self._sent_s = monotonic()
        if self.transport is not None and self._is_read_paused:
            self._is_read_paused = False
            self.transport.resume_reading()
        self._pump()

    def data_received(self, data: bytes) -> None:
        if self._closing_s:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES and self.transport is not None:
                self.transport.abort()
            return
        self.heard_s = now = monotonic()
        if self._rest:
            data = self._rest + data
        try:
            at = self._read(data, now)
        except ConnectionFailed as failure:
            self._rest = b""
            self._fail(failure)
            return
        if at == len(data):
            self._rest = b""
        else:
            if (at or not self._rest) and self._is_settled and self._block is None:
                self._partial_s = now  # else the time runs from the connection's or the block's beginning
            self._rest = data[at:]

    # Frames.

    def _read(self, data: bytes, now: float) -> int:
        """Take the whole frames at the beginning of `data`; gives where the first one begins that is not whole."""
        at, size = 0, len(data)
        if not self._is_greeted:
            at = self._greet(data)
            if not at:
                return 0
        unpack = _HEADER.unpack_from
        while size - at >= 9:
            high, low, kind, flags, number = unpack(data, at)
            length = high << 8 | low
            if length > http2.FRAME_BYTES:
                raise ConnectionFailed(http2.FRAME_SIZE_ERROR, f"a frame has at most {http2.FRAME_BYTES:,} bytes")
            begin = at + 9
            end = begin + length
            if end > size:
                break
            at = end
            number &= http2.STREAM_ID_LIMIT
            if self._block is not None and kind != http2.CONTINUATION:
                raise ConnectionFailed(http2.PROTOCOL_ERROR, "a header block is not whole")
            if not self._is_settled and kind != http2.SETTINGS:
                raise ConnectionFailed(http2.PROTOCOL_ERROR, "the first frame is SETTINGS")
            if kind == http2.DATA:
                self._on_data(data, begin, end, number, flags)
            elif kind == http2.HEADERS:
                self._on_headers(data, begin, end, number, flags)
            elif kind == http2.WINDOW_UPDATE:
                self._on_window_update(data[begin:end], number, now)
            else:
                self._on_other(kind, data[begin:end], number, flags, now)
            if self._closing_s or self.transport is None:
                return size
        return at

    def _greet(self, data: bytes) -> int:
        preface = http2.PREFACE
        if not data.startswith(preface[: len(data)]):
            raise ConnectionFailed(http2.PROTOCOL_ERROR, "this port speaks HTTP/2 (gRPC)")
        if len(data) < len(preface):
            return 0
        self._is_greeted = True
        return len(preface)

    def _on_data(self, data: bytes, begin: int, end: int, id: int, flags: int) -> None:
        length = end - begin
        self._received += length
        if self._received > http2.CONNECTION_WINDOW:
            raise ConnectionFailed(http2.FLOW_CONTROL_ERROR, "more data was sent than the connection's window allows")
        if self._received >= http2.CONNECTION_WINDOW >> 1:
            self.write(http2.window_update(0, self._received))
            self._received = 0
        stream = self.streams.get(id)
        if stream is None or stream.is_ended:
            self._on_stray(http2.DATA, id, self.heard_s)
            return
        stream.room -= length
        if stream.room < 0:
            self._break(stream, http2.FLOW_CONTROL_ERROR, self.heard_s)
            return
        if flags & http2.PADDED:
            begin, end = http2.unpadded(data, begin, end, flags)
            stream.grant(length - (end - begin))
        if flags & http2.END_STREAM:
            stream.is_ended = True
        elif begin == end:
            self.idle(self.heard_s)
        stream.take(data[begin:end])

    def _on_headers(self, data: bytes, begin: int, end: int, id: int, flags: int) -> None:
        if flags & (http2.PADDED | http2.PRIORITISED):
            begin, end = http2.unpadded(data, begin, end, flags, prioritised=True)
        if not id & 1:
            raise ConnectionFailed(http2.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if flags & http2.END_HEADERS:
            self._on_block(id, data[begin:end], flags, self.heard_s)
        else:
            self._block, self._block_flags, self._continuations = (id, bytearray(data[begin:end])), flags, 0
            self._partial_s = self.heard_s

    def _on_continuation(self, payload: bytes, id: int, flags: int, now: float) -> None:
        if self._block is None or self._block[0] != id:
            raise ConnectionFailed(http2.PROTOCOL_ERROR, "a CONTINUATION continues nothing")
        block = self._block[1]
        block += payload
        self._continuations += 1
        if len(block) > http2.BLOCK_BYTES or self._continuations > http2.CONTINUATIONS:
            raise ConnectionFailed(http2.ENHANCE_YOUR_CALM, f"a header list has at most {http2.LIST_BYTES:,} bytes")
        if flags & http2.END_HEADERS:
            self._block = None
            self._on_block(id, bytes(block), self._block_flags, now)

    def _on_block(self, id: int, block: bytes, flags: int, now: float) -> None:
        if id <= self.last_id:
            self._on_trailers(id, self._blocks.fields(block), flags, now)
            return
        self.last_id = id
        try:
            head = self._blocks.head(block)
        except StreamFailed as failure:
            self._refuse(id, failure.code, now)
            return
        if id >= self._accepts_below:
            return  # the peer was told that it would not be worked on
        if len(self.streams) >= http2.STREAMS:
            self._refuse(id, http2.REFUSED_STREAM, now)
            return
        self.earned()
        stream = self.host.open(self, id, head, now, is_ended=bool(flags & http2.END_STREAM))
        if stream.is_ended and stream.is_live:
            stream.take(b"")

    def _on_trailers(self, id: int, fields: http2.Fields, flags: int, now: float) -> None:
        stream = self.streams.get(id)
        if stream is None or stream.is_ended:
            self._on_stray(http2.HEADERS, id, now)
            return
        try:
            http2.check_trailers(fields)
        except StreamFailed:
            self._break(stream, http2.PROTOCOL_ERROR, now)
            return
        if not flags & http2.END_STREAM:
            self._break(stream, http2.PROTOCOL_ERROR, now)
            return
        stream.is_ended = True
        stream.take(b"")

    def _on_window_update(self, payload: bytes, id: int, now: float) -> None:
        size = http2.number(payload) & http2.WINDOW_LIMIT
        if size < SMALL_UPDATE:
            self.idle(now)
        if id == 0:
            if size == 0:
                raise ConnectionFailed(http2.PROTOCOL_ERROR, "a window grows by at least 1")
            self.window += size
            if self.window > http2.WINDOW_LIMIT:
                raise ConnectionFailed(http2.FLOW_CONTROL_ERROR, "a window is at most 2^31 - 1")
        else:
            stream = self.streams.get(id)
            if stream is None:
                self._on_stray(http2.WINDOW_UPDATE, id, now)
                return
            stream.window += size
            if size == 0 or stream.window > http2.WINDOW_LIMIT:
                self._break(stream, http2.FLOW_CONTROL_ERROR if size else http2.PROTOCOL_ERROR, now)
                return
        if self._blocked:
            self._pump()

    def _on_other(self, kind: int, payload: bytes, id: int, flags: int, now: float) -> None:
        if kind == http2.CONTINUATION:
            self._on_continuation(payload, id, flags, now)
        elif kind == http2.RST_STREAM:
            self._on_reset(payload, id, now)
        elif kind == http2.SETTINGS:
            self._on_settings(payload, id, flags, now)
        elif kind == http2.PING:
            self._on_ping(payload, id, flags, now)
        elif kind == http2.GOAWAY:
            if id or len(payload) < 8:
                raise ConnectionFailed(http2.PROTOCOL_ERROR if id else http2.FRAME_SIZE_ERROR, "GOAWAY is malformed")
            self._accepts_below = min(self._accepts_below, self.last_id + 1)
            self._close_if_done()
        elif kind == http2.PUSH_PROMISE:
            raise ConnectionFailed(http2.PROTOCOL_ERROR, "a client promises nothing")
        else:  # PRIORITY and what is not known
            if kind == http2.PRIORITY and (id == 0 or len(payload) != 5):
                raise ConnectionFailed(http2.FRAME_SIZE_ERROR if id else http2.PROTOCOL_ERROR, "PRIORITY is malformed")
            self.idle(now)

    def _on_reset(self, payload: bytes, id: int, now: float) -> None:
        http2.number(payload)
        stream = self.streams.get(id)
        if stream is None:
            self._on_stray(http2.RST_STREAM, id, now)
            return
        if not self._resets.spend(now):
            raise ConnectionFailed(http2.ENHANCE_YOUR_CALM, "too many streams were broken off")
        self.forget(stream)

    def _on_settings(self, payload: bytes, id: int, flags: int, now: float) -> None:
        if id:
            raise ConnectionFailed(http2.PROTOCOL_ERROR, "SETTINGS belong to the connection")
        if flags & http2.ACK:
            if payload:
                raise ConnectionFailed(http2.FRAME_SIZE_ERROR, "an acknowledgement is empty")
            if not self._is_settled:
                raise ConnectionFailed(http2.PROTOCOL_ERROR, "the first frame is SETTINGS")
            return
        self.idle(now)
        for name, value in dict(http2.read_settings(payload)).items():  # the last of a name counts: a frame holds 10,000 pairs
            if name == http2.INITIAL_WINDOW_SIZE:
                change, self.peer_window = value - self.peer_window, value
                for stream in self.streams.values():
                    stream.window += change
                    if stream.window > http2.WINDOW_LIMIT:
                        raise ConnectionFailed(http2.FLOW_CONTROL_ERROR, "a window is at most 2^31 - 1")
            elif name == http2.MAX_FRAME_SIZE:
                self.peer_frame_bytes = min(value, http2.FRAME_BYTES)
        self._is_settled = True
        self.write(frame(http2.SETTINGS, http2.ACK, 0))
        if self._blocked:
            self._pump()

    def _on_ping(self, payload: bytes, id: int, flags: int, now: float) -> None:
        if id or len(payload) != 8:
            raise ConnectionFailed(http2.PROTOCOL_ERROR if id else http2.FRAME_SIZE_ERROR, "PING is malformed")
        if flags & http2.ACK:
            if payload == _DRAIN_PING and self.host.is_draining:
                self._finish_drain()
            return
        self.idle(now)
        self.write(frame(http2.PING, http2.ACK, 0, payload))

    def _on_stray(self, kind: int, id: int, now: float) -> None:
        """A frame for a stream that is not, or no longer, open."""
        if id == 0 or id > self.last_id:
            raise ConnectionFailed(http2.PROTOCOL_ERROR, "a frame belongs to no stream")
        self.idle(now)
        if kind in {http2.DATA, http2.HEADERS} and id not in self._broken:
            stream = self.streams.get(id)
            if stream is not None:
                self._break(stream, http2.STREAM_CLOSED, now)
            elif kind == http2.HEADERS:
                raise ConnectionFailed(http2.STREAM_CLOSED, "the stream is closed")
            else:
                self._refuse(id, http2.STREAM_CLOSED, now)

    def idle(self, now: float) -> None:
        """Count a frame without use. Raises ConnectionFailed when there were too many."""
        if not self._idle_frames.spend(now):
            raise ConnectionFailed(http2.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def _refuse(self, id: int, code: int, now: float) -> None:
        """Refuse a stream that was not opened."""
        self.write(http2.reset(id, code))
        self._remember(id)
        if not self._resets.spend(now):
            raise ConnectionFailed(http2.ENHANCE_YOUR_CALM, "too many streams were refused")
        self.host.refused(code)

    def _break(self, stream: Stream, code: int, now: float) -> None:
        """Break off a stream on which the peer erred; that costs it as if it had done so (CVE-2025-8671)."""
        stream.reset(code)
        if not self._resets.spend(now):
            raise ConnectionFailed(http2.ENHANCE_YOUR_CALM, "too many streams were broken off")
        self.host.refused(code)

    def _remember(self, id: int) -> None:
        self._broken[id] = None
        if len(self._broken) > REMEMBERED:
            del self._broken[next(iter(self._broken))]

    # Sending.

    def write(self, data: bytes) -> None:
        """Send the bytes of frames that no window bounds."""
        if self.transport is not None:
            self.transport.write(data)

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be sent, or is expected to, that no further request is worked on."""
        return self.is_write_paused or self.queued_bytes + self.in_work * self.answer_bytes > OUT_BYTES

    def begun(self) -> None:
        """Work on one more request has begun."""
        self.in_work += 1

    def done(self, size: int) -> None:
        """A request has its answer, of `size` bytes; the largest of late is what others are expected to take."""
        self.in_work -= 1
        expected = self.answer_bytes
        self.answer_bytes = max(size, expected - (expected >> 4))
        if self.held:
            self._release_held()

    def _release_held(self) -> None:
        """Hand on what waited for room."""
        if self._is_releasing:
            return  # what was handed on was answered at once, and came back here
        self._is_releasing = True
        while self.held and not self.is_full and self.transport is not None:
            self.held.popleft()()
        self._is_releasing = False

    @property
    def is_sending(self) -> bool:
        """Whether a part of an answer waits for the peer to take it."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def earned(self) -> None:
        """Something useful was done for the peer."""
        self._idle_frames.earn(EARNED)

    def send(self, stream: Stream, data: bytes) -> None:
        """Send `data` on `stream` now, as far as the windows allow, and the rest as they open."""
        if stream.outgoing is None:
            stream.outgoing = deque()
        if not self.queued_bytes:
            self._sent_s = monotonic()
        stream.outgoing.append(memoryview(data))
        self.queued_bytes += len(data)
        self._blocked[stream.id] = stream
        self._pump()

    def _pump(self) -> None:
        """Send what waits for the peer's windows, a frame of each stream in turn."""
        blocked = self._blocked
        sent = 0
        is_moving = True
        while is_moving and blocked:
            is_moving = False
            for stream in list(blocked.values()):
                if self.window <= 0 or self.is_write_paused or self.transport is None:
                    break
                if stream.window > 0:
                    sent += self._send_one(stream)
                    is_moving = True
        if sent:
            self._sent_s = monotonic()
            self._idle_frames.earn(1 + (sent >> 10))
        if self.held:
            self._release_held()

    def _send_one(self, stream: Stream) -> int:
        outgoing = stream.outgoing or deque()
        data = outgoing[0]
        size = min(len(data), stream.window, self.window, self.peer_frame_bytes)
        if size == len(data):
            outgoing.popleft()
        else:
            outgoing[0] = data[size:]
        stream.window -= size
        self.window -= size
        self.queued_bytes -= size
        self.write(_HEADER.pack(size >> 8, size & 0xFF, http2.DATA, 0, stream.id) + bytes(data[:size]))
        if not outgoing:
            del self._blocked[stream.id]
            if stream.trailers is not None:
                self.write(frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream.id, stream.trailers))
                self.close_stream(stream)
        return size

    # Room for messages.

    def reserve(self, stream: Stream, size: int) -> None:
        """Let `stream` send `size` bytes more, now or when others have sent theirs: their memory is bounded together."""
        if self._waiting or (self.reserved and self.reserved + size > MESSAGES_BYTES):
            self._waiting.append((stream, size))
            return
        self.reserved += size
        stream.reserved += size
        stream.grant(size)

    def release(self, stream: Stream) -> None:
        """The message of `stream` has arrived, or never will."""
        if stream.reserved:
            self.reserved -= stream.reserved
            stream.reserved = 0
        while self._waiting:
            waiting, size = self._waiting[0]
            if waiting.is_live:
                if self.reserved and self.reserved + size > MESSAGES_BYTES:
                    return
                self.reserved += size
                waiting.reserved += size
                waiting.mark_s = monotonic()
                waiting.grant(size)
            self._waiting.popleft()

    def is_waiting(self, stream: Stream) -> bool:
        """Whether it is we who hold up what `stream` sends."""
        return any(waiting is stream for waiting, _ in self._waiting)

    # Ends.

    def close_stream(self, stream: Stream) -> None:
        """The answer has been sent whole."""
        if not stream.is_ended:
            self.write(http2.reset(stream.id, http2.NO_ERROR))
        self.forget(stream, is_ours=not stream.is_ended)

    def forget(self, stream: Stream, *, is_ours: bool = False) -> None:
        """Nothing more is sent or taken on `stream`."""
        stream.is_live = False
        self.streams.pop(stream.id, None)
        if is_ours:
            self._remember(stream.id)
        if stream.outgoing:
            self.queued_bytes -= sum(map(len, stream.outgoing))
            stream.outgoing.clear()
            self._blocked.pop(stream.id, None)
        stream.gone()
        if self.held:
            self._release_held()
        if stream.reserved or self._waiting:
            self.release(stream)
        if not self.streams:
            self._close_if_done()

    def _abandon(self) -> None:
        self.held.clear()
        for stream in list(self.streams.values()):
            stream.is_live = False
            stream.gone()
        self.streams.clear()
        self._blocked.clear()
        self._waiting.clear()
        self.queued_bytes = self.reserved = 0
        self._rest = b""
        self._block = None

    def _fail(self, failure: ConnectionFailed) -> None:
        """Say why, and close."""
        self.host.refused(failure.code)
        self.write(http2.goaway(self.last_id, failure.code, failure.message))
        self._abandon()
        self._close()

    def _close(self) -> None:
        """Say that no more will be sent, then wait a little for the other side, so that a reset does not overtake what was said."""
        if self.transport is None or self._closing_s:
            return
        self._closing_s = monotonic()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            if self._is_read_paused:
                self._is_read_paused = False
                self.transport.resume_reading()
        else:
            self.transport.close()

    def drain(self) -> None:
        """Ask the client to go: what it has asked, and what is on the way, is still answered."""
        if self.transport is None or self._closing_s:
            return
        self.write(http2.goaway(http2.STREAM_ID_LIMIT, http2.NO_ERROR) + frame(http2.PING, 0, 0, _DRAIN_PING))
        self._pinged_s = monotonic()

    def _finish_drain(self) -> None:
        """The client has heard: what it opens from here on is not worked on."""
        if self._accepts_below > http2.STREAM_ID_LIMIT:
            self._accepts_below = self.last_id + 1
            self.write(http2.goaway(self.last_id, http2.NO_ERROR))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self.streams and self._accepts_below <= http2.STREAM_ID_LIMIT:
            self._close()

    def sweep(self, now: float) -> None:
        """End what has overstayed; called about every half second."""
        if self.transport is None:
            return
        if self._closing_s:
            if now - self._closing_s > (STALLED_WRITE_S if self.is_sending or not self.transport.can_write_eof() else LINGER_S):
                self.transport.abort()
        elif (self.is_write_paused or self.queued_bytes) and now - self._sent_s > STALLED_WRITE_S:
            self.transport.abort()
        elif self.is_write_paused:
            return  # it is we who do not read
        elif self._is_overdue(now):
            self._fail(ConnectionFailed(http2.ENHANCE_YOUR_CALM, "what was begun did not arrive in time"))
        elif self._pinged_s and self.host.is_draining:
            if now - self._pinged_s > SWEEP_S:
                self._finish_drain()
        elif not self.streams:
            if now - self.heard_s > IDLE_S:
                self.write(http2.goaway(self.last_id, http2.NO_ERROR, "idle"))
                self._close()
        else:
            self._ask_after(now)
            for stream in list(self.streams.values()):
                self._sweep_stream(stream, now)

    def _is_overdue(self, now: float) -> bool:
        age_s = now - self._partial_s
        if not self._is_settled or self._block is not None:
            return age_s > HEADER_TIMEOUT_S
        return bool(self._rest) and age_s > BODY_GRACE_S + (http2.FRAME_BYTES / BODY_BYTES_S if self._rest[3:4] == b"\0" else 0)

    def _ask_after(self, now: float) -> None:
        """A peer that is silent beside open streams is asked whether it lives."""
        if now - self.heard_s <= SILENT_S:
            self._pinged_s = 0.0
        elif not self._pinged_s:
            self._pinged_s = now
            self.write(frame(http2.PING, 0, 0, b"are you?"))
        elif now - self._pinged_s > PONG_S:
            self.transport.abort()

    def _sweep_stream(self, stream: Stream, now: float) -> None:
        stream.overdue(now)
        received = stream.awaited
        if not received or not stream.is_live or self.is_waiting(stream):
            stream.mark, stream.mark_s = received, now
        elif now - stream.mark_s > BODY_GRACE_S:
            if received - stream.mark >= BODY_BYTES_S * BODY_GRACE_S:
                stream.mark, stream.mark_s = received, now
            else:
                stream.late()
