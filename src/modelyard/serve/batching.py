"""One batch per turn of the event loop: all requests for a version that arrived in it run together.

Hides when a run happens, on which thread, and how one bad request is told from its neighbours. There is no timer and no added delay: a batch
of one when idle, larger by itself under load. A run expected to take longer than `inline_limit_s` goes to a thread, so that a
slow model delays neither a fast one nor health; while it runs, the next batch gathers, higher classes first, and what is too much or cannot make its
time is refused at once. A runtime that is elsewhere (`Submits`) is sent batches from the event loop itself. It must not know any wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from modelyard.errors import DeadlineExceeded, ModelFailed, ModelyardError, Overloaded, PayloadTooLarge, SchemaMismatch
from modelyard.protocols.rows import together
from modelyard.runtime.base import Runtime
from modelyard.serve.admission import HIGH, NORMAL, TOLERANCE, Limit, Pace, remaining_s
from modelyard.serve.due import Due
from modelyard.serve.remote import Batch, Remote
from modelyard.serve.shares import Shares
from modelyard.types import InferenceRequest

if TYPE_CHECKING:
    from modelyard.runtime.base import Submits
    from modelyard.serve.suspects import Suspects
    from modelyard.types import Array


QUICK_S = 0.001
"""Below this a run elsewhere is short beside the way there."""


class Call(Protocol):
    """One waiting request, as far as a batch must know it."""

    request: InferenceRequest
    deadline_s: float
    received_s: float
    priority: int
    """Its class, see `admission.PRIORITIES`."""

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for the answer."""


class Ran:
    """One run: who was in it, what went in and came out, when it began (monotonic) and how long the model took."""

    __slots__ = ("answered_s", "calls", "computed_s", "encoding_s", "inputs", "outputs", "rows", "seconds", "started_s")

    def __init__(
        self, calls: list[Call], rows: int, inputs: Mapping[str, Array], outputs: dict[str, Array], seconds: float, *, started_s: float = 0.0
    ) -> None:
        self.calls = calls
        self.rows = rows
        self.inputs = inputs
        self.outputs = outputs
        self.seconds = seconds
        self.started_s = started_s
        self.computed_s = 0.0
        """Since when its answers waited for the other runs of a turn; 0 where they did not."""
        self.encoding_s = self.answered_s = 0.0
        """When the first answer was begun, and the last one given."""


class Limits:
    """What bounds a batcher: rows in a run, rows waiting, requests held at once, and the time above which a run leaves the event loop."""

    __slots__ = ("batch_rows", "concurrency", "inline_s", "queue_rows")

    def __init__(self, *, batch_rows: int, queue_rows: int, inline_s: float, concurrency: int) -> None:
        self.batch_rows = batch_rows
        self.queue_rows = queue_rows
        self.inline_s = inline_s
        self.concurrency = concurrency


class Threads:
    """Where the costly runs of a worker's versions go: threads, and the shares by which the versions take turns at them."""

    __slots__ = ("executor", "shares")

    def __init__(self, executor: Executor, count: int) -> None:
        self.executor = executor
        self.shares = Shares(count)


_NOTHING: tuple[list[Ran], list[tuple[Call, ModelyardError]]] = [], []


class Batcher:
    """The queue of one version. Lives in the event loop and runs in the turns of `due`; only `compute` runs elsewhere.

    `on_ran` receives each run and answers its calls; `on_failed` receives a call that gets none, and why; `on_left` one whose caller went away
    while it waited, which is then not run. `suspects` are for a runtime that is elsewhere.
    """

    def __init__(
        self,
        runtime: Runtime,
        check: Callable[[Mapping[str, Array], int], None],
        limits: Limits,
        threads: Threads,
        *,
        on_ran: Callable[[Ran], None],
        on_failed: Callable[[Call, ModelyardError], None],
        on_left: Callable[[Call], None],
        suspects: Suspects | None = None,
        due: Due | None = None,
    ) -> None:
        self._runtime = runtime
        self._check = check
        self._limits = limits
        self._threads = threads
        self._on_ran = on_ran
        self._on_failed = on_failed
        self._on_left = on_left
        self._loop = asyncio.get_running_loop()
        self._due = due or Due(self._loop)
        self._done = _NOTHING
        self._waiting: list[Call] = []
        self._running: list[Call] = []
        self._started_s = 0.0
        self._running_until = 0.0
        self._is_scheduled = False
        self._is_mixed = False
        self._is_swept = False
        self._took_all = True
        self._alarm: asyncio.TimerHandle | None = None
        self._limit = Limit(limits.concurrency, monotonic())
        self._remote: Remote | None = None
        if hasattr(runtime, "submit"):
            self._remote = Remote(cast("Submits", runtime), check, batch_rows=limits.batch_rows, on_done=self._came_from_afar, suspects=suspects)
        self.pace = Pace()
        self.queued_rows = 0
        self.ran_s = 0.0
        """How long the model has run, all its answered runs together."""
        self.is_busy = False
        """Whether a run is on its thread or waits for one; only then is anything refused but for a full queue."""

    @property
    def queued_requests(self) -> int:
        """How many calls wait for the next run."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not self._running

    @property
    def _is_slow(self) -> bool:
        """Whether the model itself takes time. A row of a fast one runs on the loop; its long batches are a crowd, and soon over."""
        return self.pace.of_run(1) > self._limits.inline_s

    @property
    def concurrency_limit(self) -> int:
        """How many requests may be held at once, as found so far."""
        return self._limit.value

    def close(self) -> None:
        """Let go of model and owner; an idle batcher that is closed runs nothing more."""
        self._threads.shares.forget(self)
        self._remote = None
        del self._runtime, self._check, self._on_ran, self._on_failed, self._on_left
        if self._alarm is not None:
            self._alarm.cancel()

    def add(self, call: Call) -> None:
        """Let `call` run with the next batch. Raises Overloaded when there is no place or the deadline cannot be met, PayloadTooLarge."""
        rows = call.request.rows
        if self.queued_rows + rows > self._limits.queue_rows:
            self._make_room(call, rows)
        if self.is_busy:
            self.admit(call.priority, call.deadline_s, rows)
            self._make_place(call.priority)
            self._watch(call.deadline_s, monotonic())
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._due.run(self)
        if call.priority != NORMAL:
            self._is_mixed = True
        self._waiting.append(call)
        self.queued_rows += rows

    # Who gets in.

    def admit(self, priority: int, deadline_s: float, rows: int = 1) -> None:
        """Raise Overloaded where a call of `rows` would be refused now. While `is_busy`, ask before reading one: a refusal should cost little."""
        limit = self._limit.value
        now = monotonic()
        if len(self._running) + len(self._waiting) >= limit and self._is_slow:
            self._limit.press()
            if sum(each.is_open and each.priority <= priority for each in (*self._running, *self._waiting)) >= limit:
                raise Overloaded(
                    "this model has as many requests as it can answer in good time; try again", retry_after_s=self._wait_s(now, priority)
                )
        wait_s = self._wait_s(now, priority)
        late_s = now + wait_s + self.pace.of_run(rows) - deadline_s
        if late_s > 0:
            raise Overloaded("the rows that wait already take longer than the time given; try again", retry_after_s=min(wait_s, late_s))

    def _make_place(self, priority: int) -> None:
        """Keep to the limit by shedding who left, then who waits in a lower class; those that run already are not counted against a higher one."""
        surplus = len(self._running) + len(self._waiting) + 1 - self._limit.value
        if surplus > 0 and self._is_slow:
            surplus -= self._drop_left()
            self._shed(surplus, below=priority)

    def _make_room(self, call: Call, rows: int) -> None:
        """Keep to the rows that may wait. Raises where only calls of the same class or higher would make room."""
        most = self._limits.queue_rows
        if rows > most:
            raise PayloadTooLarge(f"a request has at most {most:,} rows", field="inputs", rule="rows")
        if not self._is_swept:  # once per batch: a refusal should cost little
            self._is_swept = True
            self._drop_left()
        lower = sum(each.request.rows for each in self._waiting if each.priority > call.priority) if self._is_mixed or call.priority == HIGH else 0
        if self.queued_rows - lower + rows > most:
            over = self.queued_rows + rows - most
            wait_s = self._running_s(monotonic()) + self.pace.of_queue(over, self._limits.batch_rows)
            raise Overloaded("too many rows wait for this model; try again", retry_after_s=wait_s)
        while self.queued_rows + rows > most:
            self._shed(1, below=call.priority)

    def _shed(self, count: int, *, below: int, is_oldest_first: bool = False) -> None:
        """Refuse up to `count` waiting calls of a class lower than `below`: the lowest class first, of a class the newest or the oldest first."""
        if count <= 0:
            return
        waiting = self._waiting
        order = sorted(range(len(waiting)), key=lambda at: (-waiting[at].priority, at if is_oldest_first else -at))
        gone = {at for at in order[:count] if waiting[at].priority > below}
        if not gone:
            return
        self._waiting = [call for at, call in enumerate(waiting) if at not in gone]
        self.queued_rows -= sum(waiting[at].request.rows for at in gone)
        now = monotonic()
        for at in sorted(gone):
            error = Overloaded("others took this request's place in the queue; try again", retry_after_s=self._wait_s(now, waiting[at].priority))
            self._on_failed(waiting[at], error)

    def _drop_left(self) -> int:
        """Forget the waiting calls that nobody waits for; gives how many."""
        gone = [call for call in self._waiting if not call.is_open]
        if gone:
            self._waiting = [call for call in self._waiting if call.is_open]
            self.queued_rows = sum(call.request.rows for call in self._waiting)
            for call in gone:
                self._on_left(call)
        return len(gone)

    def _wait_s(self, now: float, priority: int = NORMAL) -> float:
        rows = self.queued_rows
        if self._is_mixed:
            rows = sum(call.request.rows for call in self._waiting if call.priority <= priority)
        return self._running_s(now) + self.pace.of_queue(rows, self._limits.batch_rows)

    def _running_s(self, now: float) -> float:
        return remaining_s(self._running_until, self._started_s, now) if self._running else 0.0

    # What runs.

    def run(self) -> bool:
        """Run what waits, or see to it that it runs elsewhere; gives whether it ran here, and `answer` is to come."""
        self._is_scheduled = False
        if self._remote is not None:
            self._send(self._remote)
            return False
        calls, rows = self._take()
        if not calls:
            return False
        if self.pace.of_run(rows) <= self._limits.inline_s:
            try:
                self._done = self.compute(calls, rows)
            except Exception as error:  # noqa: BLE001 - what no rule foresees must not leave its callers waiting
                self._done = [], _all_failed(calls, error)
            return True
        if self._threads.shares.take(self):
            self._start(calls, rows)
        else:
            self._waiting[:0] = calls
            self.queued_rows += rows
            self._ask_for_thread()
        return False

    def answer(self) -> None:
        """Give what ran in this turn to its owner, and go on with what did not fit."""
        ran, failed = self._done
        self._done = _NOTHING
        for run in ran:
            run.computed_s = ran[-1].started_s + ran[-1].seconds
        self._finish(ran, failed)
        self._go_on()

    def _send(self, remote: Remote) -> None:
        """Hand over what waits, as far as the model's processes take it."""
        while self._waiting and remote.has_room:
            calls, rows = self._take()
            if not calls:
                break
            self._started_s = now = monotonic()
            self._running_until = max(self._running_until, now) + self.pace.of_run(rows)
            self._running += calls
            self._watch(min(call.deadline_s for call in calls), now)
            remote.ask(calls)
        self.is_busy = not remote.has_room

    def _came_from_afar(self, batch: Batch) -> None:
        """Every call of `batch` has its end."""
        remote = self._remote
        if remote is None:
            return
        self._running = [call for each in remote.flying for call in each.calls]
        self.is_busy = False
        now = monotonic()
        if not self._running:
            self._running_until = now
        is_in_force = self._ran(batch.calls, batch.seconds, now)
        self._finish([Ran(*each, started_s=batch.started_s) for each in batch.ran], batch.failed)
        if is_in_force:
            # The oldest: their answers would be the late ones, those of the newest are in time (CoDel drops from the front for the same reason).
            self._shed(len(self._waiting) - self._limit.value, below=-1, is_oldest_first=True)
        remote.is_quick = self.pace.of_run(len(batch.calls)) < QUICK_S
        if self._waiting:
            self._send(remote)

    def _go_on(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            self._due.run(self)

    def _ask_for_thread(self) -> None:
        self.is_busy = True
        now = monotonic()
        self._watch(min(call.deadline_s for call in self._waiting), now)
        self._threads.shares.ask(self, self._begin)

    def _begin(self) -> bool:
        """A thread is there: run what has gathered. False where nothing is left of it."""
        calls, rows = self._take()
        if calls:
            self._start(calls, rows)
        else:
            self.is_busy = False
        return bool(calls)

    def _start(self, calls: list[Call], rows: int) -> None:
        self.is_busy = True
        self._running = calls
        self._started_s = now = monotonic()
        self._running_until = now + self.pace.of_run(rows)
        self._watch(min(call.deadline_s for call in calls), now)
        self._threads.executor.submit(self._compute_away, calls, rows)

    def _take(self) -> tuple[list[Call], int]:
        """The next batch: by class, then in order of arrival, without those that nobody waits for or whose time has passed."""
        waiting, self._waiting = self._waiting, []
        self._is_swept = False
        if len(waiting) == 1 and waiting[0].is_open and waiting[0].deadline_s >= monotonic():  # the common case without load, or of many models
            self.queued_rows, self._took_all, self._is_mixed = 0, True, False
            return waiting, waiting[0].request.rows
        if self._is_mixed:
            waiting.sort(key=lambda call: call.priority)
            self._is_mixed = any(call.priority != NORMAL for call in waiting)
        now = monotonic()
        calls: list[Call] = []
        rows = left = 0
        for index, call in enumerate(waiting):
            own = call.request.rows
            if rows and rows + own > self._limits.batch_rows:
                self._waiting = waiting[index:]
                left = sum(call.request.rows for call in self._waiting)
                break
            if not call.is_open:
                self._on_left(call)
                continue
            if call.deadline_s < now:
                self._on_failed(call, DeadlineExceeded("the time given passed before the model could run"))
                continue
            calls.append(call)
            rows += own
        self.queued_rows = left
        self._took_all = not left
        return calls, rows

    def _compute_away(self, calls: list[Call], rows: int) -> None:
        """On a thread. Its end is told to the loop directly: a future of asyncio's would take one more turn of it."""
        try:
            done = self._compute_due(calls, rows)
        except BaseException as error:  # noqa: BLE001 - what no rule foresees must not leave its callers waiting
            done = [], _all_failed(calls, error)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._came_back, *done)

    def _compute_due(self, calls: list[Call], rows: int) -> tuple[list[Ran], list[tuple[Call, ModelyardError]]]:
        """`compute` on a thread, which may have begun late: without the calls whose time has passed since."""
        now = monotonic()
        if all(call.deadline_s >= now for call in calls):
            return self.compute(calls, rows)
        late = DeadlineExceeded("the time given passed before the model could run")
        due = [call for call in calls if call.deadline_s >= now]
        ran, failed = self.compute(due, sum(call.request.rows for call in due)) if due else ([], [])
        return ran, failed + [(call, late) for call in calls if call.deadline_s < now]

    def compute(self, calls: list[Call], rows: int) -> tuple[list[Ran], list[tuple[Call, ModelyardError]]]:
        """Check and run `calls` together; where that fails, find whose fault it is. Touches no state, so any thread may do it."""
        try:
            return [self._predict(calls, rows)], []
        except ModelyardError as error:
            if len(calls) == 1:
                return [], [(calls[0], error)]
            if isinstance(error, SchemaMismatch):
                return self._without_misfits(calls)
        return self._one_by_one(calls)

    def _without_misfits(self, calls: list[Call]) -> tuple[list[Ran], list[tuple[Call, ModelyardError]]]:
        good: list[Call] = []
        failed: list[tuple[Call, ModelyardError]] = []
        for call in calls:
            try:
                self._check(call.request.inputs, call.request.rows)
                good.append(call)
            except SchemaMismatch as error:
                failed.append((call, error))
        if not failed:  # rows of different lengths: each fits, and they do not fit together
            return self._one_by_one(calls)
        ran, others = self.compute(good, sum(call.request.rows for call in good)) if good else ([], [])
        return ran, failed + others

    def _one_by_one(self, calls: list[Call]) -> tuple[list[Ran], list[tuple[Call, ModelyardError]]]:
        ran: list[Ran] = []
        failed: list[tuple[Call, ModelyardError]] = []
        for call in calls:
            try:
                ran.append(self._predict([call], call.request.rows))
            except ModelyardError as error:
                failed.append((call, error))
        return ran, failed

    def _predict(self, calls: list[Call], rows: int) -> Ran:
        try:
            inputs = together([call.request.inputs for call in calls])
        except ValueError as error:
            raise SchemaMismatch("rows of different shapes do not run together") from error
        self._check(inputs, rows)
        start = monotonic()
        try:
            outputs = self._runtime.predict(inputs) if rows <= self._limits.batch_rows else self._in_parts(inputs, rows)
        except ModelyardError:
            raise
        except Exception as error:
            raise ModelFailed("the model failed on an input that its schema accepts") from error
        seconds = monotonic() - start
        for array in outputs.values():
            if len(array) != rows:
                raise ModelFailed("the model did not answer every row")
        return Ran(calls, rows, inputs, outputs, seconds, started_s=start)

    def _in_parts(self, inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
        step = self._limits.batch_rows
        parts = [self._runtime.predict({name: array[at : at + step] for name, array in inputs.items()}) for at in range(0, rows, step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _came_back(self, ran: list[Ran], failed: list[tuple[Call, ModelyardError]]) -> None:
        calls, self._running = self._running, []
        self.is_busy = False
        now = monotonic()
        is_in_force = self._ran(calls, sum(run.seconds for run in ran), now)
        self._finish(ran, failed)
        if is_in_force:
            # The oldest: their answers would be the late ones, those of the newest are in time (CoDel drops from the front for the same reason).
            self._shed(len(self._waiting) - self._limit.value, below=-1, is_oldest_first=True)
        again = None
        if self._waiting and not self._is_scheduled and self.pace.of_run(self.queued_rows) > self._limits.inline_s:
            self.is_busy, again = True, self._begin
        self._threads.shares.done(self, now - self._started_s, again)
        if not self.is_busy:
            self._go_on()

    def _ran(self, calls: list[Call], seconds: float, now: float) -> bool:
        """Tell the limit of a run, by the model's own seconds; gives whether the limit is in force.

        Where the batch took all that waited there is no queue, whatever the clock says: the rest was spent on the loop, where a lower limit, and so
        smaller batches, would help nobody.
        """
        latency_s = now - min(call.received_s for call in calls)
        return self._limit.ran(min(latency_s, TOLERANCE * seconds) if self._took_all else latency_s, seconds, now)

    def _finish(self, ran: list[Ran], failed: list[tuple[Call, ModelyardError]]) -> None:
        for run in ran:
            self.ran_s += run.seconds
            self.pace.learn(run.rows, run.seconds)
            self._on_ran(run)
        for call, error in failed:
            self._on_failed(call, error)

    def _watch(self, deadline_s: float, now: float) -> None:
        """While a run is on its thread, answer by the deadline those whose time passes."""
        if self._alarm is None or self._alarm.when() > self._loop.time() + deadline_s - now:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_later(max(0.001, deadline_s - now), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = monotonic()
        pending = [call for call in (*self._running, *self._waiting) if call.is_open]
        for call in pending:
            if call.deadline_s <= now:
                self._on_failed(call, DeadlineExceeded("the time given passed while the request waited for the model"))
        left = [call.deadline_s for call in pending if call.deadline_s > now]
        if left:
            self._watch(min(left), now)


def _all_failed(calls: list[Call], error: BaseException) -> list[tuple[Call, ModelyardError]]:
    failure = ModelFailed("the model failed on an input that its schema accepts")
    failure.__cause__ = error
    return [(call, failure) for call in calls]
