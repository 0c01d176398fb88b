"""The control process: alone in its home, on its port, and back after its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from world import free_ports, wait_until

from modelyard import events
from modelyard.client import Client
from modelyard.client.places import read_admin_key
from modelyard.config import child_environment, load
from modelyard.console import process
from modelyard.console.process import MOVING_S, REST_S, Pace
from modelyard.control.plane import ControlPlane
from modelyard.control.status import Status
from modelyard.errors import NotFound, Unauthenticated, Unavailable
from modelyard.events import Part, Segment
from modelyard.files import make_folder
from modelyard.monitor.intake import outbox_path, windows_path
from modelyard.monitor.windows import Windows
from modelyard.types import Digest, read_control_state


def start(home: Path, port: int) -> subprocess.Popen[str]:
    environment = child_environment(load({"home": home, "control_port": port}))
    return subprocess.Popen([sys.executable, "-m", "modelyard.console"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def listens(home: Path, pid: int) -> bool:
    try:
        return read_control_state(home / "run").pid == pid
    except NotFound:
        return False


def test_one_process_per_home_answers_and_ends_cleanly(tmp_path: Path) -> None:
    (port, other_port) = free_ports(2)
    first = start(tmp_path, port)
    try:
        wait_until(lambda: listens(tmp_path, first.pid))
        second = start(tmp_path, other_port)
        _, said = second.communicate(timeout=60)
        assert second.returncode == 1 and "is running already" in said and len(said.splitlines()) == 1
        url = read_control_state(tmp_path / "run").url
        wait_until(lambda: _answers(url, read_admin_key(load({"home": tmp_path}))))
        with pytest.raises(Unauthenticated), Client(url, "my_nobody") as nobody:
            nobody.call("GET", "/status", answer=Status)
    finally:
        first.send_signal(signal.SIGTERM)
        out, err = first.communicate(timeout=60)
    assert (first.returncode, out, err) == (0, "", "")
    assert not (tmp_path / "run" / "control.json").exists()


def _answers(url: str, key: str) -> bool:
    try:
        with Client(url, key) as client:
            return client.call("GET", "/status", answer=Status).data_plane is None
    except Unavailable:
        return False


def test_who_asks_as_soon_as_it_is_said_to_run_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was said before anything listened, so that whoever came first found nobody."""
    (port,) = free_ports(1)
    reached = []

    def told(*_: object) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            reached.append(port)
        raise NotFound("enough was seen")

    monkeypatch.setattr(process, "write_control_state", told)
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)
    with pytest.raises(NotFound, match="enough"):
        process.serve(load({"home": tmp_path, "control_port": port}))
    assert reached == [port]


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(tmp_path, taken.getsockname()[1])
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "--control-port" in said and len(said.splitlines()) == 1


def test_a_lock_left_by_a_killed_process_does_not_hold(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    first = start(tmp_path, port)
    wait_until(lambda: listens(tmp_path, first.pid))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    again = start(tmp_path, port)
    try:
        wait_until(lambda: listens(tmp_path, again.pid))
    finally:
        again.terminate()
        _, said = again.communicate(timeout=60)
    assert again.returncode == 0, said


def test_rests_grow_while_nothing_comes_of_them_and_are_short_after_something_has(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("modelyard.console.process.time.monotonic", lambda: now)
    pace = Pace()
    shortest, longest = MOVING_S
    assert pace.pause_s(is_moving=True) == shortest and pace.pause_s(is_moving=False) == REST_S
    now += 2.0
    assert pace.pause_s(is_moving=True) == pytest.approx(0.1)
    now += 3600.0
    assert pace.pause_s(is_moving=True) == longest
    pace.restart()
    assert pace.pause_s(is_moving=True) == shortest


def test_counts_that_could_not_be_told_are_no_failure_once_their_rollout_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status said for ever after that it fails: no turn came that could have gone well."""

    def full(*_: object) -> bool:
        raise Unavailable("no space left")

    monkeypatch.setattr(process, "REST_S", 0.01)
    monkeypatch.setattr(process.Tally, "publish", full)
    with ControlPlane(load({"home": tmp_path})) as plane:
        loops = process.Loops(plane)
        rollouts = {"m": (object(),)}
        monkeypatch.setattr(loops, "_host", SimpleNamespace(rollouts=rollouts))
        telling = threading.Thread(target=loops._tell)
        telling.start()
        try:
            wait_until(lambda: loops.failing() == {"tally": "no space left"})
            rollouts.clear()
            wait_until(lambda: not loops.failing())
        finally:
            loops._stop.set()
            telling.join()


def test_processes_that_share_a_store_have_what_each_has_seen(tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    homes = [tmp_path / name for name in ("one", "two")]
    part = Part(name="m", version=1, digest=Digest("sha256:" + "0" * 64), requests=7)
    segment = Segment(slot=0, pid=1, started_at=time.time() - 91, ended_at=time.time() - 90, parts=(part,))
    outbox = make_folder(outbox_path(load({"home": homes[0]})))  # as taken in just before the end of another process
    (outbox / "0-1-1.segment").write_bytes(events.encode(segment))
    environments = [
        child_environment(load({"home": home, "control_port": port, "export_url": store})) for home, port in zip(homes, free_ports(2), strict=True)
    ]
    command = [sys.executable, "-m", "modelyard.console"]
    processes = [subprocess.Popen(command, env=each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in environments]
    try:
        wait_until(lambda: windows_path(load({"home": homes[1]})).exists() and _requests(homes[1]) == 7)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        ended = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert ended == [("", "", 0)] * 2 and not list(outbox.glob("*.segment"))
    assert _requests(homes[0]) == 0, "its own it has already"


def _requests(home: Path) -> int:
    with contextlib.closing(Windows(windows_path(load({"home": home})))) as windows:
        return sum(window.requests for window in windows.seen("m", since=0).values())
