"""serve.remote: batches to a model that is elsewhere, and who pays when one ends its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import numpy as np
import pytest

from modelyard.errors import DeadlineExceeded, ModelFailed, ModelyardError, Rejected, SchemaMismatch, Unavailable
from modelyard.runtime.isolated.process import Ended, Raised
from modelyard.serve.admission import NORMAL
from modelyard.serve.batching import Batcher, Limits, Ran, Threads
from modelyard.serve.remote import ALONE
from modelyard.types import InferenceRequest

POISON = -1.0
RAISES = -2.0
HANGS = -3.0


class Asked:
    """A call whose answer is kept."""

    def __init__(self, *values: float, timeout_s: float = 30.0) -> None:
        self.request = InferenceRequest({"x": np.array(values)}, len(values))
        self.received_s = monotonic()
        self.deadline_s = self.received_s + timeout_s
        self.priority = NORMAL
        self.is_open = True
        self.answer: Any = None


class Elsewhere:
    """A runtime that answers in a later turn: twice the value. It ends on POISON, and counts how often."""

    processes = 1

    def __init__(self) -> None:
        self.asked: list[list[float]] = []
        self.ends = 0
        self.refusal: ModelyardError | None = None
        self.most = 0
        self._open = 0

    def attach(self) -> None:
        asyncio.get_running_loop()

    def submit(self, inputs: Mapping[str, np.ndarray], done: Callable[..., None], *, deadline_s: float, rows_at_once: int | None = None) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(inputs["x"].tolist())
        self._open += 1
        self.most = max(self.most, self._open)
        asyncio.get_running_loop().call_later(0.001, self._answer, inputs["x"], done)

    def _answer(self, values: np.ndarray, done: Callable[..., None]) -> None:
        self._open -= 1
        error: ModelyardError | None = None
        if POISON in values:
            self.ends += 1
            error = ModelFailed("it ended")
            error.__cause__ = Ended("crash")
        elif HANGS in values:
            self.ends += 1
            error = DeadlineExceeded("too late")
            error.__cause__ = Ended("hang")
        elif RAISES in values:
            error = ModelFailed("it raised")
            error.__cause__ = Raised({"kind": "ValueError"})
        done(None if error else {"y": values * 2}, error, 0.0001)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise AssertionError("nobody waits on a thread")

    def close(self) -> None:
        pass


class Bench:
    """A batcher over it."""

    def __init__(self) -> None:
        self.runtime = Elsewhere()
        limits = Limits(batch_rows=64, queue_rows=64, inline_s=1.0, concurrency=256)
        threads = Threads(ThreadPoolExecutor(1), 1)
        self.batcher = Batcher(self.runtime, check, limits, threads, on_ran=self.ran, on_failed=self.failed, on_left=lambda _: None)

    def ran(self, run: Ran) -> None:
        at = 0
        for call in run.calls:
            call.answer = run.outputs["y"][at : at + call.request.rows].tolist()  # type: ignore[attr-defined]
            at += call.request.rows

    def failed(self, call: Any, error: ModelyardError) -> None:
        call.answer = error

    async def ask(self, *calls: Asked) -> list[Any]:
        for call in calls:
            self.batcher.add(call)
        for _ in range(1000):
            if all(call.answer is not None for call in calls) and self.batcher.is_idle:
                break
            await asyncio.sleep(0.001)
        return [call.answer for call in calls]


def check(inputs: Mapping[str, np.ndarray], rows: int) -> None:
    if np.isnan(inputs["x"]).any():
        raise SchemaMismatch("no NaN", field="x", rule="nullable")


def in_loop(test: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@in_loop
async def test_what_arrives_in_one_turn_is_asked_together_and_told_apart_again() -> None:
    bench = Bench()
    assert await bench.ask(Asked(1), Asked(2, 3), Asked(4)) == [[2], [4, 6], [8]]
    assert bench.runtime.asked == [[1, 2, 3, 4]] and not bench.batcher.is_busy


@in_loop
async def test_of_a_batch_that_ends_its_process_only_the_poison_fails_and_it_ends_two_at_most() -> None:
    bench = Bench()
    answers = await bench.ask(Asked(1), Asked(POISON), Asked(2))
    assert answers[0] == [2] and answers[2] == [4] and isinstance(answers[1], ModelFailed)
    assert bench.runtime.ends == 2
    answers = await bench.ask(Asked(1), Asked(POISON), Asked(3))
    assert answers[0] == [2] and answers[2] == [6] and isinstance(answers[1], Rejected)
    assert answers[1].verdicts[0].rule == "poison"
    assert bench.runtime.ends == 2


@in_loop
async def test_a_poison_asked_alone_ends_two_and_is_then_refused_without_being_run() -> None:
    bench = Bench()
    kinds = [type((await bench.ask(Asked(POISON)))[0]) for _ in range(4)]
    assert kinds == [ModelFailed, ModelFailed, Rejected, Rejected]
    assert bench.runtime.ends == 2


@in_loop
async def test_who_stood_beside_is_cleared_by_an_answer() -> None:
    bench = Bench()
    for _ in range(3):
        answers = await bench.ask(Asked(7), Asked(POISON + 0.0))
        assert answers[0] == [14]
    suspects = bench.batcher._remote.suspects  # type: ignore[union-attr]
    assert len(suspects._board.ends(suspects._owner)) == 1


@in_loop
async def test_of_a_batch_that_raises_only_the_guilty_fails_and_nobody_is_suspected() -> None:
    bench = Bench()
    answers = await bench.ask(Asked(1), Asked(RAISES), Asked(2))
    assert answers[0] == [2] and answers[2] == [4] and isinstance(answers[1], ModelFailed)
    assert not bench.batcher._remote.suspects  # type: ignore[union-attr]


@in_loop
async def test_a_hang_is_not_tried_again() -> None:
    bench = Bench()
    answers = await bench.ask(Asked(1), Asked(HANGS))
    assert all(isinstance(answer, DeadlineExceeded) for answer in answers) and bench.runtime.ends == 1


@in_loop
async def test_a_misfit_is_refused_alone_and_never_sent() -> None:
    bench = Bench()
    answers = await bench.ask(Asked(1), Asked(float("nan")), Asked(2))
    assert answers[0] == [2] and answers[2] == [4] and isinstance(answers[1], SchemaMismatch)
    assert bench.runtime.asked == [[1, 2]]


@in_loop
async def test_what_cannot_even_be_asked_fails_at_once() -> None:
    bench = Bench()
    bench.runtime.refusal = Unavailable("started again soon")
    answers = await bench.ask(Asked(1), Asked(2))
    assert all(isinstance(answer, Unavailable) for answer in answers)


@pytest.mark.parametrize(("quick", "most"), [(True, 2), (False, 1)])
def test_of_short_runs_the_next_batch_goes_ahead_and_of_long_ones_it_gathers(quick: bool, most: int) -> None:
    @in_loop
    async def run() -> None:
        bench = Bench()
        remote = bench.batcher._remote
        assert remote is not None
        bench.batcher.pace.expect(0.00001 if quick else 0.1)
        remote.is_quick = quick
        calls = [Asked(value) for value in range(6)]
        for call in calls:
            bench.batcher.add(call)
            await asyncio.sleep(0)
        await bench.ask(Asked(9))
        assert bench.runtime.most == most
        assert [call.answer for call in calls] == [[2 * value] for value in range(6)]

    run()


def test_when_every_second_input_fails_no_more_than_a_fifth_is_asked_twice() -> None:
    async def run() -> None:
        bench = Bench()
        asked = 0
        for _ in range(400):
            calls = [Asked(RAISES if index % 2 else float(index)) for index in range(8)]
            for call in calls:
                bench.batcher.add(call)
            asked += len(calls)
            while any(call.answer is None for call in calls):
                await asyncio.sleep(0.001)
            assert [call.answer for call in calls[::2]] == [[0.0], [4.0], [8.0], [12.0]]
        rows = sum(map(len, bench.runtime.asked))
        assert rows <= asked * 1.2 + ALONE + 8
        assert max(map(len, bench.runtime.asked[:3])) == 8  # at first they went together

    asyncio.run(run())


def test_when_the_failures_end_batches_are_made_again() -> None:
    async def run() -> None:
        bench = Bench()
        remote = bench.batcher._remote
        assert remote is not None
        remote._budget.spend(int(ALONE))
        for size in (1, 8):
            for _ in range(2):
                calls = [Asked(float(index)) for index in range(8)]
                for call in calls:
                    bench.batcher.add(call)
                while any(call.answer is None for call in calls):
                    await asyncio.sleep(0.001)
            assert len(bench.runtime.asked[-1]) == size
            for _ in range(100):
                remote._budget.asked()

    asyncio.run(run())
