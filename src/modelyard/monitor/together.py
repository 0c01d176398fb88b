"""What several threads bring while one of them is at work is kept at once, and each is told when its own is.

Hides who does the work: whoever comes first does it for all that wait, and passes it on to the next that has come meanwhile, so that nobody works for
others for longer than one turn. There is no pause to wait for more: one that comes alone goes at once. It must not know what is kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from modelyard.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")


class _Waiting(Generic[T, R]):
    """One that waits: woken when its result or an error is there, or when the work is its own to do."""

    def __init__(self, item: T, size: int) -> None:
        self.item = item
        self.size = size
        self.woken = threading.Event()
        self.result: R | None = None
        self.error: BaseException | None = None
        self.is_done = False


class Together(Generic[T, R]):
    """A queue before `keep`, which is given what waits, in its order, and returns a result for each, or raises for all. Any thread may bring.

    At most `limit` goes at once, by the sizes that are told; what is larger goes alone.
    """

    def __init__(self, keep: Callable[[Sequence[T]], Sequence[R]], *, limit: int) -> None:
        self._keep = keep
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._is_busy = False

    def bring(self, item: T, *, size: int, timeout_s: float) -> R:
        """What became of `item` once it is kept. Raises what `keep` raises, or Unavailable where its turn has not come in time."""
        mine: _Waiting[T, R] = _Waiting(item, size)
        with self._lock:
            self._waiting.append(mine)
            if not self._is_busy:
                self._is_busy = True
                mine.woken.set()
        if not mine.woken.wait(timeout_s) and self._has_left(mine):
            raise Unavailable("others were given here for so long that this has not come to its turn; give it again")
        mine.woken.wait()  # at work, or to be told at once
        if not mine.is_done:
            self._work()
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[return-value]  # done, and no error

    def _has_left(self, mine: _Waiting[T, R]) -> bool:
        """Whether it still waited, and does no more."""
        with self._lock:
            if mine in self._waiting and not mine.woken.is_set():
                self._waiting.remove(mine)
                return True
        return False

    def _work(self) -> None:
        """Keep what waits; the first of it is the caller's."""
        with self._lock:
            chosen = [self._waiting.popleft()]
            size = chosen[0].size
            while self._waiting and size + self._waiting[0].size <= self._limit:
                chosen.append(self._waiting.popleft())
                size += chosen[-1].size
        try:
            for each, result in zip(chosen, self._keep([each.item for each in chosen]), strict=True):
                each.result = result
        except BaseException as error:  # noqa: BLE001  # whoever waits is to hear of it, and this thread raises it too
            for each in chosen:
                each.error = error
        for each in chosen:
            each.is_done = True
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.set()
            else:
                self._is_busy = False
        for each in chosen[1:]:
            each.woken.set()
