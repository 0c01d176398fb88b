"""How many requests of one model are read in one turn of the event loop while another model is asked too.

Hides the rounds. A model that is flooded over many connections would otherwise fill every turn with reading, and each answer of another model would
wait for all of it. Pure but for the callable that puts off work to the next turn; it must not know what it puts off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

SHARE = 32
"""Requests of one model in a turn: enough for a good batch, and about a millisecond of reading."""

HOLD_S = 1.0
"""How long after the last change from one model to another the turns count as shared."""

_Parked = tuple[Callable[[Any], None], Any]


class Turns:
    """Round robin over models, SHARE requests of each a turn. One event loop owns it.

    Alone a model is never held back: ask `take` only when `is_shared`, or when the name is not `recent`. Law: what is parked goes on in the order in
    which it came, and nothing of its model goes before it.
    """

    def __init__(self, put_off: Callable[[Callable[[], None]], object], *, share: int = SHARE) -> None:
        self._put_off = put_off
        self._share = share
        self.recent = ""
        self.is_shared = False
        self._until_s = 0.0
        self._taken: dict[str, int] = {}
        self._parked: dict[str, deque[_Parked]] = {}
        self._is_due = False
        self._is_going_on = False

    def take(self, name: str, now: float) -> bool:
        """Whether a request for the model `name` may be read in this turn; else `park` it."""
        if self._is_going_on:
            return True
        if name != self.recent:
            self.is_shared = bool(self.recent)
            self.recent, self._until_s = name, now + HOLD_S
        elif now > self._until_s and not self._parked:
            self.is_shared = False
            return True
        self._wake()
        taken = self._taken.get(name, 0)
        if taken >= self._share or name in self._parked:
            return False
        self._taken[name] = taken + 1
        return True

    def park(self, name: str, go_on: Callable[[Any], None], what: Any) -> None:
        """Call `go_on(what)` in a later turn."""
        self._parked.setdefault(name, deque()).append((go_on, what))
        self._wake()

    def _wake(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._put_off(self._next)

    def _next(self) -> None:
        """A new turn: each model that was held back goes on with its share."""
        self._is_due = False
        self._taken.clear()
        if not self._parked:
            return
        self._is_going_on = True
        try:
            for name, parked in list(self._parked.items()):
                self._taken[name] = count = min(self._share, len(parked))
                for _ in range(count):
                    go_on, what = parked.popleft()
                    go_on(what)
                if not parked:
                    del self._parked[name]
        finally:
            self._is_going_on = False
            self._wake()
