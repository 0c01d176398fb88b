"""Fault 16: the system says of a sync that it failed (EIO)."""

from __future__ import annotations

import time

from tests.faults import scene
from tests.faults.control import Control, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene
from tests.faults.shim import Shim

from serving import Home

OFFSETS = (0.0, 1000.0)
FAILS_S = 1.0


def run(scene_: Scene) -> None:
    home = Home(scene_.folder / "home")
    for offset in OFFSETS:
        home.add("line", offset=offset)
    shim = Shim(scene_.folder, home.folder)
    wired = ("quick gates",)
    found = Found()
    with scene_.server(home, shim=shim.environment) as server, control(scene_, home, starts=wired, **shim.environment) as running:
        for version in (1, 2, 1):
            assert running.deploy("line", f"line:{version}").status == 202 and running.settled("line") is not None
        server.mark()
        loading = server.load(scene.line(offsets=OFFSETS), connections=4, seconds=600, rate=100.0)
        for part in ("registry.sqlite",):
            shim.failing(part)
            _ask(running, found, part)
            shim.well()
            found.went_on += _succeeds(running, "/deployments/line/rollback", None) + _succeeds(running, "/deployments/line", {"reference": "line:2"})
            found.unread += running.ask("GET", "/deployments/line").status != 200
            running.end()
            running.start(*wired)
            if running.deploy("line", "line:2").status not in {200, 202} or running.settled("line") is None:
                found.lost.append(f"{part}: no deploy after the restart")
            elif running.ask("POST", "/deployments/line/rollback").status != 202 or running.settled("line") is None:
                found.lost.append(f"{part}: no rollback after the restart")
        shim.failing(".plan.json")
        reply = running.deploy("line", "line:2")
        time.sleep(FAILS_S)
        found.reported += reply.status == 202 and running.is_settled("line") and running.serving("line") == 2
        shim.well()
        settled = running.settled("line")
        tally = loading.end(now=True)
    scene_.item("reported", found.reported, 0, exact=True, note=f"successes told of what was not synced; {'; '.join(found.notes)}")
    scene_.item("went_on", found.went_on, 0, exact=True, note="changes taken by a process that has seen a sync of its records fail")
    scene_.item("not_read", found.unread, 0, exact=True, note="what only reads goes on")
    scene_.item("not_well_after_restart", len(found.lost), 0, exact=True, note="; ".join(found.lost))
    scene_.item("plan_written_anew", settled, 10, "s", note="a plan is a new file at each try, so that the next may succeed")
    scene_.item("predicted", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,} meanwhile")


class Found:
    """What was seen so far."""

    def __init__(self) -> None:
        self.reported = self.went_on = self.unread = 0
        self.lost: list[str] = []
        self.notes: list[str] = []


def _ask(running: Control, found: Found, part: str) -> None:
    for path, body in (("/deployments/line", {"reference": "line:2"}), ("/deployments/line/rollback", None)):
        reply = running.ask("POST", path, body)
        found.reported += reply.status in {200, 202}
        found.notes.append(f"{part}: {reply.status}")


def _succeeds(running: Control, path: str, body: object) -> bool:
    return running.ask("POST", path, body).status in {200, 202}


FAULT = Fault(
    number=16,
    name="sync-fails",
    title="fsync returns EIO",
    method=(
        "Syncs of the database, which holds the audit chain too, then of the plan fail with EIO while changes are asked for; then they succeed "
        "again, which nobody may trust: the system has forgotten what it did not write. The database is only read until another process begins. "
        "A plan is written to a new file at each try, and tried again."
    ),
    run=run,
    controls=(
        Taken(without="synced commits", misses="reported", text="commits are told of before they are on the disk."),
        Taken(without="doubt", misses="went_on", text="the next sync's success is believed."),
    ),
    headline="reported",
    may_share=True,
)
