"""Callers who mean no good: many connections driven by one thread, each with its own way of holding the server up.

Hides the selector. It knows nothing of what a connection sends: a caller says what goes out at each beat, and what it takes in.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress


class Caller:
    """One connection: `opening` bytes at once, `drip(beat)` bytes at each beat, and at most `reads` bytes taken in at each beat (None: all)."""

    def __init__(
        self, opening: bytes = b"", drip: Callable[[int], bytes] | None = None, *, reads: int | None = None, receive_buffer: int = 0
    ) -> None:
        self.opening = opening
        self.drip = drip
        self.reads = reads
        self.receive_buffer = receive_buffer
        self.socket: socket.socket | None = None
        self.opened_s = 0.0
        self.closed_s: float | None = None
        """How long after its opening the server was seen to have said its last word."""
        self.took = b""

    def open(self, port: int) -> None:
        """Connect and say the opening."""
        self.socket = socket.socket()
        if self.receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))
        self.opened_s = time.monotonic()
        self.socket.setblocking(False)
        self._send(self.opening)

    def _send(self, data: bytes) -> None:
        assert self.socket is not None
        if data:
            with suppress(OSError):
                self.socket.send(data)

    def beat(self, turn: int) -> None:
        """Send and read this beat's share."""
        if self.closed_s is not None or self.socket is None:
            return
        if self.drip is not None:
            self._send(self.drip(turn))
        if self.reads is not None:
            self.read(self.reads)

    def read(self, most: int = 65536) -> None:
        """Take in up to `most` bytes; the end of the stream closes this side too."""
        assert self.socket is not None
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.took = (self.took + data)[-4096:]
        if not data:
            self.closed_s = time.monotonic() - self.opened_s
            self.socket.close()


class Callers:
    """Many callers at work, in a thread, until ended; a context manager."""

    def __init__(self, port: int, callers: list[Caller], *, beat_s: float = 1.0) -> None:
        self.callers = callers
        self._port = port
        self._beat_s = beat_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.are_open = threading.Event()

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for caller in self.callers:
            if caller.socket is not None:
                caller.socket.close()

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        for caller in self.callers:
            caller.open(self._port)
            if caller.reads is None:
                assert caller.socket is not None
                selector.register(caller.socket, selectors.EVENT_READ, caller)
        self.are_open.set()
        began, beats = time.monotonic(), 0
        step = self._beat_s / len(self.callers)  # one after the other, so that they are a stream and no burst
        while not self._stop.is_set():
            due = began + beats * step
            for key, _ in selector.select(max(0.0, min(0.1, due - time.monotonic()))):
                caller: Caller = key.data
                sock = caller.socket
                caller.read()
                if caller.closed_s is not None:
                    selector.unregister(sock)
            while time.monotonic() >= began + beats * step and not self._stop.is_set():
                self.callers[beats % len(self.callers)].beat(beats // len(self.callers))
                beats += 1
        selector.close()

    def all_closed(self) -> bool:
        """Whether the server has let go of every one."""
        return all(caller.closed_s is not None for caller in self.callers)


def longest(callers: list[Caller]) -> float | None:
    """How long the last of `callers` was held; None when one still is."""
    times = [caller.closed_s for caller in callers]
    return None if None in times else max(time for time in times if time is not None)
