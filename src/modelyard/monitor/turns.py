"""Whose turn it is to write to a file: threads of one process, first come, first served.

Hides the line in which they stand. SQLite lets in whoever asks at the right moment, and one that writes a million rows, a portion at a time, asks
at every moment: who has one row would wait for as long as that lasts. Threads of other processes stand in SQLite's own crowd.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """The line before one file. Any thread may stand in it once at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_taken = False

    @contextmanager
    def taken(self, *, timeout_s: float) -> Iterator[bool]:
        """Hold the turn while the block runs; False, and no turn, where it has not come within `timeout_s`."""
        has = self._take(timeout_s)
        try:
            yield has
        finally:
            if has:
                self._pass_on()

    def _take(self, timeout_s: float) -> bool:
        mine = threading.Lock()
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return True
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=timeout_s):  # whoever was before has passed it on
            return True
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
        return True  # it came at the last moment

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False


_lock = threading.Lock()
_by_path: weakref.WeakValueDictionary[str, Turns] = weakref.WeakValueDictionary()


def of(path: Path) -> Turns:
    """The line before the file at `path`, by whatever way it is reached; it is there as long as somebody holds it."""
    key = os.path.realpath(path)
    with _lock:
        found = _by_path.get(key)
        if found is None:
            found = _by_path[key] = Turns()
        return found
