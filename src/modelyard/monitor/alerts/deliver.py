"""Hands over what waits in the outbox: at least once, each route at its own pace.

Hides threads, tries and pauses. Whoever is killed between a receiver's answer and the record of it hands the message over again (with the same
delivery id); what a receiver does not take waits in the records, through restarts and takeovers. A receiver that hangs or is away holds up no other.
It must not decide who is told what.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from modelyard import bounded
from modelyard.errors import InvalidConfig, ModelyardError, Unavailable
from modelyard.monitor.alerts import book, outbox
from modelyard.monitor.alerts.base import Route
from modelyard.monitor.alerts.book import Receiver
from modelyard.monitor.alerts.outbox import Waiting

if TYPE_CHECKING:
    from modelyard.registry.base import RecordStore

FIRST_S, LONGEST_S = 1.0, 300.0
"""The pause after the first try that failed, and the longest; each is twice the one before, less up to half of it by chance."""

AT_ONCE = 8
"""Receivers that are being told at one time."""

ORPHANED_S = 7 * 86_400.0
"""How long a message waits for a route that the settings do not name: it may be another host's, or come back."""


class Deliverer:
    """Delivers for one term of its leader, under which `records` are written. `tick` and `close` from one thread."""

    def __init__(
        self,
        records: RecordStore,
        routes: Callable[[], Mapping[str, Route]],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._records = records
        self._routes = routes
        self._clock = clock
        self._now = now
        self._draw = draw
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alerts")
        self._running: dict[str, Future[None]] = {}
        self._tries: dict[str, int] = {}
        self._due_s: dict[str, float] = {}
        self._refused: dict[str, int] = defaultdict(int)
        self._closing = threading.Event()

    def tick(self) -> bool:
        """Begin to hand over what is due; whether anything waits. Raises what a delivery met that no receiver is to blame for, Conflict for one."""
        for name, future in list(self._running.items()):
            if future.done():
                del self._running[name]
                future.result()
        waits = outbox.waiting(self._records) if self._records.stamp(outbox.KIND).records else ()
        routes = self._routes() if waits else {}
        by_route: dict[str, list[Waiting]] = defaultdict(list)
        for each in waits:
            by_route[each.message.route].append(each)
        for name, mine in by_route.items():
            if name not in routes:
                self._orphaned(name, mine)
            elif name not in self._running and self._clock() >= self._due_s.get(name, 0.0):
                self._running[name] = self._pool.submit(self._deliver, routes[name], mine)
        return bool(waits)

    def settle(self) -> None:
        """Wait until what is being handed over has been, or could not be."""
        while self._running:
            for name, future in list(self._running.items()):
                del self._running[name]
                future.result()

    def close(self) -> None:
        """Begin nothing more, and break off what was begun: it waits in the records. Seconds at the most, where a connection is being made."""
        self._closing.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        bounded.hang_up()
        self._pool.shutdown(wait=True)

    def _deliver(self, route: Route, waits: Sequence[Waiting]) -> None:
        """In a thread: one message after the other, those that were refused before last, until one fails."""
        for each in sorted(waits, key=lambda each: (self._refused[each.key], each.message.queued_at)):
            if self._closing.is_set():
                return
            try:
                route.send(each.message.notification)
            except (Unavailable, InvalidConfig) as error:
                if self._closing.is_set():  # no fault of the receiver's
                    return
                self._failed(route, each, error)
                return
            self._refused.pop(each.key, None)
            with self._records.transaction() as records:
                outbox.done(records, each)
                known = book.receivers(records).get(route.name, Receiver())
                if known.failing_since is not None or self._now() - (known.ok_at or 0.0) >= 60 or known.ok_at is None:
                    book.fared(records, route.name, Receiver(ok_at=self._now()))
            self._tries.pop(route.name, None)
            self._due_s.pop(route.name, None)

    def _failed(self, route: Route, sent: Waiting, error: ModelyardError) -> None:
        self._refused[sent.key] += 1
        tries = self._tries[route.name] = self._tries.get(route.name, 0) + 1
        bound_s = min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 16))
        self._due_s[route.name] = self._clock() + bound_s * (1.0 - self._draw() / 2)
        known = book.receivers(self._records).get(route.name, Receiver())
        since = self._now() if known.failing_since is None else known.failing_since
        failing = Receiver(ok_at=known.ok_at, failing_since=since, tries=known.tries + 1, error=error.message)
        with self._records.transaction() as records:
            book.fared(records, route.name, failing)

    def _orphaned(self, name: str, waits: Sequence[Waiting]) -> None:
        for each in waits:
            if self._now() - each.message.queued_at >= ORPHANED_S:
                with self._records.transaction() as records:
                    outbox.done(records, each)
                    book.forget(records, name)
