from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from modelyard.serve import leisure
from modelyard.serve.leisure import FULL, LAST, LOOK_S, Leisure


class World:
    """A thread whose times are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.spent = 100.0
        self.slept = 0
        self.is_idle = True
        monkeypatch.setattr(leisure, "monotonic", lambda: self.now)
        monkeypatch.setattr(leisure, "thread_time", lambda: self.spent)
        monkeypatch.setattr(leisure, "_slept", lambda: self.slept)
        self.leisure = Leisure(lambda: self.is_idle)

    def passes(self, seconds: float, *, busy: float, slept: int = 1) -> bool:
        self.now += seconds
        self.spent += seconds * busy
        self.slept += slept
        return self.leisure.has_time


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_there_is_time_while_nobody_waits(world: World) -> None:
    assert world.passes(1.0, busy=0.5)
    world.is_idle = False
    assert not world.passes(1.0, busy=0.5)


@pytest.mark.parametrize(("busy", "slept"), [(FULL + 0.05, 1), (0.3, 0)])
def test_a_loop_that_is_never_done_has_none(world: World, busy: float, slept: int) -> None:
    """It computes all the time, or would if it were not for others on its core."""
    assert not world.passes(0.1, busy=busy, slept=slept)
    assert not world.passes(LOOK_S / 2, busy=0, slept=0), "a look holds good for a while"
    assert world.passes(0.1, busy=0.5)


def test_costly_work_yields_to_every_other_thread() -> None:
    made = Leisure(lambda: True)
    try:
        niceness: Callable[[], int] = lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())  # noqa: E731
        before = niceness()
        if sys.platform == "linux":
            assert made.executor.submit(niceness).result() == LAST
        assert made.executor.submit(threading.get_ident).result() != threading.get_ident()
        assert niceness() == before, "this thread is as it was"
    finally:
        made.close()
