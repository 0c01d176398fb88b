"""Who runs next when more models want a thread than there are threads: the one that has used the least time.

Hides the bookkeeping of fair queueing. Pure but for the callbacks that it is given: no clock, no thread. One worker's event loop owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable


class Shares:
    """`slots` runs at once, shared by time used.

    Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): each run starts at the later of the present virtual time and the end of its owner's
    last run; the earliest start goes first, and a run's length is charged when it has ended. So a model that floods waits for its turn, one that
    asks rarely goes before it, and nobody saves up for later. Law: while anybody waits no slot is free.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._now = 0.0
        self._ends: dict[Hashable, float] = {}
        self._starts: dict[Hashable, float] = {}
        self._waiting: dict[Hashable, Callable[[], bool]] = {}

    def take(self, owner: Hashable) -> bool:
        """A slot for `owner` at once, where one is free and nobody waits. Each owner has at most one."""
        if not self._free:
            return False
        self._free -= 1
        self._begin(owner)
        return True

    def ask(self, owner: Hashable, begin: Callable[[], bool]) -> None:
        """Call `begin` when a slot is there for `owner`; where it gives False, there was nothing to run and the slot goes on."""
        self._waiting[owner] = begin
        self._pass_on()

    def done(self, owner: Hashable, seconds: float, again: Callable[[], bool] | None = None) -> None:
        """The run of `owner` took `seconds`; its slot goes to the next, which is `owner` itself (`again`, as in `ask`) only if none has used less."""
        self._ends[owner] = self._starts.pop(owner) + seconds
        self._free += 1
        if again is not None:
            self._waiting[owner] = again
        self._pass_on()

    def forget(self, owner: Hashable) -> None:
        """`owner` asks no more."""
        self._waiting.pop(owner, None)
        self._ends.pop(owner, None)

    def _pass_on(self) -> None:
        while self._free and self._waiting:
            owner = min(self._waiting, key=lambda each: self._ends.get(each, 0.0))
            begin = self._waiting.pop(owner)
            self._free -= 1
            self._begin(owner)
            if not begin():
                del self._starts[owner]
                self._free += 1

    def _begin(self, owner: Hashable) -> None:
        start = max(self._now, self._ends.pop(owner, 0.0))
        self._starts[owner] = self._now = start
