from __future__ import annotations

import errno
import os
import selectors
import socket
from pathlib import Path

import pytest

from modelyard.config import Settings
from modelyard.errors import Conflict, InvalidConfig
from modelyard.health import judge
from modelyard.serve import supervisor
from modelyard.serve.supervisor import Supervisor
from modelyard.types import read_serve_state


def made(run: Path, **settings: object) -> Supervisor:
    run.mkdir(exist_ok=True)
    return Supervisor(
        Settings(**{"port": 0, "grpc_port": -1, "workers": 3} | settings), plan=run / "plan", run=run, spool=None, as_json=False, needs_models=False
    )  # type: ignore[arg-type]


def close(made: Supervisor) -> None:
    for slot in made.slots:
        slot.listener.close()
        if slot.grpc is not None:
            slot.grpc.close()
    os.close(made._lock)


def test_each_slot_has_a_socket_on_one_port(tmp_path: Path) -> None:
    world = made(tmp_path)
    assert {slot.listener.getsockname()[1] for slot in world.slots} == {world.port}
    assert len({slot.listener.fileno() for slot in world.slots}) == 3
    with pytest.raises(Conflict):
        made(tmp_path)
    with pytest.raises(InvalidConfig, match="in use"), socket.create_server(("127.0.0.1", 0)) as taken:
        made(tmp_path / "other", port=taken.getsockname()[1])
    close(world)


def test_each_slot_has_a_socket_for_grpc_too_unless_that_is_off(tmp_path: Path) -> None:
    world = made(tmp_path, grpc_port=0)
    ports = {slot.grpc.getsockname()[1] for slot in world.slots if slot.grpc is not None}
    assert ports == {world.grpc_port} and world.grpc_port != world.port
    assert world._state().grpc == f"127.0.0.1:{world.grpc_port}"
    with pytest.raises(InvalidConfig, match="--grpc-port"), socket.create_server(("127.0.0.1", 0)) as taken:
        made(tmp_path / "other", grpc_port=taken.getsockname()[1])
    close(world)
    off = made(tmp_path / "off")
    assert off._state().grpc is None and {slot.grpc for slot in off.slots} == {None}
    close(off)


def test_nobody_connects_before_a_worker_accepts(tmp_path: Path) -> None:
    world = made(tmp_path)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", world.port), timeout=5)
    close(world)


def test_what_an_earlier_one_left_is_cleared_away(tmp_path: Path) -> None:
    for name in ("worker-7.json", "metrics-7.bin", "endpoint.json"):
        (tmp_path / name).write_text("old")
    (tmp_path / "plan.json").write_text("kept")
    close(made(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "serve.lock"]


def test_urls(tmp_path: Path) -> None:
    world = made(tmp_path, host="0.0.0.0", insecure=True)
    assert world.url == f"http://127.0.0.1:{world.port}"
    close(world)


@pytest.mark.parametrize(("host", "settings"), [("0.0.0.0", {}), ("::", {})])
def test_an_open_address_wants_keys_or_plain_words(tmp_path: Path, host: str, settings: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match="insecure"):
        supervisor.run(Settings(home=tmp_path, host=host, port=0, grpc_port=-1), tmp_path / "plan", tmp_path / "run")


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no such address"):
        made(tmp_path, host="no.such.host.invalid")


def test_a_keys_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("my_key_in_the_clear")
    with pytest.raises(InvalidConfig, match="SHA-256"):
        supervisor.run(Settings(port=0, grpc_port=-1, keys_file=str(tmp_path / "keys")), tmp_path / "plan", tmp_path / "run")


class Process:
    """A worker's process that never ends by itself."""

    def __init__(self, pid: int = 2**22 + 1) -> None:
        self.pid = pid
        self.kills = 0

    def poll(self) -> None: ...

    def kill(self) -> None:
        self.kills += 1


def test_a_worker_that_falls_silent_is_killed_and_one_that_loads_is_given_longer(tmp_path: Path) -> None:
    world = made(tmp_path)
    processes = [Process() for _ in world.slots]
    for slot, process in zip(world.slots, processes, strict=True):
        slot.process, slot.heard_s = process, 100.0  # type: ignore[assignment]
    world.slots[0].is_loading = False
    world._end_hung(100.0 + supervisor.HUNG_S, was_away=False)
    assert [process.kills for process in processes] == [0, 0, 0]
    world._end_hung(100.1 + supervisor.HUNG_S, was_away=False)
    assert [process.kills for process in processes] == [1, 0, 0]
    world._end_hung(100.1 + supervisor.LOADING_S, was_away=False)
    assert [process.kills for process in processes] == [2, 1, 1]
    close(world)


def test_silence_does_not_count_while_the_supervisor_itself_was_away_or_a_debugger_holds_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(tmp_path, workers=1)
    (slot,) = world.slots
    process = Process()
    slot.process, slot.heard_s, slot.is_loading = process, 100.0, False  # type: ignore[assignment]
    world._end_hung(1000.0, was_away=True)
    world._end_hung(1000.0 + supervisor.HUNG_S, was_away=False)
    assert process.kills == 0
    monkeypatch.setattr(supervisor, "_is_traced", lambda pid: True)
    world._end_hung(2000.0, was_away=False)
    assert process.kills == 0
    monkeypatch.setattr(supervisor, "_is_traced", lambda pid: False)
    world._end_hung(2000.0, was_away=False)
    assert process.kills == 1
    close(world)


def test_what_workers_say_is_heard(tmp_path: Path) -> None:
    world = made(tmp_path, workers=1)
    (slot,) = world.slots
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    slot.channel = ours
    world._selector.register(ours, selectors.EVENT_READ, slot)
    for said, is_loading, is_ready in ((b"L", True, False), (b"LLR", False, True), (b".L", True, True), (b".", False, True)):
        slot.heard_s = 0.0
        theirs.send(said)
        world._wait(1.0)
        assert (slot.is_loading, slot.is_ready, slot.heard_s > 0) == (is_loading, is_ready, True)
    theirs.close()
    world._wait(1.0)
    assert not world._selector.get_map()
    ours.close()
    close(world)


def test_a_debugged_process_is_known_by_its_tracer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(supervisor, "Path", lambda _: status)
    for text, is_traced in (("Name:\tx\nTracerPid:\t0\n", False), ("Name:\tx\nTracerPid:\t17\n", True)):
        status.write_text(text)
        assert supervisor._is_traced(1) is is_traced
    status.unlink()
    assert not supervisor._is_traced(1)


def test_its_report_says_how_many_slots_there_are_and_when_all_were_ready(tmp_path: Path) -> None:
    world = made(tmp_path)
    world._write_state()
    first = read_serve_state(tmp_path)
    assert (first.size, first.slots, first.is_up) == (3, (), False)
    world._is_up = True
    world._write_state()
    assert read_serve_state(tmp_path).is_up
    close(world)


@pytest.mark.parametrize("what", ["Popen", "fork", "socketpair", "epoll"])
def test_a_worker_that_the_system_refuses_to_start_is_tried_again_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """At a limit of processes, memory or descriptors; it was tried every 0.8 s, and without a descriptor the supervisor ended."""
    world = made(tmp_path, workers=1)
    slot = world.slots[0]

    def refuse(*_: object, **__: object) -> object:
        raise OSError(errno.EMFILE if what == "socketpair" else errno.EAGAIN, "no room")

    place = {
        "Popen": (supervisor.subprocess, "Popen"),
        "fork": (supervisor.forked, "start"),
        "socketpair": (supervisor.socket, "socketpair"),
        "epoll": (world._selector, "register"),
    }[what]
    world.forks = what == "fork"
    monkeypatch.setattr(supervisor.forked, "is_safe", lambda: True)
    with monkeypatch.context() as refused:
        refused.setattr(*place, refuse)
        waits = []
        for _ in range(6):
            world._start(slot, {})
            waits.append(round(slot.restart_at_s - slot.started_s, 3))
        assert waits == [0.2, 0.5, 1.0, 2.0, 2.0, 2.0]
        assert slot.process is None and slot.channel is None and not world._selector.get_map()
    assert capsys.readouterr().err.count("worker_not_started") == 1
    assert "no room" in judge(world._state(), []).troubles[0].evidence
    world.forks = False
    monkeypatch.setattr(supervisor.sys, "executable", "/bin/true")
    world._start(slot, {})
    assert slot.process is not None and world._state().trouble == "" and slot.refused_starts == 0
    assert slot.process.wait() == 0  # type: ignore[union-attr]
    world._reap()
    close(world)
