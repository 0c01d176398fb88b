"""A version that is asked a share of what the champion has answered, to be compared; nobody is ever answered by it.

Hides when that happens: after the answers have left, in bursts, while the worker has time to spare, and else not at all: what finds no room or
waits too long is shed and counted. Runs do not pass through the version's batcher, whose next batch would wait for them; those that take long
have a thread that yields to every other. It must not delay a caller, nor count a mirrored request among the live ones.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import log, log1p
from time import monotonic, thread_time
from typing import TYPE_CHECKING, cast

from modelyard.errors import ModelyardError, Unavailable
from modelyard.monitor.agreement import Agreement
from modelyard.runtime.isolated.process import Ended
from modelyard.runtime.validate import internal_dtype
from modelyard.serve import mirrored
from modelyard.serve.mirrored import Asked, Found, Mirrored

if TYPE_CHECKING:
    from modelyard.runtime.base import Submits
    from modelyard.serve.batching import Ran
    from modelyard.serve.dataplane import Version
    from modelyard.serve.leisure import Leisure
    from modelyard.types import Array, Schema

BLOCK_ROWS = 64
"""Rows that run together, at most: enough to share what a run costs beside its rows."""

BURST_BLOCKS = 4
"""So many blocks of a quick model are waited for: what is done a few times a second finds its code and data no longer in the core's caches, and takes
several times as long as the same thing done again at once."""

TOLD_ROWS = 256
"""Answers are compared and counted together, as many at a time."""

HELD_ROWS = 1024
HELD_BYTES = 8 << 20
"""What may wait; more is shed."""

HELD_S = 1.0
"""How long it may wait; older is shed."""

GATHER_S = 0.4
"""How long a burst that is not full waits for more."""

PAUSE_S = 0.002
"""Between two looks whether there is time."""

RESTLESS_PAUSE_S = 0.01
"""The same while the event loop is all but never done: that will not change within less."""

CROWD = 8
"""Where the champion answers so many requests a run, callers wait for one another, and each moment that looks free is one in which they ask again."""

CROWDED_PAUSE_S = 0.03
"""Between two steps then: a shadow takes a hundredth of the time, and still learns."""

SEEN_BYTES = 8 << 10
"""A run's arrays of so many bytes together may be held whole for some rows of it: that is less work than a copy of the rows."""

LONG_S = 0.001
"""A block on the thread takes about this long where several requests fit in."""


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
        self._most_rows = max(1, min(HELD_ROWS, HELD_BYTES // max(1, _row_bytes(champion.schema))))
        self._held: deque[Asked] = deque()
        self._held_rows = self._held_bytes = 0
        self._is_open = any(-1 in spec.shape[1:] for spec in (*champion.schema.inputs, *champion.schema.outputs))
        self._running: list[Asked] = []
        self._found: list[Found] = []
        self._found_rows = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = self._is_pausing = False
        self._is_closed = False
        self._is_full = False
        self._lost = 0
        self._runs = self._requests = 0
        self._is_crowded = False
        self._stepped_s = 0.0
        self._skip = self._gap()
        self._block_rows = self._burst_rows = 1
        self._keep_pace()

    def close(self) -> None:
        """Ask no more; what waits or runs is shed."""
        self._is_closed = True
        left = [*self._held, *self._running]
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._tell()
        self._shed(mirrored.requests(left) + self._lost)

    def choose(self, count: int) -> Sequence[int]:
        """Which of the next `count` requests are to be offered; each has the same chance.

        Asked of every run, before anything is kept of it: what is passed over, or lost for want of room, costs next to nothing.
        """
        self._runs += 1
        self._requests += count
        if self._skip >= count:
            self._skip -= count
            return ()
        chosen = range(count) if self._share >= 1 else self._chosen(count)
        if self._is_full:
            self._lost += len(chosen)
            return ()
        return chosen

    def offer(self, chosen: Sequence[int], counts: list[int], ran: Ran, outputs: Mapping[str, Array], latencies_s: list[float]) -> None:
        """Take in the `chosen` requests of a run whose answers have left: request i of it had `counts[i]` rows and took `latencies_s[i]`.

        What can wait is left for the burst: this is asked of a run among many, and is as little as it can be.
        """
        if self._is_closed:
            return
        some: Sequence[int] | None = None
        rows = run_rows = ran.rows
        if len(chosen) != len(counts):
            some = chosen
            rows = len(chosen) if run_rows == len(counts) else sum([counts[at] for at in chosen])
        if self._held and (self._held_rows + rows > self._most_rows or self._held_bytes > HELD_BYTES):
            self._is_full = True
            self._lost += len(chosen)
            return
        asked = Asked(some, rows, counts, ran.inputs, outputs, latencies_s, ran.seconds, run_rows, monotonic())
        if some is not None and _bytes(ran.inputs) + _bytes(outputs) > SEEN_BYTES:
            asked = mirrored.apart(asked)
        self._held.append(asked)
        self._held_rows += rows
        if self._is_open:  # a row may have any size
            self._held_bytes += _bytes(asked.inputs) + _bytes(asked.outputs)
        if self._held_rows >= self._burst_rows:
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

    def _keep_pace(self) -> None:
        """How many rows run within what a run may take: on the loop, where one row may; and how many are waited for."""
        pace = self.version.batcher.pace
        is_short = pace.of_run(1) <= self._inline_s
        bound_s = self._inline_s - pace.per_run_s if is_short else max(LONG_S, pace.of_run(1))
        self._block_rows = max(1, min(BLOCK_ROWS, self._most_rows, self.version.batch_rows, int(bound_s / max(pace.per_row_s, 1e-9))))
        self._burst_rows = min(self._most_rows, self._block_rows * BURST_BLOCKS) if is_short else self._block_rows

    def _soon(self) -> None:
        self._is_pausing = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_due and not self._running and not self._is_closed:
            self._is_due = True
            self._loop.call_soon(self._look)

    def _rest_s(self) -> float:
        """How long what is here waits for more: a burst that has begun goes on to its end."""
        if self._found or self._held_rows >= self._burst_rows:
            return 0.0
        return self._held[0].at_s + GATHER_S - monotonic() if self._held else math.inf

    def _pause(self) -> None:
        """Look again: soon where a burst waits, else when it has waited long enough for more."""
        if self._timer is None and (self._held or self._found) and not (self._is_due or self._running):
            rest_s, pause_s = self._rest_s(), PAUSE_S if self._leisure.is_rested else RESTLESS_PAUSE_S
            if self._is_crowded:
                pause_s = max(pause_s, self._stepped_s + CROWDED_PAUSE_S - monotonic())
            self._is_pausing = rest_s <= pause_s
            self._timer = self._loop.call_later(max(rest_s, pause_s), self._soon)

    def _look(self) -> None:
        """Take a step of a burst, if there is time: what callers ask meanwhile is answered between two."""
        self._is_due = False
        now = monotonic()
        lost, self._lost = self._lost, 0
        while self._held and now - self._held[0].at_s > HELD_S:
            lost += self._drop().requests
        self._shed(lost)
        if self._is_closed or self._running or not (self._held or self._found):
            return
        self._look_around()
        if self._leisure.has_time and not (self._is_crowded and now - self._stepped_s < CROWDED_PAUSE_S):
            self._stepped_s = now
            if self._held and self._found_rows < TOLD_ROWS:
                self._begin()
            else:
                self._tell()
            if self._rest_s() <= 0 and not self._is_crowded:
                self._soon()
        elif self._found and now - self._found[0].piece[0].at_s > 2 * HELD_S:
            self._tell()
        self._pause()

    def _look_around(self) -> None:
        """Whether callers have crowded since the last time: of a few runs nobody can say."""
        if self._runs >= CROWD:
            self._is_crowded = self._requests >= CROWD * self._runs
            self._runs = self._requests = 0
        elif not self._runs:
            self._is_crowded = False

    def _drop(self) -> Asked:
        asked = self._held.popleft()
        self._held_rows -= asked.rows
        if self._is_open:
            self._held_bytes -= _bytes(asked.inputs) + _bytes(asked.outputs)
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
            found = self._run(block, monotonic)
            self._freed()
            self._learn(found)
            self._keep(found)
        else:
            self._leisure.executor.submit(self._run_away, block)

    def _run_away(self, block: list[Asked]) -> None:
        """On the thread: the model's own time counts, not how long it made way for others. What is long to run may be long to compare."""
        found = self._run(block, thread_time)
        came = mirrored.compared(self._agreement, found)
        try:
            self._loop.call_soon_threadsafe(self._came_back, found, came)
        except RuntimeError:  # the loop has ended meanwhile
            return

    def _run(self, block: list[Asked], clock: Callable[[], float]) -> list[Found]:
        """Ask `block`, request by request where it fails together. Any thread may."""
        try:
            return [self._answered(block, clock)]
        except Exception:  # noqa: BLE001 - a version under trial may raise anything, and nobody is to notice
            if mirrored.requests(block) == 1:
                return [Found(block, None, 0.0)]
        return [found for each in mirrored.one_by_one(block) for found in self._run(each, clock)]

    def _answered(self, piece: list[Asked], clock: Callable[[], float]) -> Found:
        rows = mirrored.rows(piece)
        inputs = self._inputs(piece)
        began = clock()
        outputs = self.version.run(inputs, rows)
        return Found(piece, _whole(outputs, rows), clock() - began)

    def _ask(self, todo: deque[list[Asked]], results: list[Found]) -> None:
        """As `_run`, of a model in another process, which is sent one piece after the other; an input that ends a process is remembered."""
        if not todo or self._is_closed:
            self._ended(results)
            return
        piece, suspects = todo.popleft(), self.version.suspects
        alone = mirrored.requests(piece) == 1

        def done(outputs: dict[str, Array] | None, error: ModelyardError | None, seconds: float) -> None:
            if outputs is not None:
                results.append(Found(piece, outputs, seconds))
                if alone and suspects:
                    suspects.clear(self._inputs(piece))
            else:
                if suspects is not None and error is not None and isinstance(error.__cause__, Ended):
                    for each in [piece] if alone else mirrored.one_by_one(piece):
                        suspects.blame(self._inputs(each))
                if alone:
                    results.append(Found(piece, None, 0.0))
                else:
                    todo.extendleft(reversed(list(mirrored.one_by_one(piece))))
            self._ask(todo, results)

        try:
            inputs = self._inputs(piece)
            self.version.check(inputs, mirrored.rows(piece))
            if suspects and (not alone or suspects.refuses(inputs)):
                raise Unavailable("these inputs are asked one by one, those that ended a process not at all")
            runtime = cast("Submits", self.version.loaded.runtime)
            runtime.submit(inputs, done, deadline_s=monotonic() + self.version.timeout_s, rows_at_once=self.version.batch_rows)
        except (ModelyardError, ValueError):
            self._loop.call_soon(done, None, None, 0.0)

    def _inputs(self, piece: list[Asked]) -> Mapping[str, Array]:
        return self._fit(mirrored.inputs_of(piece))

    # What came of it.

    def _ended(self, found: list[Found]) -> None:
        """A block has run elsewhere."""
        self._freed()
        if not self._is_closed:
            self._keep(found)
            self._pause()

    def _came_back(self, found: list[Found], came: Mirrored) -> None:
        """A block has run on the thread, and was compared there."""
        self._freed()
        if not self._is_closed:  # then it is counted as shed
            self._learn(found)
            self._count(found, came)
            self._pause()

    def _freed(self) -> None:
        self.version.mirrored -= 1
        self._running = []

    def _learn(self, found: list[Found]) -> None:
        """Take in what a block took, where it was one run."""
        if len(found) == 1 and found[0].outputs is not None:
            self.version.batcher.pace.learn(mirrored.rows(found[0].piece), found[0].seconds)
            self._keep_pace()

    def _keep(self, found: list[Found]) -> None:
        """Let what was answered be compared with the rest of its burst."""
        self._found += found
        self._found_rows += sum(mirrored.rows(each.piece) for each in found)

    def _tell(self) -> None:
        found, self._found, self._found_rows = self._found, [], 0
        if found:
            self._count(found, mirrored.compared(self._agreement, found))

    def _count(self, found: list[Found], came: Mirrored) -> None:
        sent = sum(mirrored.requests(each.piece) for each in found)
        meter, recorder = self.version.meter, self.version.recorder
        meter.mirrored(sent=sent, failed=came.failed, rows=came.rows, disagreed=came.disagreed)
        if recorder is not None:
            recorder.mirrored(
                sent=sent, failed=came.failed, rows=came.rows, disagreed=came.disagreed, latencies_s=came.latencies_s, outputs=came.outputs
            )

    def _shed(self, count: int) -> None:
        if count:
            self.version.meter.mirrored(shed=count)
            if self.version.recorder is not None:
                self.version.recorder.mirrored(shed=count)


def _row_bytes(schema: Schema) -> int:
    """What a row of the inputs and outputs takes; of a dimension that is open, one element."""
    return sum(internal_dtype(spec).itemsize * math.prod(max(size, 1) for size in spec.shape[1:]) for spec in (*schema.inputs, *schema.outputs))


def _bytes(arrays: Mapping[str, Array]) -> int:
    return sum([values.nbytes for values in arrays.values()])


def _whole(outputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
    if any(len(values) != rows for values in outputs.values()):
        raise ValueError("the model did not answer every row")
    return outputs
