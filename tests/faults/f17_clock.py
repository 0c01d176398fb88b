"""Fault 17: the clock jumps an hour ahead and a day back."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

from tests.faults import probes, scene
from tests.faults.control import Control, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene
from tests.faults.shim import Shim

from modelyard.registry.records import SqliteRecords
from modelyard.security.audit import AuditLog, Entry
from modelyard.security.identity import Keyring
from modelyard.security.keys import FileKeys
from serving import Home

HOUR, DAY, HALF, LEEWAY = 3600, 86400, 1800, 60
MODEL_MS, STAY_S = 60.0, 1.5


def run(scene_: Scene) -> None:
    home = Home(scene_.folder / "home")
    for offset in (0.0, 1000.0):
        home.add("line", offset=offset)
    home.add("slow")
    shim = Shim(scene_.folder, home.folder)
    wired = ["sleeper"]
    with (
        scene_.server(home, wired=wired, shim=shim.environment) as server,
        control(scene_, home, starts=("quick gates",), **shim.environment) as running,
    ):
        for name in ("line", "slow"):
            assert running.deploy(name, name).status == 202 and running.settled(name) is not None
        server.mark()
        expires_at = datetime.now(UTC) + timedelta(seconds=HALF)
        key = Keyring(FileKeys(home.folder / "keys" / "access.json")).add("soon", roles=("viewer",), expires_at=expires_at)
        worker = server.worker()
        loading = server.load(scene.slow(MODEL_MS, count=4), connections=4, seconds=600)
        slowest: list[float | None] = []
        denials: list[float | None] = []
        taken = running.ask("GET", "/deployments", key=key).status == 200
        for turn, ahead in enumerate((HALF - LEEWAY, HALF + LEEWAY + 1, HOUR, -DAY, 0)):
            shim.clock(ahead)
            if turn == 0:
                taken &= running.ask("GET", "/deployments", key=key).status == 200
                continue
            time.sleep(STAY_S)
            if turn == 1:
                expired = running.ask("GET", "/deployments", key=key).status
                continue
            late = running.ask("GET", "/deployments", key=key).status if turn == 2 else 401
            expired = expired if expired != 401 else late
            reply = running.deploy("line", f"line:{1 + turn % 2}")
            slowest.append(running.settled("line") if reply.status in {200, 202} else None)
            denials.append(_denied(running, home))
        replaced = int(server.worker() != worker)
        tally = loading.end(now=True)
    entries = _entries(home)
    scene_.item("predicted", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,} requests of {MODEL_MS:g} ms, 4 at a time")
    scene_.item("workers_replaced", replaced, 0, exact=True)
    scene_.item("deployed", None if None in slowest else max(filter(None, slowest)), 10, "s", note="the slowest deploy at +1 h, -1 day and 0")
    scene_.item("key_refused_early", int(not taken), 0, exact=True, note="at the start, and a minute before its end")
    scene_.item("expired_key_taken", int(expired != 401), 0, exact=True, note="61 s and half an hour after its end")
    scene_.item(
        "denial_told", None if None in denials else max(filter(None, denials)), 3, "s", note="until the audit log has a denial, which are gathered"
    )
    times = [entry.at for entry in entries]
    scene_.item("audit_out_of_order", sum(entry.sequence != place for place, entry in enumerate(entries, 1)), 0, exact=True)
    scene_.item(
        "audit_times_back", int(times != sorted(times)), 1, better="higher", exact=True, note="what was written at -1 day stands where it happened"
    )


def _entries(home: Home) -> list[Entry]:
    with closing(SqliteRecords(home.folder / "registry.sqlite")) as records:
        return list(AuditLog(records).entries())


def _denied(running: Control, home: Home) -> float | None:
    """Seconds until one more denial is in the audit log, while somebody goes on with a bad key."""
    before = sum(entry.outcome == "denied" for entry in _entries(home))

    def is_told() -> bool:
        running.ask("GET", "/deployments", key="bad")
        return sum(entry.outcome == "denied" for entry in _entries(home)) > before

    return probes.wait(is_told, 5.0, 0.2)


FAULT = Fault(
    number=17,
    name="clock",
    title="The clock jumps",
    method=(
        "The clock of data plane and control process jumps 1 h ahead, a day back, and home again, with four requests of "
        f"{MODEL_MS:g} ms always in flight, a deploy at each place, and a key that ends in half an hour."
    ),
    run=run,
    controls=(
        Taken(without="monotonic time", misses="predicted", text="durations are measured by the clock that people read."),
        Taken(without="expiry", misses="expired_key_taken", text="keys are taken whatever the time is."),
    ),
    headline="predicted",
    may_share=True,
)
