"""What a worker tells its supervisor over their channel: that it accepts, and that its event loop turns.

Hides the bytes. The supervisor imports it, so it must stay light.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

READY = b"R"
BEAT = b"."
LOADING = b"L"
"""In place of a beat while a model is loaded: the next may be late."""

EVERY_S = 0.5


class Heartbeat:
    """The worker's end. Lives in the event loop, which is what it vouches for."""

    def __init__(self, channel: socket.socket, is_loading: Callable[[], bool]) -> None:
        self._channel = channel
        self._is_loading = is_loading
        self._said_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Beat from now on, about every half second."""
        self.say(LOADING if self._is_loading() else BEAT)
        import asyncio  # the supervisor, which has no loop, does not wait for it

        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.start)

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()

    def beat(self) -> None:
        """A beat out of turn, from within a turn of the loop that may become long; cheap when there was one just now."""
        if monotonic() - self._said_s > EVERY_S / 2:
            self.say(LOADING if self._is_loading() else BEAT)

    def say(self, what: bytes) -> None:
        """Send `what`; a supervisor that is gone or does not read is noticed elsewhere."""
        self._said_s = monotonic()
        with suppress(OSError):
            self._channel.send(what)
