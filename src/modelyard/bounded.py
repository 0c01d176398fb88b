"""A conversation over a socket that ends in time, whatever the other side does.

Hides that a socket's own timeout starts anew with every byte: who sends one each second would hold a thread for ever. Whoever stops hangs up on all
conversations of the process at once (`hang_up`). It must not know a wire.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

CONNECT_S = 5.0
"""How long a connection may take to come about: that alone cannot be broken off."""

_lock = threading.Lock()
_running: set[Bound] = set()


class Bound:
    """The end of a conversation. `is_over` says that it came to that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self.is_over = False

    def watch(self, sock: socket.socket) -> None:
        """This is its socket, from now on; it may be put inside TLS later."""
        with self._lock:
            # A second name of the same connection: wrapping takes the first away, and shutting this one down ends both.
            self._sock = sock.dup()
            if self.is_over:
                self._hang_up()

    def end(self) -> None:
        """Hang up: whoever reads or writes meets the end of the connection."""
        with self._lock:
            self.is_over = True
            self._hang_up()

    def close(self) -> None:
        """Let go of the connection as it is."""
        with self._lock:
            if self._sock is not None:
                self._sock.close()
                self._sock = None

    def _hang_up(self) -> None:
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[Bound]:
    """A conversation that is hung up after `seconds`."""
    bound = Bound()
    with _lock:
        _running.add(bound)
    timer = threading.Timer(seconds, bound.end)
    timer.daemon = True
    timer.start()
    try:
        yield bound
    finally:
        timer.cancel()
        with _lock:
            _running.discard(bound)
        bound.close()


def hang_up() -> None:
    """End every conversation that is under way, now."""
    with _lock:
        running = tuple(_running)
    for bound in running:
        bound.end()
