"""A version that is asked a share of what the champion has answered, to be compared; nobody is ever answered by it.

Hides when that happens: after the answers have left, in blocks, while the worker has time to spare, and else not at all: what finds no room or
waits too long is shed and counted. Runs do not pass through the version's batcher, whose next batch would wait for them; those that take long
have a thread that yields to every other. It must not delay a caller, nor count a mirrored request among the live ones.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import log, log1p
from time import monotonic, thread_time
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from modelyard.errors import ModelyardError, Unavailable
from modelyard.monitor.agreement import Agreement
from modelyard.monitor.profile import joined
from modelyard.runtime.isolated.process import Ended
from modelyard.runtime.validate import row_bytes

if TYPE_CHECKING:
    from modelyard.runtime.base import Submits
    from modelyard.serve.batching import Ran
    from modelyard.serve.dataplane import Version
    from modelyard.serve.leisure import Leisure
    from modelyard.types import Array

BLOCK_ROWS = 64
"""Rows that run together, at most: enough to share what a run costs beside its rows."""

HELD_ROWS = 256
HELD_BYTES = 8 << 20
"""What may wait; more is shed."""

HELD_S = 1.0
"""How long it may wait; older is shed."""

GATHER_S = 0.1
"""How long a block that is not full waits for more."""

PAUSE_S = 0.002
"""Between two looks whether there is time."""

SEEN_BYTES = 16 << 10
"""A run's arrays of so many bytes together may be held whole for one row of it: that is less work than a copy of the row."""

LONG_S = 0.001
"""A block on the thread takes about this long where several requests fit in."""


class Asked(NamedTuple):
    """Requests that the champion answered in one run: the rows of each, what went in and came out, how long each took but for the run, and the
    rows of that run."""

    counts: list[int]
    rows: int
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    besides_s: list[float]
    run_rows: int
    at_s: float


class Mirrored(NamedTuple):
    """What came of a block: requests without an answer, rows compared, rows that differ, what each answered request would have taken, and the
    answers themselves."""

    failed: int
    rows: int
    disagreed: int
    latencies_s: list[float]
    outputs: list[Mapping[str, Array]]


class Shadow:
    """One shadow of one champion under one plan. Lives in the event loop, but for its longer runs; `close` it when the plan ends."""

    def __init__(
        self,
        champion: Version,
        version: Version,
        share: float,
        *,
        leisure: Leisure,
        fit: Callable[[Mapping[str, Array]], Mapping[str, Array]],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.version = version
        self._share = share
        self._random = draw
        self._leisure = leisure
        self._fit = fit
        self._agreement = Agreement(champion.schema, champion.known)
        self._loop = asyncio.get_running_loop()
        self._most_rows = max(1, min(HELD_ROWS, HELD_BYTES // max(1, row_bytes(champion.schema))))
        self._held: deque[Asked] = deque()
        self._held_rows = 0
        self._running: list[Asked] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = self._is_pausing = False
        self._is_closed = False
        self._is_full = False
        self._lost = 0
        self._skip = self._gap()
        self._block_rows = self._fitting()

    def close(self) -> None:
        """Ask no more; what waits or runs is shed."""
        self._is_closed = True
        left = [*self._held, *self._running]
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._shed(sum(len(each.counts) for each in left) + self._lost)

    def choose(self, count: int) -> Sequence[int]:
        """Which of the next `count` requests are to be offered; each has the same chance.

        Asked of every run, before anything is kept of it: what is passed over, or lost for want of room, costs next to nothing.
        """
        if self._skip >= count:
            self._skip -= count
            return ()
        chosen = range(count) if self._share >= 1 else self._chosen(count)
        if self._is_full:
            self._lost += len(chosen)
            return ()
        return chosen

    def offer(self, chosen: Sequence[int], counts: list[int], ran: Ran, outputs: Mapping[str, Array], latencies_s: list[float]) -> None:
        """Take in the `chosen` requests of a run whose answers have left: request i of it had `counts[i]` rows and took `latencies_s[i]`."""
        if self._is_closed:
            return
        taken = counts if len(chosen) == len(counts) else [counts[at] for at in chosen]
        rows = sum(taken)
        if self._held and self._held_rows + rows > self._most_rows:
            self._is_full = True
            self._lost += len(taken)
            return
        inputs = ran.inputs
        if taken is not counts:
            inputs, outputs = _rows_of(inputs, counts, chosen), _rows_of(outputs, counts, chosen)
            latencies_s = [latencies_s[at] for at in chosen]
        besides_s = [max(0.0, latency_s - ran.seconds) for latency_s in latencies_s]
        self._held.append(Asked(taken, rows, inputs, outputs, besides_s, ran.rows, monotonic()))
        self._held_rows += rows
        if self._held_rows >= self._block_rows:
            if not self._is_pausing:
                self._soon()
        elif self._timer is None:
            self._timer = self._loop.call_later(GATHER_S, self._soon)

    # Which requests.

    def _gap(self) -> int:
        """How many requests to pass over before the next."""
        return int(log(1.0 - self._random()) / log1p(-self._share)) if self._share < 1 else 0

    def _chosen(self, count: int) -> list[int]:
        at, chosen = self._skip, []
        while at < count:
            chosen.append(at)
            at += 1 + self._gap()
        self._skip = at - count
        return chosen

    # When.

    @property
    def _inline_s(self) -> float:
        return self.version.inline_s

    def _fitting(self) -> int:
        """How many rows run within what a run may take: on the loop, where one row may."""
        pace = self.version.batcher.pace
        is_short = pace.of_run(1) <= self._inline_s
        bound_s = self._inline_s - pace.per_run_s if is_short else max(LONG_S, pace.of_run(1))
        return max(1, min(BLOCK_ROWS, self._most_rows, self.version.batch_rows, int(bound_s / max(pace.per_row_s, 1e-9))))

    def _soon(self) -> None:
        self._is_pausing = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_due and not self._running and not self._is_closed:
            self._is_due = True
            self._loop.call_soon(self._look)

    def _pause(self) -> None:
        """Look again: soon where a block waits, else when it has waited long enough for more."""
        if self._timer is None and self._held and not self._running:
            rest_s = self._held[0].at_s + GATHER_S - monotonic()
            self._is_pausing = self._held_rows >= self._block_rows or rest_s <= PAUSE_S
            self._timer = self._loop.call_later(PAUSE_S if self._is_pausing else rest_s, self._soon)

    def _look(self) -> None:
        """Run a block, if there is time."""
        self._is_due = False
        now = monotonic()
        lost, self._lost = self._lost, 0
        while self._held and now - self._held[0].at_s > HELD_S:
            lost += len(self._drop().counts)
        self._shed(lost)
        if self._held and not self._running and not self._is_closed and self._leisure.has_time:
            self._begin()
        self._pause()

    def _drop(self) -> Asked:
        asked = self._held.popleft()
        self._held_rows -= asked.rows
        self._is_full = False
        return asked

    def _begin(self) -> None:
        block = [self._drop()]
        most, rows = self._block_rows, block[0].rows
        while self._held and rows + self._held[0].rows <= most:
            block.append(self._drop())
            rows += block[-1].rows
        self._running = block
        self.version.mirrored += 1
        if hasattr(self.version.loaded.runtime, "submit"):
            self._ask(deque([block]), [])
        elif self.version.batcher.pace.of_run(rows) <= self._inline_s:
            self._done(block, self._run(block, monotonic))
        else:
            self._leisure.executor.submit(self._run_away, block)

    def _run_away(self, block: list[Asked]) -> None:
        """On the thread: the model's own time counts, not how long it made way for others."""
        found = self._run(block, thread_time)
        try:
            self._loop.call_soon_threadsafe(self._done, block, found)
        except RuntimeError:  # the loop has ended meanwhile
            return

    def _run(self, block: list[Asked], clock: Callable[[], float]) -> tuple[Mirrored, float]:
        """Ask `block`, request by request where it fails together; and the seconds of the model, 0 where it was not one run. Any thread may."""
        results: list[Mirrored] = []
        seconds = 0.0
        todo = deque([block])
        while todo:
            piece = todo.popleft()
            try:
                began = clock()
                outputs = self.version.run(self._inputs(piece), sum(each.rows for each in piece))
                took = clock() - began
                seconds = took if piece is block else 0.0
                results.append(self._compared(piece, outputs, took))
            except Exception:  # noqa: BLE001 - a version under trial may raise anything, and nobody is to notice
                todo.extendleft(reversed(list(_one_by_one(piece))))
                if _requests(piece) == 1:
                    results.append(Mirrored(1, 0, 0, [], []))
        return _together(results), seconds

    def _ask(self, todo: deque[list[Asked]], results: list[Mirrored]) -> None:
        """As `_run`, of a model in another process, which is sent one piece after the other; an input that ends a process is remembered."""
        if not todo or self._is_closed:
            self._done(self._running, (_together(results), 0.0))
            return
        piece, suspects = todo.popleft(), self.version.suspects
        alone = _requests(piece) == 1

        def done(outputs: dict[str, Array] | None, error: ModelyardError | None, seconds: float) -> None:
            if outputs is not None:
                results.append(self._compared(piece, outputs, seconds))
                if alone and suspects:
                    suspects.clear(self._inputs(piece))
            else:
                if suspects is not None and error is not None and isinstance(error.__cause__, Ended):
                    for each in [piece] if alone else _one_by_one(piece):
                        suspects.blame(self._inputs(each))
                if alone:
                    results.append(Mirrored(1, 0, 0, [], []))
                todo.extendleft(reversed(list(_one_by_one(piece))))
            self._ask(todo, results)

        try:
            inputs = self._inputs(piece)
            self.version.check(inputs, sum(each.rows for each in piece))
            if suspects and (not alone or suspects.refuses(inputs)):
                raise Unavailable("these inputs are asked one by one, those that ended a process not at all")
            runtime = cast("Submits", self.version.loaded.runtime)
            runtime.submit(inputs, done, deadline_s=monotonic() + self.version.timeout_s, rows_at_once=self.version.batch_rows)
        except (ModelyardError, ValueError):
            self._loop.call_soon(done, None, None, 0.0)

    def _inputs(self, piece: list[Asked]) -> Mapping[str, Array]:
        return self._fit({name: joined([each.inputs[name] for each in piece]) for name in piece[0].inputs})

    def _compared(self, piece: list[Asked], outputs: Mapping[str, Array], seconds: float) -> Mirrored:
        """Each request is taken to last what it took beside the champion's run, and this version's time for as many rows as ran together then."""
        rows = sum(each.rows for each in piece)
        if any(len(values) != rows for values in outputs.values()):
            raise ValueError("the model did not answer every row")
        disagreed = compared = 0
        if self._agreement.is_known:
            at = 0
            for each in _even(piece):
                theirs = outputs if each.rows == rows else {name: values[at : at + each.rows] for name, values in outputs.items()}
                disagreed += int(self._agreement.differ(each.outputs, theirs, each.rows).sum())
                at += each.rows
            compared = rows
        latencies_s = [besides_s + seconds / rows * each.run_rows for each in piece for besides_s in each.besides_s]
        return Mirrored(0, compared, disagreed, latencies_s, [outputs])

    # What came of it.

    def _done(self, block: list[Asked], found: tuple[Mirrored, float]) -> None:
        mirrored, seconds = found
        self.version.mirrored -= 1
        self._running = []
        if self._is_closed:
            return  # counted as shed
        if seconds:
            self.version.batcher.pace.learn(sum(each.rows for each in block), seconds)
            self._block_rows = self._fitting()
        count = _requests(block)
        meter, recorder = self.version.meter, self.version.recorder
        meter.mirrored(sent=count, failed=mirrored.failed, rows=mirrored.rows, disagreed=mirrored.disagreed)
        if recorder is not None:
            recorder.mirrored(
                sent=count,
                failed=mirrored.failed,
                rows=mirrored.rows,
                disagreed=mirrored.disagreed,
                latencies_s=mirrored.latencies_s,
                outputs=mirrored.outputs,
            )
        self._pause()

    def _shed(self, count: int) -> None:
        if count:
            self.version.meter.mirrored(shed=count)
            if self.version.recorder is not None:
                self.version.recorder.mirrored(shed=count)


def _rows_of(arrays: Mapping[str, Array], counts: list[int], chosen: Sequence[int]) -> dict[str, Array]:
    """The chosen requests' rows; of small arrays a single request's as they lie there."""
    if len(chosen) == 1:
        (one,) = chosen
        at = sum(counts[:one])
        parts = {name: values[at : at + counts[one]] for name, values in arrays.items()}
        is_small = sum(values.nbytes for values in arrays.values()) <= SEEN_BYTES
        return parts if is_small else {name: part.copy() for name, part in parts.items()}
    if max(counts) == 1:
        return {name: values[chosen] for name, values in arrays.items()}
    ends = list(accumulate(counts))
    places = np.concatenate([np.arange(ends[at] - counts[at], ends[at]) for at in chosen])
    return {name: values[places] for name, values in arrays.items()}


def _requests(piece: list[Asked]) -> int:
    return sum(len(each.counts) for each in piece)


def _even(piece: list[Asked]) -> list[Asked]:
    """`piece` with the champion's answers end to end where they are of one shape: one comparison for all."""
    try:
        outputs = {name: joined([each.outputs[name] for each in piece]) for name in piece[0].outputs}
    except ValueError:
        return piece
    return [piece[0]._replace(rows=sum(each.rows for each in piece), outputs=outputs)]


def _one_by_one(piece: list[Asked]) -> Iterator[list[Asked]]:
    """Each request of a piece of several by itself; nothing of a single one."""
    if _requests(piece) == 1:
        return
    for each in piece:
        at = 0
        for count, besides_s in zip(each.counts, each.besides_s, strict=True):
            part = slice(at, at + count)
            at += count
            inputs, outputs = ({name: values[part] for name, values in arrays.items()} for arrays in (each.inputs, each.outputs))
            yield [Asked([count], count, inputs, outputs, [besides_s], each.run_rows, each.at_s)]


def _together(results: list[Mirrored]) -> Mirrored:
    if len(results) == 1:
        return results[0]
    return Mirrored(
        sum(each.failed for each in results),
        sum(each.rows for each in results),
        sum(each.disagreed for each in results),
        [latency_s for each in results for latency_s in each.latencies_s],
        [outputs for each in results for outputs in each.outputs],
    )
