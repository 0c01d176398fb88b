"""At the system's limit of processes nothing ends that lives: what died is tried again, `status` says why it is not there, and with room it is back.

The limit (RLIMIT_NPROC) does not bind root, so the home runs as a user whom nobody knows; it is set, and lifted, on the living parent and supervisor.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import random_user
from world import free_ports

from modelyard.types import read_control_state, read_serve_state, read_worker_state

pytestmark = pytest.mark.system
MODELYARD = str(Path(sys.executable).with_name("modelyard"))
ROOM = str(resource.getrlimit(resource.RLIMIT_NPROC)[0]).replace("-1", "unlimited")


@pytest.fixture
def place(component: Callable[[str], str], lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    """A folder that any user may write."""
    with random_user.folder(0o777, component, lacks, "prlimit") as folder:
        yield folder


class LimitedHome:
    """A home of that user's, up in the foreground."""

    def __init__(self, place: Path) -> None:
        self.run = place / "home" / "run"
        self._variables = {"MODELYARD_HOME": str(place / "home"), "HOME": str(place), "TMPDIR": str(place)}
        self._port, control = free_ports(2)
        ports = ["--port", str(self._port), "--control-port", str(control), "--grpc-port", "-1", "--workers", "2"]
        with (place / "up.txt").open("wb") as out:
            command = [MODELYARD, "up", *ports]
            self.parent = random_user.start(command, self._variables, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One verb of the command line, as that user."""
        return random_user.run([MODELYARD, *arguments], self._variables)

    def limit(self, pid: int, processes: str) -> None:
        """Let `pid` start another process only while its user has fewer than so many."""
        assert random_user.run(["prlimit", f"--pid={pid}", f"--nproc={processes}:"], self._variables).returncode == 0

    @property
    def is_ready(self) -> bool:
        """Whether traffic may come."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_cannot_be_started_is_told_and_tried_again_while_the_rest_serves(place: Path) -> None:
    home = LimitedHome(place)
    try:
        wait_until((home.run / "up.json").exists)
        serve, control = read_serve_state(home.run).pid, read_control_state(home.run).pid
        home.limit(home.parent.pid, "1")
        home.limit(serve, "1")

        os.kill(read_worker_state(home.run, 1).pid, signal.SIGKILL)
        wait_until(lambda: "slot 1 has no worker; another cannot be started (Resource temporarily unavailable)" in home.verb("status").stdout)
        assert home.is_ready
        home.limit(serve, ROOM)
        wait_until(lambda: "cannot be started" not in home.verb("status").stdout and len(read_serve_state(home.run).slots) == 2)

        os.kill(control, signal.SIGKILL)
        wait_until(lambda: "cannot be started now (Resource temporarily unavailable); it is tried again" in home.verb("status").stderr)
        assert home.parent.poll() is None and home.is_ready
        home.limit(home.parent.pid, ROOM)
        wait_until(lambda: home.verb("status").returncode == 0)

        home.limit(home.parent.pid, "1")
        os.kill(serve, signal.SIGKILL)
        wait_until(lambda: "the data plane cannot be started (Resource temporarily unavailable)" in home.verb("status").stdout)
        assert home.parent.poll() is None and not home.is_ready
        home.limit(home.parent.pid, ROOM)
        wait_until(lambda: home.is_ready)
        assert "cannot be started" not in home.verb("status").stdout
        assert (place / "up.txt").read_text().count("cannot be started (") == 2, "once for each, however often it was tried"
    finally:
        down = home.verb("down")
        home.parent.kill()
    assert down.returncode == 0 and home.parent.wait() == 0
    assert not list(home.run.glob("*.unstarted"))
