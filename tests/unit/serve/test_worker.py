from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from modelyard.config import Settings
from modelyard.errors import NotFound, Rejected, StorageFull, Unavailable
from modelyard.security.audit import AuditLog, FileLines
from modelyard.serve import card
from modelyard.serve import worker as worker_module
from modelyard.serve.exposition import render
from modelyard.serve.loading import Loaded, load
from modelyard.serve.worker import Worker
from modelyard.types import read_worker_state
from serving import Home, home_with


def with_worker(home: Home, test: Callable[[Worker], Awaitable[None]], **more: Any) -> None:
    async def run() -> None:
        home.run.mkdir(exist_ok=True)
        settings = msgspec.structs.replace(Settings(), home=home.folder, workers=1)
        worker = Worker(settings, slot=0, plan=home.folder / "plan.json", run=home.run, spool=None, **more)
        try:
            await test(worker)
        finally:
            worker.server.close()
            worker.plane.close()

    asyncio.run(run())


def test_following_the_plan_step_by_step(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    old, new = home.add("line"), home.add("line", offset=1.0)

    async def test(worker: Worker) -> None:
        await worker._follow()
        assert worker.edge.is_ready
        assert read_worker_state(home.run, 0).sequence == 0
        home.deploy("line", {old: 100})
        await worker._follow()
        assert set(worker.plane.deployments["line"].versions) == {old[1]}
        home.deploy("line", {old: 100}, hold=(new,))
        await worker._follow()
        assert set(worker.plane.deployments["line"].versions) == {old[1], new[1]}
        home.deploy("line", {new: 100})
        await worker._follow()
        assert set(worker.plane.deployments["line"].versions) == {new[1]}
        assert set(read_worker_state(home.run, 0).models) == {old[0], new[0]}
        await worker._follow()
        state = read_worker_state(home.run, 0)
        assert (state.sequence, set(state.models)) == (3, {new[0]})
        assert [each.version for each in card.read(home.run).models] == [new[1]]

    with_worker(home, test)


def test_one_digest_under_two_names_is_loaded_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    model = home.add("line")
    home.deploy("line", {model: 100})
    home.deploy("twin", {model: 100})
    loads: list[Any] = []

    def counted(*arguments: Any) -> Loaded:
        loads.append(arguments[0])
        return load(*arguments)

    async def test(worker: Worker) -> None:
        await worker._follow()
        assert set(worker.plane.deployments) == {"line", "twin"}

    with_worker(home, test, load=counted)
    assert loads == [model[0]]


def test_a_failure_of_any_kind_is_a_verdict_and_is_tried_again_with_the_next_plan(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    model = home.add("line")
    home.deploy("line", {model: 100})
    failures: list[Exception] = [MemoryError("canary4711"), Rejected("no")]

    def unlucky(*arguments: Any) -> Loaded:
        if failures:
            raise failures.pop(0)
        return load(*arguments)

    async def test(worker: Worker) -> None:
        for _ in range(2):
            await worker._follow()
            state = read_worker_state(home.run, 0).models[model[0]]
            assert state.state == "failed"
            assert state.verdict is not None
            assert "canary" not in state.verdict.evidence
            assert worker.plane.deployments == {}
            home.deploy("line", {model: 100})
        await worker._follow()
        assert read_worker_state(home.run, 0).models[model[0]].state == "ready"

    with_worker(home, test, load=unlucky)


def test_a_held_version_that_fails_does_not_hold_up_the_weighted_one(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    good, bad = home.add("line"), home.add("line", offset=1.0, wrong_answers=True)
    home.deploy("line", {good: 100}, hold=(bad,))

    async def test(worker: Worker) -> None:
        await worker._follow()
        assert set(worker.plane.deployments["line"].versions) == {good[1]}
        assert {model.state for model in read_worker_state(home.run, 0).models.values()} == {"ready", "failed"}

    with_worker(home, test)


def test_a_model_is_not_freed_while_it_is_asked_and_is_kept_when_a_plan_wants_it_back(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    old, new = home.add("line"), home.add("line", offset=1.0)
    home.deploy("line", {old: 100})

    async def test(worker: Worker) -> None:
        await worker._follow()
        version = worker.plane.deployments["line"].versions[old[1]]
        version.batcher._running = [object()]  # type: ignore[list-item]
        home.deploy("line", {new: 100})
        await worker._follow()
        await worker._follow()
        assert old[0] in worker._loaded
        kept = worker._loaded[old[0]]
        home.deploy("line", {old: 100})
        await worker._follow()
        version.batcher._running = []
        await worker._follow()
        assert worker._loaded == {old[0]: kept}
        assert worker.plane.deployments["line"].champion.loaded is kept

    with_worker(home, test)


def test_a_plan_that_wants_a_version_back_forgets_how_its_processes_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "h")
    old, new = home.add("line"), home.add("line", offset=1.0)
    home.deploy("line", {old: 100})
    pardoned: list[object] = []

    async def test(worker: Worker) -> None:
        await worker._follow()
        runtime = worker._loaded[old[0]].runtime
        monkeypatch.setattr(worker_module, "Isolated", type(runtime))
        monkeypatch.setattr(type(runtime), "pardon", lambda self: pardoned.append(self), raising=False)
        version = worker.plane.deployments["line"].versions[old[1]]
        version.batcher._running = [object()]  # type: ignore[list-item]
        home.deploy("line", {new: 100})
        await worker._follow()
        assert not pardoned
        sequence = worker._state().sequence
        home.deploy("line", {old: 100})
        worker._look()
        assert pardoned == [runtime] and worker._state().has_seen(sequence + 1)
        home.deploy("line", {old: 50, new: 50})
        worker._look()
        assert pardoned == [runtime], "not for a version that stays"
        version.batcher._running = []
        await worker._follow()

    with_worker(home, test)


def test_what_was_retired_leaves_no_trace(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    old, new = home.add("line"), home.add("line", offset=1.0)
    home.deploy("line", {old: 100})

    async def test(worker: Worker) -> None:
        await worker._follow()
        gone = [weakref.ref(worker.plane.deployments["line"].champion), weakref.ref(worker._loaded[old[0]].runtime)]
        home.deploy("line", {new: 100})
        gc.disable()  # by counting references alone: what is frozen is never collected
        try:
            await worker._follow()
            await worker._follow()
            assert [each() for each in gone] == [None, None]
        finally:
            gc.enable()

    with_worker(home, test)


def test_a_look_at_an_unchanged_plan_searches_no_models(tmp_path: Path) -> None:
    home = home_with(tmp_path, "line")

    class Searched(dict[Any, Any]):
        def __iter__(self) -> Any:
            raise AssertionError

    async def test(worker: Worker) -> None:
        await worker._follow()
        worker._look()
        worker._loaded = Searched(worker._loaded)
        worker._look()
        worker._settle()  # as after each load and each new plan
        with pytest.raises(AssertionError):
            worker._look()

    with_worker(home, test)


def test_a_retired_version_has_no_queue(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    old, new = home.add("line"), home.add("line", offset=1.0)
    home.deploy("line", {old: 100})

    async def test(worker: Worker) -> None:
        await worker._follow()
        worker.plane.deployments["line"].champion.meter.gauge(queue_rows=7)
        assert b'modelyard_queue_rows{model_name="line",model_version="1"} 7' in render(worker.metrics.sums([0]))
        home.deploy("line", {new: 100})
        await worker._follow()
        await worker._follow()
        assert b'modelyard_queue_rows{model_name="line",model_version="1"} 0' in render(worker.metrics.sums([0]))

    with_worker(home, test)


def test_a_plan_or_a_chore_that_fails_in_its_own_way_is_told_and_the_next_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "h")
    monkeypatch.setattr("modelyard.serve.worker.WATCH_S", 0.001)
    monkeypatch.setattr("modelyard.serve.worker.KEYS_S", 0.001)
    monkeypatch.setattr("modelyard.serve.worker.HOUSEKEEPING_S", 0.001)

    async def test(worker: Worker) -> None:
        times = {"follow": 0, "keys": 0}

        def look() -> None:
            times["follow"] += 1
            raise ValueError("canary4711")

        def read() -> None:
            times["keys"] += 1
            raise ValueError("canary4711")

        def flush() -> None:
            raise ValueError("canary4711")

        worker._look = look  # type: ignore[method-assign]
        worker._flush = flush  # type: ignore[method-assign]
        worker.access = SimpleNamespace(is_stale=True, read=read, take=None)  # type: ignore[assignment]
        tasks = [asyncio.ensure_future(each) for each in (worker._watch(), worker._watch_keys(), worker._keep_house())]
        while min(times.values()) < 2 and not any(task.done() for task in tasks):
            await asyncio.sleep(0.001)
        assert min(times.values()) >= 2
        for task in tasks:
            task.cancel()

    with_worker(home, test)
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert "canary" not in said


def test_a_load_that_hangs_holds_up_neither_the_others_nor_the_next_plan(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    first, stuck, other, last = home.add("line"), home.add("line", offset=1.0), home.add("shop"), home.add("line", offset=2.0)
    home.deploy("line", {first: 100})
    gate = threading.Event()

    def slow(*arguments: Any) -> Loaded:
        if arguments[0] == stuck[0]:
            gate.wait(30)
        return load(*arguments)

    async def until(worker: Worker, true: Callable[[], bool]) -> None:
        while not true():
            worker._look()
            await asyncio.sleep(0.005)

    async def test(worker: Worker) -> None:
        await worker._follow()
        home.deploy("line", {stuck: 100})
        home.deploy("shop", {other: 100})
        await until(worker, lambda: "shop" in worker.plane.deployments)
        assert set(worker.plane.deployments["line"].versions) == {first[1]}  # what served before serves on
        assert read_worker_state(home.run, 0).sequence == 1  # not applied before all of it is
        assert read_worker_state(home.run, 0).models[stuck[0]].state == "loading"
        home.deploy("line", {last: 100})
        await until(worker, lambda: read_worker_state(home.run, 0).sequence == home.sequence)
        assert set(worker.plane.deployments["line"].versions) == {last[1]}
        gate.set()
        await until(worker, lambda: not worker._loading and set(worker._loaded) == {last[0], other[0]})  # nobody wants it any more
        assert set(read_worker_state(home.run, 0).models) == {last[0], other[0]}

    with_worker(home, test, load=slow)


def test_a_version_that_cannot_be_attached_fails_alone_and_is_tried_again_with_the_next_plan(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    line, shop = home.add("line"), home.add("shop")
    home.deploy("line", {line: 100})
    home.deploy("shop", {shop: 100})

    async def test(worker: Worker) -> None:
        attach = worker._attach

        def full(version: Any) -> None:
            if version.name == "line":
                raise StorageFull("no room")
            attach(version)

        worker.plane._attach = full
        await worker._follow()
        state = read_worker_state(home.run, 0)
        assert (state.sequence, state.missing) == (2, ("line",))
        assert {digest: model.state for digest, model in state.models.items()} == {line[0]: "failed", shop[0]: "ready"}
        with pytest.raises(Unavailable, match="not loaded"):
            worker.plane.find("line")
        assert not worker.edge.is_ready  # a worker that starts owes all that the plan names
        assert b'modelyard_degraded{reason="not_answered"} 1' in worker._metrics_text()
        worker.plane._attach = attach
        home.write()
        await worker._follow()
        assert read_worker_state(home.run, 0).missing == ()
        assert worker.edge.is_ready
        assert b'modelyard_degraded{reason="not_answered"} 0' in worker._metrics_text()

    with_worker(home, test)


def test_a_new_deployment_that_fails_leaves_it_ready_and_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    home.deploy("line", {home.add("line"): 100})

    async def test(worker: Worker) -> None:
        await worker._follow()
        bad = home.add("shop", wrong_answers=True)
        home.deploy("shop", {bad: 100})
        await worker._follow()
        assert worker.edge.is_ready
        (trouble,) = worker.watch.health.troubles
        assert (trouble.reason, trouble.model) == ("failed", bad[0])
        del home.plans["shop"]
        home.write()
        await worker._follow()
        worker._look()
        assert worker.watch.health.troubles == ()

    with_worker(home, test)


def test_what_was_answered_once_is_owed_for_as_long_as_the_plan_names_it(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line", "shop")

    async def test(worker: Worker) -> None:
        await worker._follow()
        assert worker._owed == {"line", "shop"}
        del home.plans["shop"]
        home.write()
        await worker._follow()
        assert worker._owed == {"line"}

    with_worker(home, test)


def test_denials_are_audited_once_a_second_and_the_loops_failures_are_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "h")
    monkeypatch.setattr("modelyard.serve.worker.HOUSEKEEPING_S", 0.01)
    log = AuditLog(FileLines(home.folder / "audit.jsonl"))

    async def test(worker: Worker) -> None:
        worker.edge.denied = Counter({("anonymous", "unauthenticated"): 3, ("key:abc", "grant"): 1})
        keeping = asyncio.ensure_future(worker._keep_house())
        while len(list(log.entries())) < 2:
            await asyncio.sleep(0.01)
        assert not worker.edge.denied
        keeping.cancel()
        worker._on_loop_error(asyncio.get_running_loop(), {"message": "SSL handshake failed", "exception": ValueError("canary4711")})

    with_worker(home, test)
    assert [(entry.principal, entry.outcome, entry.detail) for entry in log.entries()] == [
        ("anonymous", "denied", "unauthenticated (3)"),
        ("key:abc", "denied", "grant (1)"),
    ]
    said = capsys.readouterr().err
    assert "SSL handshake failed (ValueError)" in said and "canary" not in said and "Traceback" not in said


def test_what_a_full_disk_did_not_take_is_said_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a worker that started meanwhile would count as missing until the next plan."""
    home = home_with(tmp_path / "h", "line")
    monkeypatch.setattr("modelyard.serve.worker.HOUSEKEEPING_S", 0.001)

    def full(run: Path, state: Any) -> None:
        raise StorageFull("no space left")

    async def test(worker: Worker) -> None:
        with monkeypatch.context() as disk:
            disk.setattr("modelyard.serve.worker.write_worker_state", full)
            await worker._follow()
        with pytest.raises(NotFound):
            read_worker_state(home.run, 0)
        keeper = asyncio.ensure_future(worker._keep_house())
        for _ in range(5000):
            if not worker._is_unsaid:
                break
            await asyncio.sleep(0.001)
        keeper.cancel()
        assert read_worker_state(home.run, 0).sequence == worker._sequence

    with_worker(home, test)
