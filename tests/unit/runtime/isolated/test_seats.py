"""runtime.isolated.seats: an event loop and its processes; who pays for an end, a hang, garbage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from modelyard.errors import DeadlineExceeded, ModelFailed, Unavailable
from modelyard.runtime.isolated import Isolated, Isolation
from modelyard.runtime.isolated.pool import Code
from modelyard.runtime.isolated.process import Ended
from modelyard.types import Schema, TensorSpec

MODELS = Path(__file__).parents[3] / "support" / "isolated_models"
SCHEMA = Schema(
    inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="prediction", datatype="FP32", shape=(-1,)),),
    layout="array",
    task="regression",
)
POISON = np.array([[666, 0, 0, 0]], np.float32)
FORGED = """
import os, struct
{top}
class M:
    def predict(self, inputs):
        if inputs["X"][0, 0] == 666:
            for name in range(3, 1024):  # the socket keeps its number from here, where other tests may hold many
                try:
                    os.write(name, {data})
                except OSError:
                    pass
            {after}
        return inputs["X"].sum(axis=1)
"""


def row(value: float) -> np.ndarray:
    return np.full((1, 4), value, np.float32)


class Bench:
    """A runtime in this loop."""

    def __init__(self, model: str, *, source: str | None = None, **isolation: Any) -> None:
        data = (MODELS / "faulty.py").read_bytes() if source is None else source.encode()
        self.runtime = Isolated(Code(kind="python", entry=f"faulty:{model}"), {"code/faulty.py": data}, SCHEMA, Isolation(**isolation))

    def ask(self, rows: np.ndarray, *, timeout_s: float = 30.0) -> asyncio.Future[Any]:
        self.runtime.attach()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(outputs: Any, error: Any, seconds: float) -> None:
            assert seconds >= 0
            future.set_result(error if outputs is None else outputs["prediction"].tolist())

        self.runtime.submit({"X": rows}, done, deadline_s=monotonic() + timeout_s)
        return future


def in_loop(model: str, **given: Any) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    def decorate(test: Callable[..., Any]) -> Callable[[], None]:
        def run() -> None:
            bench = Bench(model, **given)
            try:
                asyncio.run(test(bench))
            finally:
                bench.runtime.close()

        run.__name__ = test.__name__
        return run

    return decorate


@in_loop("Plain")
async def test_many_questions_at_once_get_their_own_answers(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.ask(row(value)) for value in range(200)))
    assert answers == [[4.0 * value] for value in range(200)]


@in_loop("Plain", processes=2)
async def test_two_processes_share_and_a_large_question_goes_through(bench: Bench) -> None:
    large = np.ones((200_000, 4), np.float32)
    answers = await asyncio.gather(*(bench.ask(each) for each in (large, row(1), large, row(2))))
    assert [len(answer) for answer in answers] == [200_000, 1, 200_000, 1]
    assert len({seat.process.pid for seat in bench.runtime._seats.seats}) == 2  # type: ignore[union-attr]


@in_loop("Crasher")
async def test_an_end_costs_its_question_and_those_behind_it_are_answered_by_the_next(bench: Bench) -> None:
    questions = [bench.ask(row(1)), bench.ask(POISON), *(bench.ask(row(value)) for value in range(2, 12))]
    answers = await asyncio.gather(*questions)
    assert isinstance(answers[1], ModelFailed) and isinstance(answers[1].__cause__, Ended)
    assert answers[1].__cause__.reason == "crash" and answers[1].__cause__.detail == "SIGSEGV"
    assert answers[:1] + answers[2:] == [[4.0 * value] for value in range(1, 12)]
    assert [ended.reason for ended in bench.runtime.watch()] == ["crash"]


@pytest.mark.parametrize("model", ["Hanger", "Spinner"])
def test_a_hang_ends_at_the_deadline_and_others_go_on(model: str) -> None:
    @in_loop(model)
    async def run(bench: Bench) -> None:
        hung, behind = bench.ask(POISON, timeout_s=0.5), bench.ask(row(1))
        assert isinstance(await hung, DeadlineExceeded)
        assert await behind == [4.0]
        assert [ended.reason for ended in bench.runtime.watch()] == ["hang"]

    run()


@in_loop("Plain")
async def test_a_question_that_a_process_never_got_is_not_blamed_for_its_end(bench: Bench) -> None:
    assert await bench.ask(row(1)) == [4.0]
    (seat,) = bench.runtime._seats.seats  # type: ignore[union-attr]
    assert seat.process is not None
    seat.process.kill()
    while not seat.process.reap():  # the loop has not heard of it when the next questions come
        pass
    assert await asyncio.gather(*(bench.ask(row(value)) for value in range(50))) == [[4.0 * value] for value in range(50)]
    assert [ended.reason for ended in bench.runtime.watch()] == ["killed"]


@in_loop("Slow")
async def test_a_caller_in_a_hurry_does_not_cost_others_the_process(bench: Bench) -> None:
    first = bench.ask(row(1.2), timeout_s=0.05)
    behind = bench.ask(row(1))
    assert await first == [4 * np.float32(1.2)] and await behind == [4.0]  # late, which is for who asked to judge
    assert bench.runtime.watch() == []


@in_loop("Slow")
async def test_a_model_that_takes_its_time_is_given_it(bench: Bench) -> None:
    assert await bench.ask(row(2)) == [8.0]
    assert await bench.ask(row(2.3), timeout_s=0.05) == [4 * np.float32(2.3)]
    assert bench.runtime.watch() == []
    assert isinstance(await bench.ask(row(9), timeout_s=0.05), DeadlineExceeded)


@in_loop("Eater", memory_bytes=512 << 20)
async def test_memory_that_runs_out_ends_the_process_with_that_reason(bench: Bench) -> None:
    failure = await bench.ask(POISON)
    assert isinstance(failure, ModelFailed) and failure.__cause__.reason == "oom"  # type: ignore[union-attr]
    assert await bench.ask(row(1)) == [4.0]


@in_loop("Raiser")
async def test_what_the_code_raises_leaves_the_process(bench: Bench) -> None:
    before = await bench.ask(row(1))
    failure = await bench.ask(POISON)
    assert before == [4.0] and isinstance(failure, ModelFailed) and "canary" not in failure.message
    assert bench.runtime.watch() == []


@pytest.mark.parametrize(
    ("data", "after"),
    [
        ("b'garbage' * 100", ""), ("struct.pack('<BxxxIIIQ', 4, 1, 0, 0, 1 << 62)", ""), ("struct.pack('<BxxxIIIQ', 4, 99, 0, 0, 0)", ""),
        ("struct.pack('<BxxxIIIQ', 4, 2, 0, 2, 0) + b'[]'", ""), ("b''", "os.closerange(3, 1024)"),
    ],
)  # fmt: skip
def test_garbage_on_the_socket_ends_the_process_and_nothing_else(data: str, after: str) -> None:
    @in_loop("M", source=FORGED.format(top="", data=data, after=after or "pass"))
    async def run(bench: Bench) -> None:
        assert await bench.ask(row(1)) == [4.0]
        assert isinstance(await bench.ask(POISON), ModelFailed)
        # Code that forges an answer with the right number is found out by its next frame, which may cost the next question of the same model.
        answers = [await bench.ask(row(2)) for _ in range(2)]
        assert answers[1] == [8.0] and (answers[0] == [8.0] or isinstance(answers[0], ModelFailed))
        assert len(bench.runtime.watch()) == 1

    run()


@in_loop("Exiter")
async def test_ends_that_follow_each_other_pause_and_then_refuse(bench: Bench) -> None:
    kinds = set()
    for _ in range(10):
        try:
            kinds.add(type(await bench.ask(POISON, timeout_s=10)))
        except Unavailable:
            kinds.add(Unavailable)
            break
    assert kinds == {ModelFailed, Unavailable}
    assert bench.runtime.verdict is not None and bench.runtime.verdict.rule == "isolated-crashes"


@in_loop("Crasher")
async def test_what_waits_when_a_long_pause_begins_is_refused_like_what_is_asked_in_it(bench: Bench) -> None:
    """Else each that ends a process and has waited ends the next one, long after the last was asked."""
    for _ in range(5):
        await bench.ask(POISON, timeout_s=30)
    waiting = [bench.ask(POISON, timeout_s=30) for _ in range(8)]
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    ends = sum(not isinstance(each, Unavailable) for each in answers)
    assert {type(each) for each in answers} == {ModelFailed, Unavailable}
    assert ends <= 2  # of the one that was on its way, and of the one behind it


@contextlib.contextmanager
def no_start(how: str, patch: pytest.MonkeyPatch, nowhere: Path) -> Iterator[None]:
    """While it lasts this process can start no other: for want of an interpreter, of descriptors, or of a place for the scratch folder."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with patch.context() as changed:
        if how == "interpreter":
            changed.setattr(sys, "executable", str(nowhere / "python"))
        elif how == "scratch":
            changed.setattr(tempfile, "tempdir", str(nowhere))
        else:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("how", ["interpreter", "descriptors", "scratch"])
def test_where_no_process_can_be_started_what_waits_is_refused_and_the_next_start_answers(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @in_loop("Plain")
    async def run(bench: Bench) -> None:
        assert await bench.ask(row(1)) == [4.0]
        with no_start(how, monkeypatch, tmp_path / "nowhere"):
            (seat,) = bench.runtime._seats.seats  # type: ignore[union-attr]
            assert seat.process is not None
            os.kill(seat.process.pid, signal.SIGSTOP)
            waiting = [bench.ask(row(value), timeout_s=15) for value in range(8)]
            seat.process.kill()
            answers = await asyncio.gather(*waiting)
            # The one that it was at fails with it; nothing waits until its time has passed.
            assert [type(each) for each in answers] == [ModelFailed] + [Unavailable] * 7, answers
            with pytest.raises(Unavailable):
                await bench.ask(row(1), timeout_s=15)
            assert any("could not be started" in ended.detail for ended in bench.runtime.watch())
        until = monotonic() + 30
        while monotonic() < until:
            with contextlib.suppress(Unavailable):
                assert await bench.ask(row(3)) == [12.0]
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it is started no more")

    run()


@in_loop("Slow")
async def test_a_question_whose_time_passes_in_the_queue_is_never_run(bench: Bench) -> None:
    slow = [bench.ask(row(1.4)), bench.ask(row(1.4))]
    late = bench.ask(row(5), timeout_s=0.2)
    assert isinstance(await late, DeadlineExceeded)
    assert all(isinstance(answer, list) for answer in await asyncio.gather(*slow))


@in_loop("Plain")
async def test_a_thread_may_still_ask_while_the_loop_does(bench: Bench) -> None:
    assert await bench.ask(row(1)) == [4.0]
    answer = await asyncio.to_thread(bench.runtime.predict, {"X": row(2)})
    with pytest.raises(ModelFailed, match="itself"):
        bench.runtime.predict({"X": row(2)})
    assert answer["prediction"].tolist() == [8.0]
