from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from modelyard.serve import watch
from modelyard.serve.watch import Watch
from modelyard.types import ServeState, WorkerState, write_serve_state, write_worker_state


def serve(run: Path, *, is_up: bool = True, pid: int | None = None) -> None:
    write_serve_state(run, ServeState(pid=pid or os.getpid(), host="h", port=1, slots=(0, 1), started_at="", size=2, is_up=is_up))


def worker(slot: int, **more: Any) -> WorkerState:
    return WorkerState(**{"slot": slot, "pid": os.getpid(), "sequence": 1, "is_ready": True} | more)


def test_without_a_supervisor_it_is_its_own_judge(tmp_path: Path) -> None:
    seen = Watch(tmp_path, worker(0, is_ready=False))
    assert not seen.health.is_ready
    seen.tell(worker(0))
    assert seen.health.is_ready
    serve(tmp_path, pid=2**22 + 1)  # of one that is gone
    assert seen.health.is_ready


def test_at_the_start_it_is_ready_the_moment_its_supervisor_says_so(tmp_path: Path) -> None:
    serve(tmp_path, is_up=False)
    seen = Watch(tmp_path, worker(0))
    assert not seen.health.is_ready
    write_worker_state(tmp_path, worker(1))
    serve(tmp_path)
    assert seen.health.is_ready


def test_the_others_are_seen_at_the_next_look_and_the_dead_not_at_all(tmp_path: Path) -> None:
    serve(tmp_path)
    write_worker_state(tmp_path, worker(1))
    seen = Watch(tmp_path, worker(0, missing=("m",)))
    assert seen.health.is_ready  # the other answers it
    write_worker_state(tmp_path, worker(1, missing=("m",)))
    assert seen.health.is_ready  # not asked per request
    seen.refresh()
    assert not seen.health.is_ready
    write_worker_state(tmp_path, worker(1, pid=2**22 + 1))
    seen.refresh()
    assert [trouble.reason for trouble in seen.health.troubles] == ["not_answered", "starting"]
    (tmp_path / "worker-1.json").write_text("{")
    seen.refresh()
    assert [trouble.reason for trouble in seen.health.troubles] == ["not_answered", "starting"]


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: Any) -> None:
    serve(tmp_path)
    write_worker_state(tmp_path, worker(1))
    seen = Watch(tmp_path, worker(0))
    seen.refresh()
    reads: list[Any] = []
    monkeypatch.setattr(watch, "read_worker_state", lambda *given: reads.append(given))
    monkeypatch.setattr(watch, "read_serve_state", lambda *given: reads.append(given))
    seen.refresh()
    assert reads == []
    assert seen.health.is_ready
