"""The local target: one plan file, and which reports of the data plane it believes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from modelyard.targets.local import Local
from modelyard.types import (
    Digest,
    ModelState,
    Placement,
    ServeState,
    TrafficPlan,
    Verdict,
    WorkerState,
    read_plan,
    write_serve_state,
    write_worker_state,
)

ONE, TWO = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


def plan(name: str = "churn", digest: Digest = ONE, generation: int = 1) -> TrafficPlan:
    return TrafficPlan(name=name, generation=generation, weights={digest: 100}, versions={digest: 1})


def places(*digests: Digest) -> dict[Digest, Placement]:
    return {digest: Placement(blobs="blobs", index=digest) for digest in digests}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def local(tmp_path: Path, run: Path) -> Local:
    return Local(plan=tmp_path / "plan.json", run=run)


def report(run: Path, *workers: WorkerState, slots: tuple[int, ...] | None = None, pid: int | None = None) -> None:
    shown = tuple(worker.slot for worker in workers) if slots is None else slots
    write_serve_state(run, ServeState(pid=pid or os.getpid(), host="127.0.0.1", port=1, slots=shown, started_at=""))
    for worker in workers:
        write_worker_state(run, worker)


def worker(slot: int, sequence: int = 1, *, pid: int | None = None, **models: ModelState) -> WorkerState:
    named = {ONE if name == "one" else TWO: state for name, state in models.items()}
    return WorkerState(slot=slot, pid=pid or os.getpid(), sequence=sequence, models=named)


READY = ModelState(state="ready")


@pytest.fixture(scope="module")
def dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_converging_on_the_same_twice_writes_once(local: Local, tmp_path: Path) -> None:
    first = local.converge([plan()], places(ONE))
    inode = (tmp_path / "plan.json").stat().st_ino
    assert local.converge([plan()], places(ONE)) == first
    assert (tmp_path / "plan.json").stat().st_ino == inode


def test_each_change_has_a_higher_sequence_and_leaves_other_names_alone(local: Local, tmp_path: Path) -> None:
    tickets = [
        local.converge([plan("a")], places(ONE)),
        local.converge([plan("b", TWO)], places(TWO), keep=("a",)),
        local.converge([plan("a", TWO)], places(TWO), keep=("b",)),
        local.remove("a"),
    ]
    assert tickets == sorted(set(tickets))
    written = read_plan(tmp_path / "plan.json")
    assert [each.name for each in written.plans] == ["b"] and set(written.placements) == {TWO}


def test_removing_what_is_not_there_writes_nothing(local: Local) -> None:
    ticket = local.converge([plan()], places(ONE))
    assert local.remove("other") == ticket


def test_a_lost_plan_is_begun_above_what_workers_have_seen(local: Local, run: Path, tmp_path: Path) -> None:
    report(run, worker(0, 41), worker(1, 40))
    assert local.converge([plan()], places(ONE)) == 42
    (tmp_path / "plan.json").write_text("{")
    assert local.converge([plan()], places(ONE)) == 42


def test_ready_means_every_living_slot(local: Local, run: Path) -> None:
    report(run, worker(0, one=READY), worker(1, one=ModelState(state="loading")))
    assert local.readiness(ONE).outcome == "unknown"
    report(run, worker(0, one=READY), worker(1, one=READY))
    assert local.readiness(ONE).outcome == "pass"
    assert local.readiness(TWO).outcome == "unknown"


def test_a_slot_that_has_not_reported_holds_it_up(local: Local, run: Path) -> None:
    report(run, worker(0, one=READY), slots=(0, 1))
    assert local.readiness(ONE).outcome == "unknown" and not local.has_applied(1)


def test_one_failure_fails_with_the_workers_verdict(local: Local, run: Path) -> None:
    why = Verdict(outcome="fail", rule="golden-replay", evidence="row 3 differs")
    report(run, worker(0, one=READY), worker(1, one=ModelState(state="failed", verdict=why)))
    assert local.readiness(ONE) == why


def test_what_was_said_before_a_plan_was_seen_says_nothing_under_it(local: Local, run: Path) -> None:
    failed = ModelState(state="failed", verdict=Verdict(outcome="fail", rule="load", evidence="broken"))
    report(run, worker(0, 4, one=failed))
    assert local.readiness(ONE, since=4).outcome == "fail"
    assert local.readiness(ONE, since=5).outcome == "unknown"
    report(run, msgspec.structs.replace(worker(0, 4, one=failed), adopted=5))
    assert local.readiness(ONE, since=5).outcome == "fail", "it works towards it, and failed again"
    report(run, worker(0, 4, one=READY), worker(1, 5, one=READY))
    assert local.readiness(ONE, since=5).outcome == "unknown"


def test_what_is_ready_and_keeps_ending_fails_and_what_only_grows_does_not(local: Local, run: Path) -> None:
    why = Verdict(outcome="fail", rule="isolated-crashes", evidence="5 processes of the model ended within 60 s")
    report(run, worker(0, one=READY), worker(1, one=ModelState(state="ready", verdict=why)))
    assert local.readiness(ONE) == why
    report(run, worker(0, one=READY), worker(1, one=ModelState(state="ready", verdict=Verdict(outcome="warn", rule="memory", evidence=""))))
    assert local.readiness(ONE).outcome == "pass"


def test_a_plan_is_acknowledged_by_all_or_not(local: Local, run: Path) -> None:
    report(run, worker(0, 7), worker(1, 6))
    assert not local.has_applied(7) and local.has_applied(6)
    report(run, worker(1, 8))
    assert local.has_applied(7)


def test_nothing_running_acknowledges_nothing(local: Local, run: Path, dead_pid: int) -> None:
    assert not local.has_applied(0) and local.readiness(ONE).outcome == "unknown" and local.state().serve is None
    report(run, worker(0, 9, one=READY), pid=dead_pid)
    assert not local.has_applied(1) and local.readiness(ONE).outcome == "unknown" and local.state().serve is None


def test_a_report_of_a_dead_worker_is_not_believed(local: Local, run: Path, dead_pid: int) -> None:
    report(run, worker(0, 9, pid=dead_pid, one=READY))
    assert not local.has_applied(1) and local.readiness(ONE).outcome == "unknown"
    report(run, worker(0, 9, one=READY))
    assert local.has_applied(1) and local.readiness(ONE).outcome == "pass"
