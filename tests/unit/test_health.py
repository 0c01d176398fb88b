from __future__ import annotations

from typing import Any

import pytest

from modelyard.health import REASONS, Trouble, alone, judge, unstarted
from modelyard.types import Digest, ModelState, ServeState, Verdict, WorkerState

A = Digest("sha256:" + "a" * 64)
UNSTEADY = ModelState(state="ready", verdict=Verdict(outcome="warn", rule="isolated-memory", evidence="it grew"))
FAILED = ModelState(state="failed", verdict=Verdict(outcome="fail", rule="golden_replay", evidence="row 3 differs"))


def serve(*slots: int, size: int = 2, is_up: bool = True) -> ServeState:
    return ServeState(pid=1, host="h", port=1, slots=slots, started_at="", size=size, is_up=is_up)


def worker(slot: int, *, is_ready: bool = True, **more: Any) -> WorkerState:
    return WorkerState(slot=slot, pid=1, sequence=1, is_ready=is_ready, **more)


def reasons(*troubles: Trouble) -> list[tuple[str, int | None]]:
    return [(trouble.reason, trouble.slot) for trouble in troubles]


def test_whole() -> None:
    found = judge(serve(0, 1), [worker(0), worker(1)])
    assert (found.is_ready, found.troubles) == (True, ())
    assert found.counts == dict.fromkeys(REASONS, 0)


def test_at_the_start_one_ready_worker_is_not_enough() -> None:
    found = judge(serve(0, 1, is_up=False), [worker(0)])
    assert not found.is_ready
    assert reasons(*found.troubles) == [("starting", 1)]


@pytest.mark.parametrize(
    ("state", "workers", "expected"),
    [
        (serve(0), [worker(0)], [("no_worker", 1)]),
        (serve(0, 1), [worker(0)], [("starting", 1)]),
        (serve(0, 1), [worker(0), worker(1, is_ready=False)], [("starting", 1)]),
        (serve(0, 1), [worker(0), worker(1, missing=("m",))], [("not_answered", 1)]),
        (serve(0, 1), [worker(0, models={A: FAILED}), worker(1)], [("failed", 0)]),
        (serve(0, 1), [worker(0, models={A: UNSTEADY}), worker(1)], [("unsteady", 0)]),
    ],
)
def test_later_one_whole_worker_is_enough_and_the_rest_is_said(state: ServeState, workers: list[WorkerState], expected: list[Any]) -> None:
    found = judge(state, workers)
    assert found.is_ready
    assert reasons(*found.troubles) == expected
    assert sum(found.counts.values()) == 1
    assert set(found.counts) == set(REASONS)


def test_why_there_is_no_worker_is_said_where_the_system_refuses_one() -> None:
    state = ServeState(pid=1, host="h", port=1, slots=(0,), started_at="", size=2, is_up=True, trouble="no room")
    found = judge(state, [worker(0)])
    assert found.is_ready, "the others serve"
    assert found.troubles[0].evidence == "slot 1 has no worker; another cannot be started (no room), which is tried again"
    gone = unstarted("no room")
    assert not gone.is_ready and reasons(*gone.troubles) == [("no_worker", None)]


def test_no_worker_that_answers_every_model_is_not_ready_and_says_which_digest_and_verdict() -> None:
    broken = worker(0, missing=("m",), models={A: FAILED})
    found = judge(serve(0), [broken])
    assert not found.is_ready
    assert reasons(*found.troubles) == [("not_answered", 0), ("failed", 0), ("no_worker", 1)]
    assert "golden_replay: row 3 differs" in found.troubles[1].evidence
    assert found.troubles[1].model == A
    assert not judge(serve(), []).is_ready


def test_a_worker_without_a_supervisor_stands_for_all() -> None:
    assert alone(worker(0)).is_ready
    assert not alone(worker(0, is_ready=False)).is_ready
    assert reasons(*alone(worker(0, missing=("m",))).troubles) == [("not_answered", 0)]
