"""A data plane without a control process of its own: what it has seen is seen elsewhere, once, whoever was away or killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from world import World, wait_until

from modelyard import config, events
from modelyard.client import Client
from modelyard.monitor.intake import windows_path
from modelyard.monitor.windows import Windows
from modelyard.types import read_control_state
from serving import Home, children, home_with, line_row, running

pytestmark = pytest.mark.system


@pytest.fixture
def replica(tmp_path: Path) -> Home:
    return home_with(tmp_path / "replica", "line")


def seen(home: Path) -> int:
    with closing(Windows(windows_path(config.load({"home": home})))) as windows:
        return sum(window.requests for window in windows.seen("line", since=0).values())


def keyed(world: World, folder: Path) -> Path:
    told = world.verb("keys", "create", "replica", "--role", "exporter", "--json")
    assert told.code == 0, told.err
    path = folder / "exporter.key"
    path.write_text(told.json()["key"])
    path.chmod(0o600)
    return path


def exporter(server_pid: int) -> int:
    """The pid of the process beside the workers."""
    for pid in children(server_pid):
        if b"modelyard.monitor.export" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no exporter")


def test_what_a_replica_counts_arrives_at_a_control_api_once(tmp_path: Path, replica: Home) -> None:
    world = World(tmp_path / "control")
    try:
        world.up()
        settings = {"export_key_file": keyed(world, tmp_path)}
        url = read_control_state(world.folder / "run").url
        with running(replica, "--export", url, settings=settings, workers=2) as server:
            for number in range(30):
                assert server.infer("line", line_row(a=float(number))).status == 200
                if number == 15:
                    os.kill(exporter(server.process.pid), signal.SIGKILL)
        wait_until(lambda: seen(world.folder) == 30)
        assert not events.pending(replica.folder / "run" / "spool"), "what was left went at the end"
        time.sleep(1.5)
        assert seen(world.folder) == 30
    finally:
        world.end()
        world.home.registry.close()


def test_while_the_receiver_is_away_the_data_plane_serves_and_what_it_counts_waits(tmp_path: Path, replica: Home) -> None:
    store = tmp_path / "store"
    store.write_text("a file where a folder should be")
    spool = replica.folder / "run" / "spool"
    with running(replica, "--export", store.as_uri()) as server:
        for _ in range(20):
            assert server.infer("line", line_row()).status == 200
        wait_until(lambda: events.pending(spool))
    assert sum(part.requests for path in events.pending(spool) for part in events.read(path).parts) == 20
    store.unlink()
    with running(replica, "--export", store.as_uri()) as server:
        assert server.infer("line", line_row()).status == 200
    found = [events.decode(path.read_bytes()) for path in (store / "v1").rglob("*.segment")]
    assert sum(part.requests for segment in found for part in segment.parts) == 21 and not events.pending(spool)


def test_without_export_there_is_no_such_process(replica: Home) -> None:
    with running(replica, settings={"export_url": "file:///nowhere"}) as server, pytest.raises(AssertionError, match="no exporter"):
        exporter(server.process.pid)


def test_the_command_serves_and_sends_what_is_left_when_it_ends(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    world.home.add("line")
    store = tmp_path / "store"
    process = world.start("serve", "line:1", "--export", store.as_uri(), "--port", str(world.port), "--grpc-port", "-1", "--json")
    try:
        assert process.stdout is not None
        card = json.loads(process.stdout.readline())
        with Client(data_url=card["url"]) as client:
            for number in range(5):
                client.predict("line", {"a": np.array([[float(number)]]), "b": np.array([[2]]), "c": np.array([[0.5]], np.float32)})
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
        world.home.registry.close()
    found = [events.decode(path.read_bytes()) for path in (store / "v1").rglob("*.segment")]
    assert sum(part.requests for segment in found for part in segment.parts) == 5
