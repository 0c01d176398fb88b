"""Who leads: of all control processes of one store, the one that decides, and whose decisions count.

Hides the record of the leader. A lease is judged by watching that record change, by one's own monotonic clock alone. Each new leader raises the
term, and whatever a leader writes is refused once the record has another: a leader that was stopped, or cut off, and wakes up can change nothing.
It must not know what a leader decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelyard.errors import Conflict
from modelyard.rollout.hosts import LEASE_S, RENEW_S, Watched

if TYPE_CHECKING:
    from modelyard.registry.base import Record, Records, RecordStore, Stamp, Transaction
    from modelyard.security.base import AuditLine

KIND = KEY = "leader"
SURE_S = LEASE_S - 1.0
"""For how long after it was last renewed a leader takes its lease for granted: less than others wait before they take over."""

Move = Literal["take", "renew"]


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads in this term: a host and its control process; an empty `host` has laid it down."""

    host: str
    instance: str
    term: int


class Election:
    """One control process's part in it. `look` and `move` from one thread; `term`, `leader` and `fenced` from any."""

    def __init__(self, records: RecordStore, *, host: str, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._host = host
        self._instance = instance
        self._clock = clock
        self._watched = Watched(clock)
        self._found: Record | None = None
        self._term = 0
        self._renewed_s = 0.0
        self.leader: Leader | None = None

    @property
    def term(self) -> int:
        """The term in which this process leads, 0 while it does not (as far as it can know: `fenced` is what makes sure)."""
        return self._term if self._term and self._clock() - self._renewed_s < SURE_S else 0

    def look(self) -> Move | None:
        """Read who leads, and say what this process should do about it now, if anything."""
        self._found = self._records.get(KIND, KEY)
        still = self._watched.look({} if self._found is None else {KEY: self._found.revision})
        self.leader = None if self._found is None else _leader(self._found)
        if self.leader is None or not self.leader.host:
            return "take"
        if self._is_mine(self.leader):
            return "renew" if self._clock() - self._renewed_s >= RENEW_S else None
        self._term = 0
        # Another process of this very host has ended: this one holds the home's control lock.
        return "take" if self.leader.host == self._host or still[KEY] > LEASE_S else None

    def move(self, move: Move, *, within: Records) -> None:
        """Do it, as part of a transaction; it counts from `moved` on. Raises Conflict when somebody was faster."""
        found = self._found
        before = 0 if found is None else _leader(found).term
        leader = Leader(host=self._host, instance=self._instance, term=before + 1 if move == "take" else before)
        within.put(KIND, KEY, msgspec.to_builtins(leader), expected=0 if found is None else found.revision)
        self.leader = leader

    def moved(self, since_s: float) -> None:
        """The transaction of `move`, begun at the monotonic time `since_s`, was committed: the lease runs from then."""
        if self.leader is not None:
            self._term, self._renewed_s = self.leader.term, since_s

    def lay_down(self) -> None:
        """Lead no more, so that another need not wait for the lease to end. Raises Conflict when another leads already."""
        term, self._term = self._term, 0
        if term:
            with self._records.transaction() as records:
                found = self._require(records, term)
                records.put(KIND, KEY, msgspec.to_builtins(Leader(host="", instance="", term=term)), expected=found.revision)

    def fenced(self, term: int) -> Fenced:
        """The store as the leader of `term` may write it."""
        return Fenced(self._records, lambda records: self._require(records, term))

    def _require(self, records: Records, term: int) -> Record:
        found = records.get(KIND, KEY)
        if found is None or not self._is_mine(_leader(found)) or _leader(found).term != term:
            raise Conflict(f"term {term} of this control process is over: another one leads", rule="term")
        return found

    def _is_mine(self, leader: Leader) -> bool:
        return (leader.host, leader.instance) == (self._host, self._instance)


class Fenced:
    """A RecordStore whose every write is refused, in its own transaction, once the leader's term is over. Raises Conflict, rule `term`."""

    def __init__(self, records: RecordStore, require: Callable[[Records], Any]) -> None:
        self._records = records
        self._require = require

    def get(self, kind: str, key: str) -> Record | None:
        """See `registry.base.Records`."""
        return self._records.get(kind, key)

    def list(self, kind: str, *, prefix: str = "") -> tuple[Record, ...]:
        """See `registry.base.Records`."""
        return self._records.list(kind, prefix=prefix)

    def stamp(self, kind: str) -> Stamp:
        """See `registry.base.Records`."""
        return self._records.stamp(kind)

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        """See `registry.base.Records`."""
        with self.transaction() as records:
            return records.put(kind, key, body, expected=expected)

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        """See `registry.base.Records`."""
        with self.transaction() as records:
            records.delete(kind, key, expected=expected)

    def append(self, make: AuditLine) -> None:
        """See `security.base.AuditStore`."""
        with self.transaction() as records:
            records.append(make)

    def lines(self) -> Iterator[bytes]:
        """See `security.base.AuditStore`."""
        return self._records.lines()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See `registry.base.RecordStore`."""
        with self._records.transaction() as records:
            self._require(records)
            yield records

    def close(self) -> None:
        """Nothing: the store is its owner's."""


def _leader(record: Record) -> Leader:
    return msgspec.convert(record.body, Leader)
