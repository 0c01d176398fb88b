"""Fault 13: another process keeps the database locked."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from tests.faults import scene
from tests.faults.control import Control, Reply, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene

from serving import Home

LOCKED_S, LONG_S, TOLD_S, RATE_SHARE = 12.0, 30.0, 5.0, 0.5
OFFSETS = (0.0, 1000.0)


def run(scene_: Scene) -> None:
    home = Home(scene_.folder / "home")
    for offset in OFFSETS:
        home.add("line", offset=offset)
    traffic = scene.line(offsets=OFFSETS)
    locked_s = LONG_S if scene_.is_long else LOCKED_S
    with scene_.server(home) as server, control(scene_, home, starts=("quick gates",)) as running:
        for version in (1, 2):
            assert running.deploy("line", f"line:{version}").status == 202 and running.settled("line") is not None
        rate = server.capacity(traffic, seconds=2, most=2000) * RATE_SHARE
        usual_ms = server.latency(traffic, rate, seconds=3)
        server.mark()
        loading = server.load(traffic, connections=16, seconds=600, rate=rate)
        told: list[tuple[Reply, float]] = []
        began = time.monotonic()
        with closing(sqlite3.connect(home.folder / "registry.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            while time.monotonic() < began + locked_s:
                told += [_timed(running, *each) for each in (("POST", "/deployments/line/rollback"), ("DELETE", "/deployments/line"))]
            tally = loading.end(now=True)
        status, recovered_s = _timed(running, "POST", "/deployments/line/rollback")
        settled = running.settled("line")
    scene_.item("predicted", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,} in {time.monotonic() - began:.0f} s")
    scene_.item("predicted_p99", tally.p(99) / usual_ms, 1.2, "x", note=f"{tally.p(99):.2f} ms; unlocked {usual_ms:.2f} ms")
    others = [reply.status for reply, _ in told if reply.status != 503]
    scene_.item("not_503", len(others), 0, exact=True, note=f"of {len(told)} changes {others[:4] or ''}")
    scene_.item("without_retry_after", sum("retry-after" not in reply.headers for reply, _ in told), 0, exact=True)
    scene_.item("told", max(seconds for _, seconds in told), TOLD_S, "s", note="the slowest answer")
    scene_.item("recovered", None if status.status != 202 or settled is None else recovered_s + settled, 10, "s", note="a rollback in force")


def _timed(running: Control, method: str, path: str) -> tuple[Reply, float]:
    began = time.monotonic()
    return running.ask(method, path), time.monotonic() - began


FAULT = Fault(
    number=13,
    name="locked",
    title="The database is locked",
    method=(
        f"Another process holds the database's lock for {LOCKED_S:g} s ({LONG_S:g} s in the long form) and changes are asked for, under "
        "half of the capacity (2,000 requests a second at most, which is all that the generator's core can judge)."
    ),
    run=run,
    controls=(Taken(without="impatience", misses="told", text="the database is waited for as long as it takes."),),
    headline="told",
)
