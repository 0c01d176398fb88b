"""gRPC calls on HTTP/2 streams: messages put together, calls handed on, answers and statuses sent; and the server of a worker.

Hides the shapes of a call: `Unary` has one message each way, `Talk` any number both ways, answered in order. It must not know services, models or
protobuf: it hands each `Call` to one callable and sends what that answers with. All of it runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelyard.config import Settings
from modelyard.errors import DeadlineExceeded, MalformedPayload, ModelyardError, Unavailable
from modelyard.security.policy import Right
from modelyard.serve import grpc, http2
from modelyard.serve.errors import UNIMPLEMENTED
from modelyard.serve.grpc import Asked, Head
from modelyard.serve.http import is_header_safe
from modelyard.serve.streams import SWEEP_S, Connection, Stream
from modelyard.serve.tls import HANDSHAKE_TIMEOUT_S, SHUTDOWN_TIMEOUT_S, Tls

if TYPE_CHECKING:
    from modelyard.types import InferenceRequest, InferenceResponse

IN_WORK = 32
"""Messages of one stream that are worked on at once."""

SMALL_PART = 256
"""A part of a message that is smaller and completes nothing is a frame without much use."""


class Route:
    """What a method asks for, and the right that it takes. `in_band` makes a message of a refusal, where the stream goes on behind it."""

    __slots__ = ("handler", "in_band", "is_endless", "is_talk", "right", "tick")

    def __init__(
        self,
        handler: Callable[[Call], None],
        right: Right,
        *,
        is_talk: bool = False,
        tick: Callable[[Talk], None] | None = None,
        in_band: Callable[[ModelyardError], bytes] | None = None,
    ) -> None:
        self.handler = handler
        self.right = right
        self.is_talk = is_talk
        self.is_endless = tick is not None
        self.tick = tick
        self.in_band = in_band


class Call:
    """One message and its answer to be; answered exactly once. Fields behind `received_s` belong to the edge."""

    __slots__ = (
        "body", "codec", "deadline_s", "ends_stream", "head", "is_answered", "prepared_s", "priority", "received_s", "request", "route",
        "size", "stream", "version",
    )  # fmt: skip

    def __init__(self, stream: Rpc, body: bytes | bytearray, received_s: float, *, ends_stream: bool = False) -> None:
        self.stream = stream
        self.size = stream.wire_bytes
        self.ends_stream = ends_stream
        """Whether it stands for the whole stream, which its refusal ends."""
        self.head = stream.head
        self.route = stream.route
        self.body = body
        self.received_s = received_s
        self.is_answered = False
        self.request: InferenceRequest
        self.codec: Any = None
        self.version: Any = None
        self.deadline_s = 0.0
        self.priority = stream.head.priority
        self.prepared_s = received_s

    @property
    def traceparent(self) -> bytes:
        """The caller's trace context; empty without one."""
        traceparent: bytes = self.head.traceparent
        return traceparent

    @property
    def asked(self) -> Asked:
        """What a trace tells of it."""
        return Asked(self.head)

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self.is_answered and self.stream.is_live

    def answer(self, response: InferenceResponse) -> None:
        """Answer with a prediction, in the form of the request's wire."""
        data = self.codec.encode(self.request, response)[1]
        self.is_answered = True
        self.stream.answered(self, data, response.id)

    def reply(self, data: bytes) -> None:
        """Answer with the message `data`."""
        self.is_answered = True
        self.stream.answered(self, data, "")

    def fail(self, error: ModelyardError) -> None:
        """Answer with a refusal."""
        self.stream.server.on_failed(self, error)

    def refuse(self, error: ModelyardError) -> None:
        """Send the refusal; counting it is the edge's."""
        self.is_answered = True
        self.stream.refused(self, error)


class Rpc(Stream):
    """A stream whose data is gRPC messages. `server.handle` gets each as a Call."""

    __slots__ = ("_buffer", "_needed", "_owed", "deadline_s", "head", "is_refused", "opened_s", "route", "server", "wire_bytes")

    def __init__(self, server: GrpcServer, connection: Connection, id: int, head: Head, now: float) -> None:
        super().__init__(connection, id, now)
        self.server = server
        self.head = head
        self.route = head.route
        self.opened_s = now
        self.deadline_s = now + head.timeout_s if head.timeout_s is not None else 0.0
        self._buffer = bytearray()
        self._needed = 0
        self._owed = 0
        self.is_refused = False
        """Whether it ends with an error, perhaps a little later: nothing of it is taken or worked on any more."""
        self.wire_bytes = 0
        """What the newest message took of the window."""

    # Kinds of calls fill these.

    def message(self, data: bytes | bytearray) -> None:
        """Take one whole message."""
        raise NotImplementedError

    def ended(self) -> None:
        """The client has sent its last message."""
        raise NotImplementedError

    def answered(self, call: Call, data: bytes, id: str) -> None:
        """Send the answer to one of its calls."""
        raise NotImplementedError

    def refused(self, call: Call, error: ModelyardError) -> None:
        """Send the refusal of one of its calls."""
        raise NotImplementedError

    def fail(self, error: ModelyardError) -> None:
        """End it with `error`, counted as the failure of a call; the first one counts."""
        if self.is_refused:
            return
        self.is_refused = True
        self.server.on_failed(Call(self, b"", self.opened_s, ends_stream=True), error)

    def close(self, block: bytes) -> None:
        """End it with the trailer block `block`."""
        raise NotImplementedError

    def close_as_http(self, status: int) -> None:
        """Answer what is no gRPC with an HTTP status."""
        self.end(grpc.not_grpc(status))

    # Messages out of data.

    def take(self, data: bytes) -> None:
        if self.is_refused:
            return
        size = len(data)
        if size >= 5 and not self._buffer and size == int.from_bytes(data[1:5]) + 5 and size <= http2.FRAME_BYTES:
            self.wire_bytes = size
            self._whole(data[0], data[5:])
        elif size:
            self._gather(data)
        if self.is_ended and self.is_live and not self.is_refused:
            if self._buffer:
                self.fail(MalformedPayload("the last message is not whole", field="message", rule="size"))
            else:
                self.ended()

    def _gather(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 5 and self.is_live and not self.is_refused:
            if not self._needed:
                size, limit = int.from_bytes(buffer[1:5]), self.server.settings.max_message_bytes
                if size > limit:
                    self._buffer = bytearray()
                    self.fail(grpc.too_large(limit))
                    return
                self._needed = size + 5
                self._make_room()
            if len(buffer) < self._needed:
                break
            flag, rest = buffer[0], buffer[self._needed :]
            self.wire_bytes = self._needed
            del buffer[self._needed :]
            del buffer[:5]
            self._needed = 0
            self._buffer = rest
            reserved = self.reserved
            self._owed -= reserved
            self.connection.release(self)
            self._whole(flag, buffer)
            buffer = self._buffer
        if len(data) < SMALL_PART and buffer and not self.is_ended:
            self.connection.idle(monotonic())

    def _make_room(self) -> None:
        """Let a message come that is longer than what its sender may send."""
        missing = self._needed - len(self._buffer) - self.room
        if missing > 0 and self._owed > 0:
            self.grant(self._owed)
            missing -= self._owed
            self._owed = 0
        if missing > 0:
            self.connection.reserve(self, missing)

    def _whole(self, flag: int, data: bytes | bytearray) -> None:
        if flag or len(data) > self.server.settings.max_message_bytes:
            try:
                data = self._plain(flag, data)
            except ModelyardError as error:
                self.fail(error)
                return
        self.message(data)

    def _plain(self, flag: int, data: bytes | bytearray) -> bytes | bytearray:
        limit = self.server.settings.max_message_bytes
        if len(data) > limit:
            raise grpc.too_large(limit)
        return grpc.plain(data, flag, self.head.coding, limit)

    # Time.

    @property
    def awaited(self) -> int:
        return len(self._buffer)

    def late(self) -> None:
        self.fail(DeadlineExceeded("the message arrived too slowly", field="message", rule="rate"))


class Unary(Rpc):
    """One message, one answer."""

    __slots__ = ("_call", "_is_begun", "_is_in_work")

    def __init__(self, server: GrpcServer, connection: Connection, id: int, head: Head, now: float) -> None:
        super().__init__(server, connection, id, head, now)
        self._call: Call | None = None
        self._is_begun = False
        self._is_in_work = False

    def message(self, data: bytes | bytearray) -> None:
        if self._call is not None:
            self.fail(MalformedPayload("this method takes one message", field="message", rule="unary"))
            return
        self._call = Call(self, data, monotonic())

    def ended(self) -> None:
        if self._call is None:
            self.fail(MalformedPayload("this method takes one message", field="message", rule="unary"))
        elif self.connection.is_full:
            self.connection.held.append(self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        if self._call is not None and self.is_live and not self.is_refused:
            self._is_begun = self._is_in_work = True
            self.connection.begun()
            self.server.handle(self._call)

    def answered(self, call: Call, data: bytes, id: str) -> None:
        head = grpc.HEAD + _shown(id) if id else grpc.HEAD
        if call.version is not None:
            head += grpc.model_fields(call.version.name, call.version.number)
        was_in_work, self._is_in_work = self._is_in_work, False
        self.reply(head, grpc.PREFIX.pack(0, len(data)) + data, grpc.OK)
        if was_in_work:
            self.connection.done(len(data))

    def _leave(self) -> None:
        if self._is_in_work:
            self._is_in_work = False
            self.connection.done(0)

    def refused(self, call: Call, error: ModelyardError) -> None:
        named = b"" if call.version is None else grpc.model_fields(call.version.name, call.version.number)
        self.close(grpc.refusal(error) + named)

    def close(self, block: bytes) -> None:
        if self.outgoing is None:
            self.end(grpc.HEAD + block)
        self._leave()

    @property
    def awaited(self) -> int:
        return 0 if self.is_ended else len(self._buffer) + 1

    def overdue(self, now: float) -> None:
        if not self._is_begun and self.deadline_s and now > self.deadline_s:
            self.fail(DeadlineExceeded("the time given passed before the model could run"))

    def gone(self) -> None:
        self._call = None
        self._leave()


def _shown(id: str) -> bytes:
    """The field that tells a prediction's id; what a header cannot hold is quoted."""
    value = (id if is_header_safe(id) else quote(id[:64])).encode()
    size = len(value)
    if size < 0x7F:
        return grpc.PREDICTION_ID + bytes((size,)) + value
    return grpc.field(b"x-prediction-id", value)


class Talk(Rpc):
    """Any number of messages both ways. Each message is a call; answers leave in the order of their messages.

    What the client may send is given back with the answers, so that a client who does not read them cannot go on asking.
    """

    __slots__ = ("_answers", "_in_work", "_is_begun", "_is_starting", "_later", "calls", "memory")

    def __init__(self, server: GrpcServer, connection: Connection, id: int, head: Head, now: float) -> None:
        super().__init__(server, connection, id, head, now)
        self.calls: deque[Call] = deque()
        self._answers: dict[Call, tuple[bytes, int]] = {}
        self._later: deque[Call] = deque()
        self._in_work = 0
        self._is_starting = False
        self._is_begun = False
        self.memory: Any = None
        """What the edge keeps with the stream."""

    def message(self, data: bytes | bytearray) -> None:
        call = Call(self, data, monotonic())
        self.calls.append(call)
        self._later.append(call)
        self._start()

    def _start(self) -> None:
        """Hand on the next messages, as many as may be in work at once: the others wait their turn, and are not refused for coming together."""
        if self._is_starting:
            return  # an answer given at once came back here
        self._is_starting = True
        while self._later and self._in_work < IN_WORK and self.is_live and not self.is_refused:
            if self.connection.is_full:
                self.connection.held.append(self._start)
                break
            self._in_work += 1
            self.connection.begun()
            self.server.handle(self._later.popleft())
        self._is_starting = False

    def ended(self) -> None:
        if self.route.is_endless:
            if self.memory is None:
                self.fail(MalformedPayload("this method takes one message", field="message", rule="unary"))
        elif not self.calls:
            self.close(grpc.OK)

    def answered(self, call: Call, data: bytes, id: str) -> None:  # noqa: ARG002 - the message tells it
        if not self.is_live:
            return
        self._answers[call] = data, call.size
        self._in_work -= 1
        self.connection.done(len(data))
        while self.calls and self.calls[0] in self._answers:
            data, size = self._answers.pop(self.calls.popleft())
            self._owed += size
            self.say(data)
        if self.is_ended:
            self.ended()
        elif self._owed > http2.STREAM_WINDOW >> 2:
            self.grant(self._owed)
            self._owed = 0
        if self._later:
            self._start()

    def say(self, data: bytes) -> None:
        """Send one message."""
        if not self._is_begun and self.is_live:
            self._is_begun = True
            self.begin(grpc.HEAD)
        self.connection.earned()
        self.send(grpc.PREFIX.pack(0, len(data)) + data)

    def refused(self, call: Call, error: ModelyardError) -> None:
        if call.ends_stream or self.route.in_band is None:
            self.close(grpc.refusal(error))
        else:
            self.answered(call, self.route.in_band(error), "")

    def close(self, block: bytes) -> None:
        if self.trailers is None:
            self.end(block if self._is_begun else grpc.HEAD + block)

    @property
    def is_busy(self) -> bool:
        return bool(self.calls or self.outgoing)

    def overdue(self, now: float) -> None:
        if self.deadline_s and now > self.deadline_s:
            self.fail(DeadlineExceeded("the time given passed"))
        else:
            self.server.tick(self)

    def drain(self) -> None:
        if not self.is_busy:
            self.close(grpc.refusal(Unavailable("the server ends; connect again")))

    def gone(self) -> None:
        for _ in range(self._in_work):
            self.connection.done(0)
        self._in_work = 0
        self.calls.clear()
        self._later.clear()
        self._answers.clear()
        self.memory = None


class GrpcServer:
    """All HTTP/2 connections of one worker. `admit` finds the route of a head and who may ask, `handle` is called for each whole message."""

    def __init__(
        self,
        settings: Settings,
        *,
        admit: Callable[[Head], None],
        handle: Callable[[Call], None],
        on_failed: Callable[[Call, ModelyardError], None],
        on_refused: Callable[[int, str], None],
        tick: Callable[[Talk], None],
    ) -> None:
        self.settings = settings
        self.admit = admit
        self.handle = handle
        self.on_failed = on_failed
        self.tick = tick
        self._on_refused = on_refused
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.is_draining = False
        self.tls: Tls | None = None
        self.head = Head
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep()

    def open(self, connection: Connection, id: int, head: Head, now: float, *, is_ended: bool) -> Stream:
        """A stream for the call with `head`; one that is not admitted is refused at once, before anything of its message is kept."""
        failure: ModelyardError | None = None
        if not head.http_status:
            try:
                self.admit(head)
            except ModelyardError as error:
                failure = error
        route = head.route
        stream: Rpc = (Talk if route is not None and route.is_talk else Unary)(self, connection, id, head, now)
        stream.is_ended = is_ended
        connection.streams[id] = stream
        failure = failure or head.refusal
        if head.http_status:
            self._on_refused(head.http_status, "grpc")
            stream.close_as_http(head.http_status)
        elif failure is not None:
            stream.fail(failure)
        elif route is None:
            self._on_refused(UNIMPLEMENTED, "method")
            stream.close(grpc.trailers(UNIMPLEMENTED, "no such method here; the reflection service lists those that there are"))
        return stream

    def refused(self, code: int) -> None:
        """Count what broke the protocol."""
        self._on_refused(code, "http2")

    def _sweep(self) -> None:
        now = monotonic()
        for connection in list(self.connections):
            connection.sweep(now)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    async def listen(self, sock: Any, tls: Tls | None = None) -> None:
        """Accept connections from the bound socket `sock`, inside `tls` where given."""
        secure: dict[str, Any] = {}
        if tls is not None:
            self.tls = tls
            secure = {"ssl": tls.context("h2"), "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S, "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT_S}
        self._listeners.append(await self.loop.create_server(lambda: Connection(self), sock=sock, backlog=2048, **secure))

    def adopt(self, transport: Any, data: bytes) -> None:
        """Go on with a connection that another protocol accepted, and that turned out to speak HTTP/2: `data` is what it has sent."""
        connection = Connection(self)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(data)

    def stop_listening(self) -> None:
        """Take no further connections, and ask the clients to go."""
        self.is_draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            for stream in list(connection.streams.values()):
                stream.drain()
            connection.drain()

    @property
    def in_flight(self) -> int:
        """Calls without an answer yet."""
        return sum(stream.is_busy for connection in self.connections for stream in connection.streams.values())

    @property
    def is_asked(self) -> bool:
        """Whether an answer is due, or not all sent."""
        return self.in_flight > 0 or any(connection.is_sending for connection in self.connections)

    def close(self) -> None:
        """Drop every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.abort()
