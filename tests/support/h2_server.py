"""An HTTP/2 connection of the real server without a socket: a Caller writes into it and reads what it would have sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from h2 import Caller, Frame

from modelyard.config import Settings
from modelyard.errors import ModelyardError, NotFound, Unauthenticated
from modelyard.serve.grpc import Head
from modelyard.serve.rpc import Call, GrpcServer, Talk
from modelyard.serve.streams import Connection


class Wire:
    """A transport that keeps what is written; `jam` makes it full."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.unsent = 0
        self.is_closed = self.is_aborted = self.is_reading_paused = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_closed = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


class Route:
    """What a test's path asks for."""

    def __init__(self, *, is_talk: bool = False, is_endless: bool = False, in_band: Callable[[ModelyardError], bytes] | None = None) -> None:
        self.is_talk, self.is_endless, self.in_band = is_talk, is_endless, in_band


class Served:
    """A connection with its server and its caller. `calls` are the messages that arrived, `failures` what was refused."""

    def __init__(self, **settings: Any) -> None:
        self.calls: list[Call] = []
        self.failures: list[ModelyardError] = []
        self.refusals: list[tuple[int, str]] = []
        self.ticks: list[Talk] = []
        self.routes = {"/u": Route(), "/t": Route(is_talk=True), "/w": Route(is_talk=True, is_endless=True)}
        self.server = GrpcServer(
            Settings(**settings),
            admit=self.admit,
            handle=self.calls.append,
            on_failed=self.fail,
            on_refused=lambda code, rule: self.refusals.append((code, rule)),
            tick=self.ticks.append,
        )
        self.wire = Wire()
        self.connection = Connection(self.server)
        self.connection.connection_made(self.wire)
        self.caller = Caller(self.connection.data_received)

    def admit(self, head: Head) -> None:
        if head.path.startswith("/denied"):
            head.route = self.routes["/t" if head.path.endswith("talk") else "/u"]  # it is there, for others
            raise Unauthenticated("no")
        if head.path == "/lost":
            raise NotFound("no")
        head.route = self.routes.get(head.path)

    def fail(self, call: Call, error: ModelyardError) -> None:
        self.failures.append(error)
        call.refuse(error)

    def frames(self) -> list[Frame]:
        """All that was sent so far."""
        self.caller.frames.clear()
        self.caller._rest = b""
        self.caller.feed(bytes(self.wire.sent))
        return self.caller.frames

    def status(self, id: int) -> str | None:
        """The grpc-status of a stream, None while there is none."""
        self.frames()
        return self.caller.headers().get(id, {}).get("grpc-status")


@contextmanager
def served(**settings: Any) -> Iterator[Served]:
    """A greeted connection."""
    made = Served(**settings)
    made.caller.greet()
    try:
        yield made
    finally:
        made.server.close()
