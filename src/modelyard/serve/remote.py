"""Batches for a model whose runtime is elsewhere: sent as they gather, answered when they come back.

Hides how one bad request is told from its neighbours without a thread: a batch whose run failed is asked again call by call, and what ended a process
is remembered, so that the same input ends two at most; while much fails no batches are made, so that no more than a fifth is asked twice. Lives in
the event loop; holds no queue, which is the batcher's. It must not know any wire.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from modelyard.errors import DeadlineExceeded, ModelFailed, ModelyardError, Rejected, SchemaMismatch
from modelyard.protocols.rows import together
from modelyard.retries import Budget
from modelyard.runtime.isolated.process import Ended
from modelyard.serve.suspects import Suspects
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.runtime.base import Submits
    from modelyard.serve.batching import Call
    from modelyard.types import Array

Check = Callable[[Mapping[str, "Array"], int], None]


ALONE = 256.0
"""Calls that may be asked a second time, alone, before batches are no longer made; a fifth of a call is earned by each that comes."""

AHEAD = 2
"""Batches that a process with short runs has at once."""


class Batch:
    """One batch under way, in one piece or call by call: what came of it so far."""

    __slots__ = ("calls", "failed", "left", "ran", "seconds", "started_s")

    def __init__(self, calls: list[Call], started_s: float) -> None:
        self.calls = calls
        self.started_s = started_s
        self.ran: list[tuple[list[Call], int, Mapping[str, Array], dict[str, Array], float]] = []
        self.failed: list[tuple[Call, ModelyardError]] = []
        self.left = 0
        self.seconds = 0.0


class Remote:
    """What a batcher of such a model sends its batches to; `on_done` receives each when all its calls have their end."""

    def __init__(
        self, runtime: Submits, check: Check, *, batch_rows: int, on_done: Callable[[Batch], None], suspects: Suspects | None = None
    ) -> None:
        runtime.attach()
        self._submit = runtime.submit
        self._processes = runtime.processes
        self._check = check
        self._batch_rows = batch_rows
        self._on_done = on_done
        self._budget = Budget(reserve=ALONE, most=ALONE)
        self.suspects = Suspects() if suspects is None else suspects
        self.flying: list[Batch] = []
        self.is_quick = True
        """Whether runs are short beside the way; of long ones the next batch gathers rather than waits there."""

    @property
    def has_room(self) -> bool:
        """Whether another batch is best sent now: a process is free, or soon will be (`is_quick`) and then need not wait for its next one."""
        return len(self.flying) < (AHEAD * self._processes if self.is_quick else self._processes)

    def ask(self, calls: list[Call]) -> None:
        """Send `calls` as one batch."""
        batch = Batch(calls, monotonic())
        self.flying.append(batch)
        batch.left = 1
        if self.suspects:
            calls = self._without_refused(batch, calls)
        for _ in calls:
            self._budget.asked()
        if len(calls) == 1 or self._budget.has(len(calls)):
            if calls:
                self._together(batch, calls)
        else:  # so much fails that telling whose fault it is would become the load: each is asked alone from the start
            self._one_by_one(batch, calls)
        self._one_less(batch)

    def _without_refused(self, batch: Batch, calls: list[Call]) -> list[Call]:
        kept = []
        for call in calls:
            if self.suspects.refuses(call.request.inputs):
                evidence = "this input ended the model's process twice and is not run again for a while"
                batch.failed.append((call, Rejected(evidence, verdicts=[Verdict(outcome="fail", rule="poison", evidence=evidence)])))
            else:
                kept.append(call)
        return kept

    def _together(self, batch: Batch, calls: list[Call]) -> None:
        rows = sum(call.request.rows for call in calls)
        try:
            inputs = _joined(calls)
            self._check(inputs, rows)
        except SchemaMismatch as error:
            if len(calls) == 1:
                batch.failed.append((calls[0], error))
            else:
                self._without_misfits(batch, calls)
            return

        def done(outputs: dict[str, Array] | None, error: ModelyardError | None, seconds: float) -> None:
            seconds = min(seconds, monotonic() - batch.started_s)  # it is the process that says so
            batch.seconds += seconds
            if outputs is not None:
                batch.ran.append((calls, rows, inputs, outputs, seconds))
                if self.suspects:
                    for call in calls:
                        self.suspects.clear(call.request.inputs)
            else:
                self._failed(batch, calls, error or ModelFailed("the model gave no answer"))
            self._one_less(batch)

        batch.left += 1
        try:
            self._submit(inputs, done, deadline_s=max(call.deadline_s for call in calls), rows_at_once=self._batch_rows)
        except ModelyardError as error:
            batch.failed += [(call, error) for call in calls]
            batch.left -= 1

    def _without_misfits(self, batch: Batch, calls: list[Call]) -> None:
        good: list[Call] = []
        for call in calls:
            try:
                self._check(call.request.inputs, call.request.rows)
                good.append(call)
            except SchemaMismatch as error:
                batch.failed.append((call, error))
        if len(good) == len(calls):  # rows of different lengths: each fits, and they do not fit together
            self._one_by_one(batch, calls)
        elif good:
            self._together(batch, good)

    def _one_by_one(self, batch: Batch, calls: list[Call]) -> None:
        for call in calls:
            self._together(batch, [call])

    def _failed(self, batch: Batch, calls: list[Call], error: ModelyardError) -> None:
        """One call failed for good; of several nobody knows yet whose fault it is."""
        if isinstance(error.__cause__, Ended):
            for call in calls:
                self.suspects.blame(call.request.inputs)
        if len(calls) == 1 or not isinstance(error, ModelFailed):
            batch.failed += [(call, error) for call in calls]
            return
        now = monotonic()
        late = DeadlineExceeded("the time given passed before the model could run")
        batch.failed += [(call, late) for call in calls if call.deadline_s <= now]
        again = self._without_refused(batch, [call for call in calls if call.deadline_s > now])
        self._budget.spend(len(again))
        self._one_by_one(batch, again)

    def _one_less(self, batch: Batch) -> None:
        batch.left -= 1
        if batch.left == 0:
            self.flying.remove(batch)
            self._on_done(batch)


def _joined(calls: list[Call]) -> Mapping[str, Array]:
    try:
        return together([call.request.inputs for call in calls])
    except ValueError as error:
        raise SchemaMismatch("rows of different shapes do not run together") from error
