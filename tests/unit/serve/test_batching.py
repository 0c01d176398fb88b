from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from modelyard.errors import DeadlineExceeded, ModelFailed, ModelyardError, Overloaded, PayloadTooLarge, SchemaMismatch
from modelyard.serve.batching import Batcher, Limits, Ran
from modelyard.types import InferenceRequest

POISON, MISFIT = -1.0, -2.0


class Doubling:
    """A model that answers twice its input, remembers its batches, fails on POISON, and waits where it is told to."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: list[int] = []
        self.gate: threading.Event | None = None

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.batches.append(len(inputs["x"]))
        self.threads.append(threading.get_ident())
        if self.gate is not None:
            self.gate.wait(10)
        if (inputs["x"] == POISON).any():
            raise ModelFailed("the model failed on an input that its schema accepts")
        return {"y": inputs["x"][:, 0] * 2}

    def close(self) -> None: ...


def check(inputs: Mapping[str, Any], rows: int) -> None:
    assert len(inputs["x"]) == rows
    if (inputs["x"] == MISFIT).any():
        raise SchemaMismatch("input 'x' does not fit", field="x", rule="odd")


class Asked:
    def __init__(self, *values: float, deadline_s: float = 60, width: int = 1) -> None:
        self.request = InferenceRequest({"x": np.repeat(np.array(values)[:, None], width, 1)}, len(values))
        self.received_s = time.monotonic()
        self.deadline_s = self.received_s + deadline_s
        self.is_open = True
        self.answer: Any = None


class Bench:
    def __init__(self, **limits: Any) -> None:
        self.model = Doubling()
        given = {"batch_rows": 8, "queue_rows": 32, "inline_s": 1.0} | limits
        self.pool = ThreadPoolExecutor(2)
        self.batcher = Batcher(self.model, check, Limits(**given), self.pool, on_ran=self.ran, on_failed=self.failed)
        self.runs: list[Ran] = []

    def ran(self, run: Ran) -> None:
        self.runs.append(run)
        at = 0
        for call in run.calls:
            call.answer = run.outputs["y"][at : at + call.request.rows].tolist()  # type: ignore[attr-defined]
            at += call.request.rows

    def failed(self, call: Any, error: ModelyardError) -> None:
        call.answer = error
        call.is_open = False


def in_loop(test: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@in_loop
async def test_what_arrives_in_one_turn_runs_together_and_is_told_apart_again() -> None:
    bench = Bench()
    calls = [Asked(1), Asked(2, 3), Asked(4)]
    for call in calls:
        bench.batcher.add(call)
    await asyncio.sleep(0)
    assert [call.answer for call in calls] == [[2], [4, 6], [8]]
    assert bench.model.batches == [4]
    assert bench.batcher.is_idle
    assert bench.batcher.queued_rows == 0


@in_loop
async def test_a_batch_is_bounded_and_the_rest_goes_next() -> None:
    bench = Bench(batch_rows=3)
    calls = [Asked(n) for n in range(7)]
    for call in calls:
        bench.batcher.add(call)
    for _ in range(5):
        await asyncio.sleep(0)
    assert bench.model.batches == [3, 3, 1]
    assert [call.answer for call in calls] == [[2 * n] for n in range(7)]


@in_loop
async def test_a_request_larger_than_a_batch_runs_in_parts() -> None:
    bench = Bench(batch_rows=3)
    call = Asked(*range(7))
    bench.batcher.add(call)
    await asyncio.sleep(0)
    assert bench.model.batches == [3, 3, 1]
    assert call.answer == [2 * n for n in range(7)]


@in_loop
async def test_a_misfit_and_a_poison_fail_alone() -> None:
    bench = Bench()
    calls = [Asked(1), Asked(MISFIT), Asked(2), Asked(POISON), Asked(3)]
    for call in calls:
        bench.batcher.add(call)
    await asyncio.sleep(0)
    assert [call.answer for call in calls if not isinstance(call.answer, ModelyardError)] == [[2], [4], [6]]
    assert isinstance(calls[1].answer, SchemaMismatch)
    assert isinstance(calls[3].answer, ModelFailed)


@in_loop
async def test_rows_of_other_lengths_run_apart() -> None:
    bench = Bench()
    calls = [Asked(1, width=2), Asked(2, width=3)]
    for call in calls:
        bench.batcher.add(call)
    await asyncio.sleep(0)
    assert [call.answer for call in calls] == [[2], [4]]


@in_loop
async def test_who_left_or_came_too_late_is_not_computed() -> None:
    bench = Bench()
    gone, late, there = Asked(1), Asked(2, deadline_s=-1), Asked(3)
    for call in (gone, late, there):
        bench.batcher.add(call)
    gone.is_open = False
    await asyncio.sleep(0)
    assert bench.model.batches == [1]
    assert gone.answer is None
    assert isinstance(late.answer, DeadlineExceeded)
    assert there.answer == [6]


@in_loop
async def test_the_queue_is_bounded() -> None:
    bench = Bench(queue_rows=4)
    for n in range(4):
        bench.batcher.add(Asked(n))
    with pytest.raises(Overloaded):
        bench.batcher.add(Asked(9))
    with pytest.raises(PayloadTooLarge):
        bench.batcher.add(Asked(1, 2, 3, 4, 5))


@in_loop
async def test_a_costly_run_leaves_the_loop_and_the_next_batch_gathers_meanwhile() -> None:
    bench = Bench(inline_s=0.001)
    bench.batcher.expect(1.0)
    bench.model.gate = threading.Event()
    first, others = Asked(1), [Asked(2), Asked(3)]
    bench.batcher.add(first)
    await asyncio.sleep(0.01)
    assert first.answer is None  # and the loop runs on
    for call in others:
        bench.batcher.add(call)
    bench.model.gate.set()
    while others[-1].answer is None:
        await asyncio.sleep(0.001)
    assert bench.model.batches == [1, 2]
    assert threading.get_ident() not in bench.model.threads
    assert [first.answer, others[0].answer, others[1].answer] == [[2], [4], [6]]


@in_loop
async def test_while_a_run_goes_on_deadlines_are_kept_and_hopeless_calls_refused() -> None:
    bench = Bench(inline_s=0.001)
    bench.batcher.expect(5.0)
    bench.model.gate = threading.Event()
    first = Asked(1, deadline_s=0.05)
    bench.batcher.add(first)
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded) as caught:
        bench.batcher.add(Asked(2, deadline_s=1.0))
    assert caught.value.retry_after_s > 1
    while first.answer is None:
        await asyncio.sleep(0.005)
    assert isinstance(first.answer, DeadlineExceeded)
    bench.model.gate.set()
    while not bench.batcher.is_idle:
        await asyncio.sleep(0.001)


@in_loop
async def test_a_thread_that_fails_in_its_own_way_fails_its_calls() -> None:
    bench = Bench(inline_s=0.0)
    bench.batcher.expect(1.0)
    bench.model.predict = lambda inputs: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    call = Asked(1)
    bench.batcher.add(call)
    while call.answer is None:
        await asyncio.sleep(0.001)
    assert isinstance(call.answer, ModelFailed)


@in_loop
async def test_what_no_rule_foresees_leaves_nobody_waiting_and_the_next_batch_runs() -> None:
    bench = Bench(batch_rows=1)
    bench.batcher._check = lambda inputs, rows: 1 / 0 if inputs["x"][0, 0] == MISFIT else None  # type: ignore[assignment, return-value]
    calls = [Asked(MISFIT), Asked(2)]
    for call in calls:
        bench.batcher.add(call)
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(calls[0].answer, ModelFailed)
    assert calls[1].answer == [4]


@in_loop
async def test_an_answer_with_too_few_rows_is_no_answer() -> None:
    bench = Bench()
    bench.model.predict = lambda inputs: {"y": np.zeros(1)}  # type: ignore[method-assign, assignment]
    call = Asked(1, 2)
    bench.batcher.add(call)
    await asyncio.sleep(0)
    assert isinstance(call.answer, ModelFailed)


@in_loop
async def test_the_estimate_follows_what_runs_take() -> None:
    bench = Bench()
    bench.batcher.expect(10.0)
    for _ in range(200):
        bench.batcher._learn(Ran([], 1, {}, {}, 0.001))
        bench.batcher._learn(Ran([], 10, {}, {}, 0.011))
    assert abs(bench.batcher.seconds_per_run - 0.001) < 1e-4
    assert abs(bench.batcher.seconds_per_row - 0.001) < 1e-4
