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
from modelyard.serve.admission import FLOOR, HIGH, LOW, NORMAL
from modelyard.serve.batching import Batcher, Limits, Ran, Threads
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
    def __init__(self, *values: float, deadline_s: float = 60, width: int = 1, priority: int = NORMAL) -> None:
        self.request = InferenceRequest({"x": np.repeat(np.array(values)[:, None], width, 1)}, len(values))
        self.received_s = time.monotonic()
        self.deadline_s = self.received_s + deadline_s
        self.priority = priority
        self.is_open = True
        self.answer: Any = None


class Bench:
    def __init__(self, **limits: Any) -> None:
        self.model = Doubling()
        given = {"batch_rows": 8, "queue_rows": 32, "inline_s": 1.0, "concurrency": 256} | limits
        self.threads = Threads(ThreadPoolExecutor(2), 2)
        self.left: list[Any] = []
        self.batcher = Batcher(self.model, check, Limits(**given), self.threads, on_ran=self.ran, on_failed=self.failed, on_left=self.left.append)
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
    assert bench.batcher.ran_s == sum(run.seconds for run in bench.runs) > 0
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
    assert bench.left == [gone]
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
    bench.batcher.pace.expect(1.0)
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
    bench.batcher.pace.expect(5.0)
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
    bench.batcher.pace.expect(1.0)
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


def busy(**limits: Any) -> Bench:
    """A bench whose runs go to a thread and stay there until its gate opens."""
    bench = Bench(inline_s=0.0, **limits)
    bench.batcher.pace.expect(0.01)
    bench.model.gate = threading.Event()
    return bench


async def to_the_end(bench: Bench) -> None:
    assert bench.model.gate is not None
    bench.model.gate.set()
    while not bench.batcher.is_idle:
        await asyncio.sleep(0.001)


@in_loop
async def test_what_waits_runs_by_class_and_then_in_order() -> None:
    bench = busy(batch_rows=2)
    bench.batcher.add(Asked(0))
    await asyncio.sleep(0)
    for value, priority in ((1, LOW), (2, NORMAL), (3, HIGH), (4, NORMAL), (5, HIGH), (6, LOW)):
        bench.batcher.add(Asked(value, priority=priority))
    await to_the_end(bench)
    assert [run.inputs["x"][:, 0].tolist() for run in bench.runs] == [[0], [3, 5], [2, 4], [1, 6]]


@in_loop
async def test_a_higher_class_takes_the_place_of_a_waiting_lower_one_and_is_never_refused_for_it() -> None:
    bench = busy(concurrency=FLOOR)
    first = Asked(0, priority=LOW)
    bench.batcher.add(first)
    await asyncio.sleep(0)
    low = [Asked(n, priority=LOW) for n in range(FLOOR - 1)]
    for call in low:
        bench.batcher.add(call)
    with pytest.raises(Overloaded):
        bench.batcher.add(Asked(9, priority=LOW))
    high = [Asked(n, priority=HIGH) for n in range(FLOOR)]
    for call in high:
        bench.batcher.add(call)
    assert all(isinstance(call.answer, Overloaded) for call in low)
    assert first.answer is None  # it runs already
    with pytest.raises(Overloaded):
        bench.batcher.admit(HIGH, time.monotonic() + 60)
    await to_the_end(bench)
    assert [call.answer for call in high] == [[2 * n] for n in range(FLOOR)]


@in_loop
async def test_rows_that_wait_in_a_lower_class_make_room_for_a_higher_one() -> None:
    bench = Bench(queue_rows=4)
    low = [Asked(n, n, priority=LOW) for n in range(2)]
    for call in low:
        bench.batcher.add(call)
    bench.batcher.add(Asked(7))
    assert (low[0].answer, type(low[1].answer)) == (None, Overloaded)
    with pytest.raises(Overloaded):
        bench.batcher.add(Asked(1, 2, priority=LOW))
    assert bench.batcher.queued_rows == 3


@in_loop
async def test_a_flood_is_held_to_the_limit_and_places_of_those_who_left_are_free() -> None:
    bench = busy(concurrency=8, batch_rows=1)
    calls = [Asked(n) for n in range(8)]
    bench.batcher.add(calls[0])
    await asyncio.sleep(0)
    for call in calls[1:]:
        bench.batcher.add(call)
    with pytest.raises(Overloaded) as caught:
        bench.batcher.add(Asked(9))
    assert caught.value.retry_after_s >= 0.06
    for call in calls[1:7]:
        call.is_open = False
    last = Asked(9)
    bench.batcher.add(last)
    assert bench.left == calls[1:7]
    assert bench.batcher.queued_rows == 2
    await to_the_end(bench)
    assert (calls[7].answer, last.answer) == ([14], [18])
    assert bench.model.batches == [1, 1, 1]


@in_loop
async def test_a_crowd_at_a_fast_model_is_not_turned_away() -> None:
    bench = Bench(inline_s=0.001, concurrency=FLOOR, queue_rows=1000, batch_rows=1000)
    bench.batcher.pace.expect(0.0001)
    bench.model.gate = threading.Event()
    calls = [Asked(n) for n in range(200)]
    for call in calls[:100]:
        bench.batcher.add(call)
    await asyncio.sleep(0)
    assert bench.batcher.is_busy  # so many rows go to a thread, though one would not
    for call in calls[100:]:
        bench.batcher.add(call)
    await to_the_end(bench)
    assert [call.answer for call in calls] == [[2 * n] for n in range(200)]


@in_loop
async def test_when_the_limit_falls_those_that_waited_longest_are_shed() -> None:
    bench = busy(concurrency=16, batch_rows=1)
    calls = [Asked(n) for n in range(16)]
    bench.batcher.add(calls[0])
    await asyncio.sleep(0)
    for call in calls[1:]:
        bench.batcher.add(call)
    with pytest.raises(Overloaded):
        bench.batcher.admit(NORMAL, time.monotonic() + 60)
    bench.batcher._limit._shortest_s = 1e-6  # so that the next run finds a queue
    await to_the_end(bench)
    shed = [isinstance(call.answer, Overloaded) for call in calls]
    assert not shed[0]  # it ran
    assert shed[1:] == sorted(shed[1:], reverse=True)
    assert 0 < sum(shed) < 16


@in_loop
async def test_where_each_batch_takes_all_that_waits_a_slow_loop_does_not_lower_the_limit() -> None:
    bench = busy(concurrency=32, batch_rows=64)
    for slowly in (False, True):
        bench.batcher._took_all = not slowly  # the control: as if a queue had been left behind
        for _ in range(20):
            bench.batcher._limit.press()
            call = Asked(1)
            call.received_s -= 10.0
            bench.batcher._ran([call], 0.005, time.monotonic())
        assert (bench.batcher.concurrency_limit < 32) is slowly


@in_loop
async def test_nothing_starts_after_its_deadline_though_its_thread_comes_late() -> None:
    bench = busy()
    blocked = [threading.Event() for _ in range(2)]
    for event in blocked:
        bench.threads.executor.submit(event.wait, 10)  # the threads are late, though a slot was free
    late, there = Asked(1, deadline_s=0.03), Asked(2)
    bench.batcher.add(late)
    bench.batcher.add(there)
    await asyncio.sleep(0.05)
    for event in blocked:
        event.set()
    await to_the_end(bench)
    assert bench.model.batches == [1]
    assert isinstance(late.answer, DeadlineExceeded)
    assert there.answer == [4]


@in_loop
async def test_without_a_thread_a_batch_gathers_until_one_is_free_and_then_goes_by_class() -> None:
    bench = busy(batch_rows=2)
    assert bench.threads.shares.take("a")
    assert bench.threads.shares.take("b")
    calls = [Asked(1), Asked(2, deadline_s=0.3)]
    for call in calls:
        bench.batcher.add(call)
    await asyncio.sleep(0.4)
    assert isinstance(calls[1].answer, DeadlineExceeded)  # answered when its time passed, and not run
    urgent = Asked(3, priority=HIGH)
    bench.batcher.add(urgent)
    assert bench.model.batches == []
    bench.threads.shares.done("a", 1.0)
    await to_the_end(bench)
    assert bench.runs[0].inputs["x"][:, 0].tolist() == [3, 1]
    assert not bench.batcher.is_busy
    assert bench.left == [calls[1]]


@in_loop
async def test_a_batch_whose_callers_all_left_gives_its_thread_on() -> None:
    bench = busy()
    for owner in ("a", "b"):
        assert bench.threads.shares.take(owner)
    gone = Asked(1)
    bench.batcher.add(gone)
    await asyncio.sleep(0)
    assert bench.batcher.is_busy
    gone.is_open = False
    bench.threads.shares.done("a", 1.0)
    assert not bench.batcher.is_busy
    assert bench.threads.shares.take("c")
    there = Asked(2)
    bench.threads.shares.done("b", 1.0)
    bench.batcher.add(there)
    await asyncio.sleep(0)
    await to_the_end(bench)
    assert there.answer == [4]
