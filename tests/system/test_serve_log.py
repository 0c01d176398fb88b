"""What a real server says of its life: each line in the one shape, the whole story, and none of what was asked."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from serving import Home, home_with, line_row, running

pytestmark = pytest.mark.system


def test_a_life_is_told_in_one_shape(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line")
    bad = home.add("line", offset=1.0, wrong_answers=True)
    with running(home, workers=2) as server:
        server.infer("line", line_row(a="canary4711"))
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_for(home, "worker_ready", times=3)
        home.deploy("line", {bad: 100})
        wait_for(home, "version_failed", times=2)
    told = lines(home)
    for line in told:
        assert {"time", "level", "event", "process", "pid"} <= set(line) and line["level"] in ("info", "warning", "error")
        assert ("slot" in line) == (line["process"] == "worker")
    supervisor = [line["event"] for line in told if line["process"] == "supervisor"]
    assert supervisor[:3] == ["worker_started", "worker_started", "listening"] and supervisor[-2:] == ["draining", "ended"]
    assert supervisor.count("worker_ended") == 1 and supervisor.count("worker_started") == 3
    (ended,) = (line for line in told if line["event"] == "worker_ended")
    assert (ended["exit"], ended["level"]) == (-signal.SIGKILL, "warning")
    workers = [line["event"] for line in told if line["process"] == "worker"]
    assert workers.count("version_loaded") == 3 and workers.count("draining") == workers.count("drained") == 2
    failed = [line for line in told if line["event"] == "version_failed"]
    assert {line["slot"] for line in failed} == {0, 1}
    assert all(line["model"] == "line" and line["version"] == 2 and line["verdict"]["rule"] == "golden-replay" for line in failed)
    (refused,) = (line for line in told if line["event"] == "error")
    assert (refused["status"], refused["level"], refused["model"]) == (400, "warning", "line")
    assert "canary" not in (home.folder / "serve.log").read_text()


def lines(home: Home) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home.folder / "serve.log").read_text().splitlines()]


def wait_for(home: Home, event: str, *, times: int) -> None:
    until = time.monotonic() + 30
    while sum(line["event"] == event for line in lines(home)) < times:
        assert time.monotonic() < until, f"{event} was not told"
        time.sleep(0.05)
