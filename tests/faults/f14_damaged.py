"""Fault 14: the database is damaged: its header, its pages, the end of its write-ahead log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import load, probes, scene
from tests.faults.control import Control, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene

from serving import Home

FOUND_S, PAGE, FRAME = 2.0, 4096, 4096 + 24
OFFSETS = (0.0, 1000.0)


def _header(home: Path) -> None:
    with (home / "registry.sqlite").open("r+b") as file:
        file.write(bytes(100))


def _pages(home: Path) -> None:
    with (home / "registry.sqlite").open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xff" * PAGE * 2)


def _log_tail(home: Path) -> None:
    """The last half of the frames."""
    path = home / "registry.sqlite-wal"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(32 + (size - 32) // FRAME // 2 * FRAME)
        file.write(os.urandom(size - file.tell()))


DAMAGES: tuple[tuple[str, bool, Callable[[Path], None]], ...] = (("header", True, _header), ("pages", True, _pages), ("log", False, _log_tail))
"""What is damaged, whether the database was closed in order before, and how."""


def run(scene_: Scene) -> None:
    home = Home(scene_.folder / "home")
    for offset in OFFSETS:
        home.add("line", offset=offset)
    home.registry.close()
    traffic = scene.line(offsets=OFFSETS)
    slowest: list[float | None] = []
    emptied = changed = restarts = 0
    unrestored: list[str] = []
    with scene_.server(home, workers=2) as server, control(scene_, home, starts=("quick gates",)) as running:
        for version in (1, 2):
            assert running.deploy("line", f"line:{version}").status == 202 and running.settled("line") is not None
        server.mark()
        loading = server.load(traffic, connections=4, seconds=600, rate=100.0, retries=1, retried=(load.LOST, 503))
        for what, is_closed, damage in DAMAGES[-1:] if scene_.is_control else DAMAGES:
            copy = scene_.folder / f"{what}.copy"
            assert _verb(home, "backup", str(copy)) == 0
            assert running.ask("POST", "/models/line/aliases/tried", {"version": 1}).status < 500  # so that the log holds more than the copy
            reply = running.deploy("line", f"line:{1 + running.serving('line') % 2}")  # type: ignore[operator]
            assert reply.status == 202 and running.settled("line") is not None, reply
            served = running.serving("line")
            (running.end if is_closed else running.kill)()
            damage(home.folder)
            before = (home.folder / "registry.sqlite").read_bytes()
            began = time.monotonic()
            running.start("quick gates", waits=False)
            took_s = probes.wait(lambda: _is_told(running), 10.0, 0.01)
            slowest.append(None if took_s is None else time.monotonic() - began)
            emptied += (home.folder / "registry.sqlite").read_bytes() != before
            changes = [
                running.deploy("line", "line:1"),
                running.ask("POST", "/deployments/line/rollback"),
                running.ask("DELETE", "/deployments/line"),
            ]
            changed += sum(reply.status < 400 and reply.status != 0 for reply in changes)
            os.kill(server.worker(), 9)  # a worker that starts now has the plan alone
            restarts += probes.wait(server.is_healthy, 10.0, 0.05) is not None
            running.end()
            restored = _verb(home, "restore", str(copy)) == 0
            running.start("quick gates", waits=False)
            back = restored and probes.wait(lambda: running.is_up, 10.0) is not None and running.settled("line") is not None
            if not back or running.serving("line") is None or running.deploy("line", f"line:{served}").status not in {200, 202}:
                unrestored.append(what)
            running.settled("line")
        tally = loading.end(now=True)
    scene_.item("found", None if None in slowest else max(filter(None, slowest)), FOUND_S, "s", note="from the start of a process that is loaded")
    scene_.item("written_to", emptied, 0, exact=True, note="damaged databases that were changed, or made anew")
    scene_.item("changes_taken", changed, 0, exact=True)
    scene_.item("not_restored", len(unrestored), 0, exact=True, note=", ".join(unrestored) or "by `modelyard restore`, as the error says")
    scene_.item("workers_back", restarts, len(slowest), better="higher", exact=True, note="killed while the database was damaged")
    scene_.item("predicted", tally.success, 99.9, "%", better="higher", note=f"of {tally.sent:,}, tried twice; a worker of two was killed thrice")


def _is_told(running: Control) -> bool:
    """Whether it says what is wrong, and how to restore."""
    reply = running.ask("GET", "/status", timeout=2)
    return reply.status == 422 and b"modelyard restore" in reply.body


def _verb(home: Home, *line: str) -> int:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")}
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.cli", *line, "--home", str(home.folder)], env=environment, capture_output=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr.decode()[-500:])
    return done.returncode


FAULT = Fault(
    number=14,
    name="damaged",
    title="The database is damaged",
    method=(
        "The header of the database, two of its pages, then the last half of its write-ahead log are overwritten while no control process runs. "
        "One is started and asked for changes, a worker is killed, and the home goes back to a copy as the error tells to. 100 requests a second "
        "meanwhile."
    ),
    run=run,
    controls=(
        Taken(
            without="looking for damage",
            misses="found",
            text="a database is opened without a look for damage: its last writes are gone, and nobody says so.",
        ),
    ),
    headline="found",
    may_share=True,
)
