"""Whether this worker has time to spare, and the thread on which work that nobody waits for may take long.

Hides how that is seen: nothing waits or runs for a caller, and the event loop's thread has slept of late. It must not know what the work is.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic, monotonic_ns, thread_time

LOOK_S = 0.005
"""How long a look at the thread's times holds good."""

FULL = 0.9
"""A thread that computes for more than this share of the time has none to spare."""

LAST = 19
"""The niceness at which the system gives a thread what others leave."""

_THREAD: int | None = getattr(resource, "RUSAGE_THREAD", None)  # Linux has it


class Leisure:
    """Belongs to the event loop's thread. `is_idle` says whether nobody waits for an answer of a model.

    A loop that is never done does not sleep: on Linux the system counts how often a thread slept of its own accord, which holds whatever else takes
    the processor.
    """

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        self._is_idle = is_idle
        self._looked_s = monotonic()
        self._spent_s = thread_time()
        self._slept = _slept()
        self.is_rested = True
        """Whether the thread has slept, as of the last look at its times."""
        self._executor: ThreadPoolExecutor | None = None

    @property
    def has_time(self) -> bool:
        """Whether work that can wait should be done now."""
        now = monotonic()
        if now - self._looked_s >= LOOK_S:
            spent_s, slept = thread_time(), _slept()
            self.is_rested = spent_s - self._spent_s <= FULL * (now - self._looked_s) and slept != self._slept
            self._looked_s, self._spent_s, self._slept = now, spent_s, slept
        return self.is_rested and self._is_idle()

    @property
    def executor(self) -> ThreadPoolExecutor:
        """One thread, which yields to every other of this machine."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="leisure", initializer=_yield_to_all)
        return self._executor

    def close(self) -> None:
        """Stop the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def _slept() -> int:
    """How often this thread has slept; a number that always differs where the system does not tell."""
    return monotonic_ns() if _THREAD is None else resource.getrusage(_THREAD).ru_nvcsw


def _yield_to_all() -> None:
    if sys.platform == "linux":  # elsewhere niceness is the whole process's
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LAST)
