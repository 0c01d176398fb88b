"""The wire of the control API: uvicorn's HTTP by h11, with bounds on connections that say nothing, trickle or do not listen.

Hides uvicorn's protocol class. Who holds a connection without having asked anything, in whole, has it for `HEAD_TIMEOUT_S`; who does not take an
answer loses it; and a full house shows out who has asked nothing before it turns a newcomer away. Bodies are bounded where they are read:
`console.guard`, `console.uploads`. It must not know a route.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from modelyard.console.errors import STATUS, body, headers
from modelyard.errors import MalformedPayload, ModelyardError, Overloaded

HEAD_TIMEOUT_S = 10.0
"""For a request's head, from the opening of the connection or from its first byte; and for the rest of a body that was answered already."""

STALLED_S = 30.0
"""How long an answer may wait for a reader who takes less than the transport's buffer (64 KiB)."""

CONNECTIONS = 256

_turns = itertools.count()  # who came, or was answered, before whom; the loop's clock may tick in milliseconds


def options(app: Any) -> uvicorn.Config:
    """How a server serves `app` through this door."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        http=Door,
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )


class Door(H11Protocol):
    """One connection. Lives in the event loop."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._turn = 0
        self._head: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def has_asked_nothing(self) -> bool:
        """Whether no request waits for its answer here: none has come with its head whole, or its answer is out."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, where need be for one that has asked nothing for longest; else say that the house is full."""
        others = [each for each in self.connections if isinstance(each, Door)]
        super().connection_made(transport)  # type: ignore[arg-type]
        self._turn = next(_turns)
        if len(others) >= CONNECTIONS:
            idle = [each for each in others if each.has_asked_nothing and not each.transport.is_closing()]
            if not idle:
                self._refuse(Overloaded("too many connections; try again", retry_after_s=1.0))
                return
            min(idle, key=lambda each: each._turn).transport.close()
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless the connection is being closed."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._look()

    def on_response_complete(self) -> None:
        """An answer is out: a body that is still coming may end, but not trickle."""
        super().on_response_complete()
        self._turn = next(_turns)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The reader is slow: wait a while."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader goes on."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in the API's one form."""
        self._refuse(MalformedPayload(f"not a request: {msg}", rule="http"))

    def _look(self) -> None:
        """Whether something is owed: the rest of a head that has begun, or of a body whose answer is out."""
        if self.transport.is_closing():
            self._disarm()
            return
        has_begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        is_answered = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        if has_begun or is_answered:
            self._arm()
        else:
            self._disarm()

    def _arm(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(HEAD_TIMEOUT_S, self._late)

    def _disarm(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _late(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(MalformedPayload(f"the request's head did not come within {HEAD_TIMEOUT_S:.0f} s", rule="timeout"))
        else:
            # To who has said nothing an answer would look like that to what it is about to ask.
            self.transport.close()

    def _refuse(self, error: ModelyardError) -> None:
        content = body(error)
        fields = {**headers(error), "Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(f"HTTP/1.1 {STATUS[type(error)]} refused\r\n{head}\r\n".encode() + content)
        self.transport.close()
