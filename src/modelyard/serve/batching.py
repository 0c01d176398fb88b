"""One batch per turn of the event loop: all requests for a version that arrived in it run together.

Hides when a run happens, on which thread, and how one bad request is told from its neighbours. There is no timer and no added delay: a batch
of one when idle, larger by itself under load. A run expected to take longer than `inline_limit_s` goes to a thread, so that a
slow model delays neither a fast one nor health; while it runs, the next batch gathers. It must not know any wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import numpy as np

from modelyard.errors import DeadlineExceeded, ModelFailed, ModelyardError, Overloaded, PayloadTooLarge, SchemaMismatch
from modelyard.runtime.base import Runtime
from modelyard.types import InferenceRequest

if TYPE_CHECKING:
    from modelyard.types import Array

MEMORY = 0.1
"""Weight of the newest run in the running estimate of a row's cost."""


class Call(Protocol):
    """One waiting request, as far as a batch must know it."""

    request: InferenceRequest
    deadline_s: float
    received_s: float

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for the answer."""


class Ran:
    """One run: who was in it, what went in and came out, and how long the model took."""

    __slots__ = ("calls", "inputs", "outputs", "rows", "seconds")

    def __init__(self, calls: list[Call], rows: int, inputs: Mapping[str, Array], outputs: dict[str, Array], seconds: float) -> None:
        self.calls = calls
        self.rows = rows
        self.inputs = inputs
        self.outputs = outputs
        self.seconds = seconds


class Limits:
    """What bounds a batcher: rows in a run, rows waiting, and the time above which a run leaves the event loop."""

    __slots__ = ("batch_rows", "inline_s", "queue_rows")

    def __init__(self, *, batch_rows: int, queue_rows: int, inline_s: float) -> None:
        self.batch_rows = batch_rows
        self.queue_rows = queue_rows
        self.inline_s = inline_s


class Batcher:
    """The queue of one version. Lives in the event loop; only `compute` runs elsewhere.

    `on_ran` receives each run and answers its calls; `on_failed` receives a call that gets none, and why.
    """

    def __init__(
        self,
        runtime: Runtime,
        check: Callable[[Mapping[str, Array], int], None],
        limits: Limits,
        executor: Executor,
        *,
        on_ran: Callable[[Ran], None],
        on_failed: Callable[[Call, ModelyardError], None],
    ) -> None:
        self._runtime = runtime
        self._check = check
        self._limits = limits
        self._executor = executor
        self._on_ran = on_ran
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Call] = []
        self._running: list[Call] = []
        self._running_until = 0.0
        self._is_scheduled = False
        self._alarm: asyncio.TimerHandle | None = None
        self.queued_rows = 0
        self.seconds_per_run = 0.0
        self.seconds_per_row = 0.0

    def expect(self, seconds_per_row: float) -> None:
        """Take the cost of a single row, as the golden replay measured it, as the first estimate."""
        self.seconds_per_run = seconds_per_row
        self.seconds_per_row = seconds_per_row

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not self._running

    def close(self) -> None:
        """Let go of model and owner; an idle batcher that is closed runs nothing more."""
        del self._runtime, self._check, self._on_ran, self._on_failed
        if self._alarm is not None:
            self._alarm.cancel()

    def add(self, call: Call) -> None:
        """Let `call` run with the next batch. Raises Overloaded when the queue is full or the deadline cannot be met, PayloadTooLarge."""
        rows = call.request.rows
        limits = self._limits
        if self.queued_rows + rows > limits.queue_rows:
            if rows > limits.queue_rows:
                raise PayloadTooLarge(f"a request has at most {limits.queue_rows:,} rows", field="inputs", rule="rows")
            raise Overloaded("too many rows wait for this model; try again", retry_after_s=self._wait_s(monotonic()))
        if self._running:
            now = monotonic()
            wait_s = self._wait_s(now)
            if now + wait_s > call.deadline_s:
                raise Overloaded("the rows that wait already take longer than the time given; try again", retry_after_s=wait_s)
            self._watch(call.deadline_s, now)
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)
        self._waiting.append(call)
        self.queued_rows += rows

    def _wait_s(self, now: float) -> float:
        return max(0.0, self._running_until - now) + self.queued_rows * self.seconds_per_row

    def _run(self) -> None:
        self._is_scheduled = False
        calls, rows = self._take()
        if not calls:
            return
        expected_s = self.seconds_per_run + rows * self.seconds_per_row if rows > 1 else self.seconds_per_run
        if expected_s <= self._limits.inline_s:
            try:
                done = self.compute(calls, rows)
            except Exception as error:  # noqa: BLE001 - what no rule foresees must not leave its callers waiting
                done = [], _all_failed(calls, error)
            self._finish(*done)
        else:
            now = monotonic()
            self._running = calls
            self._running_until = now + expected_s
            self._watch(min(call.deadline_s for call in calls), now)
            future = self._loop.run_in_executor(self._executor, self.compute, calls, rows)
            future.add_done_callback(self._came_back)
        if self._waiting and not self._running and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _take(self) -> tuple[list[Call], int]:
        """The next batch: in order of arrival, without those that nobody waits for or whose time has passed."""
        waiting, self._waiting = self._waiting, []
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
                continue
            if call.deadline_s < now:
                self._on_failed(call, DeadlineExceeded("the time given passed before the model could run"))
                continue
            calls.append(call)
            rows += own
        self.queued_rows = left
        return calls, rows

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
        first = calls[0].request.inputs
        if len(calls) == 1:
            inputs: Mapping[str, Array] = first
        else:
            try:
                inputs = {name: np.concatenate([call.request.inputs[name] for call in calls]) for name in first}
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
        if any(len(array) != rows for array in outputs.values()):
            raise ModelFailed("the model did not answer every row")
        return Ran(calls, rows, inputs, outputs, seconds)

    def _in_parts(self, inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
        step = self._limits.batch_rows
        parts = [self._runtime.predict({name: array[at : at + step] for name, array in inputs.items()}) for at in range(0, rows, step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _came_back(self, future: asyncio.Future[tuple[list[Ran], list[tuple[Call, ModelyardError]]]]) -> None:
        calls, self._running = self._running, []
        error = future.exception()
        if error is not None:
            self._finish([], _all_failed(calls, error))
        else:
            self._finish(*future.result())
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _finish(self, ran: list[Ran], failed: list[tuple[Call, ModelyardError]]) -> None:
        for run in ran:
            self._learn(run)
            self._on_ran(run)
        for call, error in failed:
            self._on_failed(call, error)

    def _learn(self, run: Ran) -> None:
        if run.rows == 1:
            self.seconds_per_run += MEMORY * (run.seconds - self.seconds_per_run)
        else:
            per_row = max(0.0, run.seconds - self.seconds_per_run) / run.rows
            self.seconds_per_row += MEMORY * (per_row - self.seconds_per_row)

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
