"""A network between a control process and its database, in a thread: whole, refusing, silent, losing or slow.

What is lost comes later, as TCP has it: each part that is held up waits as long as a retransmission takes.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections import deque
from typing import Literal

Weather = Literal["fair", "refuse", "blackhole", "loss", "delay"]
RETRANSMIT_S, LOSS = 0.2, 0.5
DELAY_S = (0.025, 0.125)


class Proxy:
    """Forwards connections to 127.0.0.1:`to`; a context manager."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._chance = random.Random(15)
        self._weather: Weather = "fair"
        self._stop = threading.Event()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._waiting: deque[tuple[float, socket.socket, bytes]] = deque()
        self._ready: dict[socket.socket, float] = {}
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def turn(self, weather: Weather) -> None:
        """Let it be so from now on; a refusing one ends the connections that there are."""
        self._weather = weather

    def _listen(self, port: int) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
        made.listen(64)
        made.setblocking(False)
        return made

    def _run(self) -> None:
        listener: socket.socket | None = self._listener
        while not self._stop.is_set():
            if self._weather == "refuse" and listener is not None:
                listener.close()
                listener = None
                for each in list(self._pairs):
                    self._close(each)
            elif self._weather != "refuse" and listener is None:
                listener = self._listen(self.port)
            with selectors.DefaultSelector() as selector:
                for each in [*self._pairs, *([listener] if listener else [])]:
                    selector.register(each, selectors.EVENT_READ)
                found = [key.fileobj for key, _ in selector.select(0.002)] if selector.get_map() else time.sleep(0.002)
            for each in found or ():
                if each is listener:
                    self._accept(listener)
                elif self._weather != "blackhole":
                    self._forward(each)  # type: ignore[arg-type]
            self._deliver()
            if self._weather == "blackhole":
                time.sleep(0.01)
        for each in [*self._pairs, *([listener] if listener else [])]:
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", self._to))
            self._pairs |= {near: far, far: near}

    def _forward(self, source: socket.socket) -> None:
        target = self._pairs.get(source)
        if target is None:
            return
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        late = 0.0
        if self._weather == "loss" and self._chance.random() < LOSS:
            late = RETRANSMIT_S
        elif self._weather == "delay":
            late = self._chance.uniform(*DELAY_S)
        due = max(time.monotonic() + late, self._ready.get(target, 0.0))  # nothing overtakes
        self._ready[target] = due
        self._waiting.append((due, target, data))
        if not data:
            self._pairs.pop(source)
            source.close()

    def _deliver(self) -> None:
        now = time.monotonic()
        later: deque[tuple[float, socket.socket, bytes]] = deque()
        for due, target, data in self._waiting:
            if due > now:
                later.append((due, target, data))
            elif data:
                with contextlib.suppress(OSError):
                    target.setblocking(True)
                    target.sendall(data)
            else:
                self._pairs.pop(target, None)
                self._ready.pop(target, None)
                target.close()
        self._waiting = later

    def _close(self, each: socket.socket) -> None:
        self._pairs.pop(each, None)
        self._ready.pop(each, None)
        each.close()
