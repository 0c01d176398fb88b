"""The parent of the two planes: alone, patient with children, and careful with pids."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard import config
from modelyard.cli import host
from modelyard.config import Settings
from modelyard.errors import Unavailable
from modelyard.types import HostPlan, read_plan, read_unstarted, write_plan, write_unstarted


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run").mkdir()
    return config.load({"home": tmp_path, "port": 0, "control_port": 0})


def test_there_is_one_parent_and_its_death_frees_the_home(settings: Settings) -> None:
    assert host._parent(settings) is None
    with host._alone(settings) as first:
        with host._alone(settings) as second:
            assert first and not second
        assert host._parent(settings) == os.getpid()
    assert host._parent(settings) is None
    assert (settings.run / "up.lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("plane", ["control", "serve"])
def test_a_process_is_ours_by_what_it_runs_and_for_which_home(settings: Settings, plane: str) -> None:
    wanted = host._arguments(plane, settings)
    others = host._arguments(plane, msgspec.structs.replace(settings, home=settings.home.with_name(settings.home.name + "2")))
    started = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *more]) for more in (["-m", *wanted], ["-m", *others], [])]
    try:
        assert [host._is_ours(process.pid, " ".join(wanted)) for process in started] == [True, False, False]
        assert all(host._lives(process.pid) for process in started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert not host._is_ours(started[0].pid, " ".join(wanted)) and not host._lives(started[1].pid)


def test_a_plane_is_found_by_whatever_it_or_its_parent_wrote(settings: Settings) -> None:
    """A release before wrote the data plane's number nowhere but in its state; a full disk may have kept any of them from being written."""
    assert host._told(settings, "serve") == host._told(settings, "control") == set()
    (settings.run / "serve.lock").touch()
    (settings.run / "serve.pid").touch()
    (settings.run / "serve.json").write_text('{"pid": 11, "host": "127.0.0.1", "port": 1, "slots": [0], "started_at": ""}')
    assert host._told(settings, "serve") == {11}
    (settings.run / "control.json").write_text("{")
    (settings.run / "control.lock").write_text("12")
    (settings.run / "control.pid").write_text("13")
    assert host._told(settings, "control") == {12, 13}


def test_an_unfinished_plan_is_begun_and_a_whole_one_kept(settings: Settings) -> None:
    host._ensure_plan(settings)
    assert read_plan(settings.plan).sequence == 1
    write_plan(settings.plan, HostPlan(sequence=7, plans=(), placements={}))
    host._ensure_plan(settings)
    assert read_plan(settings.plan).sequence == 7


def test_a_child_that_keeps_dying_is_started_with_growing_pauses(settings: Settings) -> None:
    child = host.Child("control", settings)
    child._command = [sys.executable, "-c", ""]
    child.start()
    starts = [child.pid]
    pauses = []
    while len(starts) < 4:
        child.keep()
        if child.pid != starts[-1]:
            starts.append(child.pid)
            pauses.append(child._pause_s)
    assert child._process is not None and child._process.wait() == 0
    assert pauses == [0.1, 0.2, 0.4]


def test_a_child_for_which_the_system_has_no_room_is_tried_again_and_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended the parent, and with it what still served."""
    child, now, popen = host.Child("serve", settings), [1000.0], subprocess.Popen
    child._command = [sys.executable, "-c", ""]
    monkeypatch.setattr(host.time, "monotonic", lambda: now[0])
    tried: list[float] = []
    has_room = False

    def start(*arguments: Any, **more: Any) -> Any:
        tried.append(now[0])
        if not has_room:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return popen(*arguments, **more)

    monkeypatch.setattr(host.subprocess, "Popen", start)
    assert child.start() == "Resource temporarily unavailable", "the first time it is who starts the home that is told"
    assert capsys.readouterr().err == "" and read_unstarted(settings.run, "serve") == "", "and nothing is tried again"
    for _ in range(600):
        now[0] += 0.1
        child.keep()
    pauses = [round(later - earlier, 1) for earlier, later in itertools.pairwise(tried)]
    assert pauses[:5] == sorted(pauses[:5]) and 5.0 <= pauses[-1] < 5.3 and len(tried) < 25
    assert not child.is_running() and child.pid is None
    assert read_unstarted(settings.run, "serve") == "Resource temporarily unavailable"
    has_room = True
    for _ in range(60):
        now[0] += 0.1
        if child.pid is None:
            child.keep()
    assert child.pid is not None and child._process is not None and child._process.wait() == 0
    assert read_unstarted(settings.run, "serve") == ""
    assert len(capsys.readouterr().err.splitlines()) == 2, "once for each change, however often it is tried"


def test_what_a_parent_that_was_killed_said_of_a_start_is_forgotten_with_what_it_left(settings: Settings) -> None:
    """The next time that process ended, nobody was told why it truly was away."""
    for name in host.MODULES:
        write_unstarted(settings.run, name, "Cannot allocate memory")
    assert host._end_orphans(settings) == []
    assert [read_unstarted(settings.run, name) for name in host.MODULES] == ["", ""]


def test_a_home_that_the_system_has_no_room_for_is_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a traceback, or two lines of which one said that it is tried again."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise BlockingIOError(errno.EAGAIN, "no room")

    with monkeypatch.context() as refused:
        refused.setattr(host.subprocess, "Popen", refuse)
        refused.setattr(host.signal, "signal", lambda *_: None)
        with pytest.raises(Unavailable, match=r"cannot be started now \(no room\)"):
            host._detached(settings)
        with pytest.raises(Unavailable, match=r"the control process cannot be started \(no room\)"):
            host.run(settings, lambda _: None)


def test_a_port_in_use_names_its_flag(settings: Settings) -> None:
    import socket

    host._check_ports(settings)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="--control-port"):
            host._check_ports(config.load({"home": settings.home, "port": 0, "control_port": taken.getsockname()[1]}))


def test_waiting_ends_when_what_is_waited_for_does(settings: Settings) -> None:
    with pytest.raises(Unavailable, match="did not come up"):
        host._wait_for_parent(settings, lambda: False)


def test_a_second_signal_is_urgent() -> None:
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        assert threading.current_thread() is threading.main_thread()
        stop = host.Stop()
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5) and not stop.is_urgent
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set() and stop.is_urgent
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (b'{"event": "listening"}\nmodelyard: port 1 is in use\n{"event": "ended"}\n', "port 1 is in use"),
        (b"Traceback\nValueError: x\n{}\n", "ValueError: x"),
        (b'{"event": "ended"}\n', ""),
        (b"", ""),
    ],
)
def test_what_a_process_said_last_is_no_line_of_its_log(log: bytes, told: str) -> None:
    assert host.told(log) == told
