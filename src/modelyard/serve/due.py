"""What is due in one turn of the event loop: first every run, then every answer, then, in the turn after, what is kept of them.

Hides why in that order. A model's run drives our own code out of the core's caches, so each step is done for all versions that were asked before the
next one begins; what the answers carry leaves the process at the end of the turn anyway. And what is counted, recorded and compared waits until
the answers have left. It must not know what a batch is, nor what is kept of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Runs(Protocol):
    """What has work for a turn."""

    def run(self) -> bool:
        """Do it; gives whether there is something to `answer`."""

    def answer(self) -> None:
        """Hand over what `run` found, once all of this turn have run."""


class Due:
    """The work of one event loop, which owns it. Law: what one part raises keeps no other from its turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._runs: list[Runs] = []
        self._kept: list[tuple[Callable[[Any], None], Any]] = []

    def run(self, work: Runs) -> None:
        """Let `work` run in the next turn; add it once."""
        if not self._runs:
            self._loop.call_soon(self._turn)
        self._runs.append(work)

    def keep(self, what: Callable[[T], None], of: T) -> None:
        """Call `what(of)` when the answers of this turn have left."""
        if not self._kept:
            self._loop.call_soon(self.settle)
        self._kept.append((what, of))

    def settle(self) -> None:
        """Do now what was kept for later: who reads what it writes asks for this first."""
        kept, self._kept = self._kept, []
        for what, of in kept:
            try:
                what(of)
            except Exception as error:  # noqa: BLE001 - see the law
                self._report(error)

    def _turn(self) -> None:
        runs, self._runs = self._runs, []
        ran = []
        for each in runs:
            try:
                if each.run():
                    ran.append(each)
            except Exception as error:  # noqa: BLE001 - see the law; where nothing is raised it costs nothing
                self._report(error)
        for each in ran:
            try:
                each.answer()
            except Exception as error:  # noqa: BLE001 - as above
                self._report(error)

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a part of a turn failed", "exception": error})
