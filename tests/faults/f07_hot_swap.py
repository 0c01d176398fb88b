"""Fault 7: 20 hot swaps under load."""

from __future__ import annotations

import time

from tests.faults import probes, scene
from tests.faults.control import CONVERGED_S, control
from tests.faults.control import Control as Process
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server, Tally, Traffic

from serving import Home

SWAPS, SECONDS, EVERY_S, ROWS = 20, 30.0, 1.1, 3
DEPLOYS, SHARE = 5, 4
"""Swaps by the control API, at this part of the capacity: the control process has a share of the server's core."""
OFFSETS = (0.0, 1000.0, 2000.0)


def run(scene_: Scene) -> None:
    home = Home(scene_.folder / "home")
    versions = [home.add("line", offset=offset) for offset in OFFSETS]
    home.deploy("line", {versions[0]: 100})
    traffic = scene.line(offsets=OFFSETS, rows=ROWS)
    swaps, every_s = (3, 0.5) if scene_.is_control else (SWAPS, EVERY_S)
    with scene_.server(home, workers=2) as server:
        capacity = server.capacity(traffic, seconds=2, most=4000)
        server.mark()
        loading = server.load(traffic, connections=16, seconds=SECONDS + 30, rate=capacity / 2)
        began, spans = time.monotonic(), []
        for turn in range(1, swaps + 1):
            time.sleep(max(0.0, began + (turn - 1) * every_s - time.monotonic()))
            if spans:
                spans[-1][1] = time.monotonic()
            _swap(server, home, versions[(turn - 1) % 3], versions[turn % 3])
            spans.append([time.monotonic(), 0.0, turn % 3])
        time.sleep(0.5)
        spans[-1][1] = time.monotonic()
        took_s = spans[-1][0] - began
        tally = loading.end(now=True)
        failed = tally.sent - tally.good - tally.wrong
        scene_.item("failed", failed, 0, exact=True, note=f"of {tally.sent:,} requests at {capacity / 2:,.0f}/s")
        scene_.item(
            "stale_after_ack", _stale(tally, spans), 0, exact=True, note="answers of the old version to requests sent after the swap was acknowledged"
        )
        scene_.item("mixed", tally.wrong, 0, exact=True, note=f"answers of {ROWS} rows that are no one version's")
        scene_.item("swaps", swaps, swaps, better="higher", exact=True)
        scene_.item("took", took_s, SECONDS, "s")
    if scene_.judges_aftermath:
        _deployed(scene_, traffic)


def _deployed(scene_: Scene, traffic: Traffic) -> None:
    """Swaps as users ask for them: deploys by the control API, acknowledged when the record says that the version serves."""
    home = Home(scene_.folder / "deployed")
    for offset in OFFSETS:
        home.add("line", offset=offset)
    with scene_.server(home, workers=2) as server, control(scene_, home, starts=("quick gates",)) as running:
        _deploy(running, 0)
        capacity = server.capacity(traffic, seconds=2, most=4000)
        server.mark()
        loading = server.load(traffic, connections=16, seconds=120, rate=capacity / SHARE)
        spans: list[list[float]] = []
        for turn in range(1, DEPLOYS + 1):
            if spans:
                spans[-1][1] = time.monotonic()
            _deploy(running, turn % 3)
            spans.append([time.monotonic(), 0.0, turn % 3])
            time.sleep(0.5)
        spans[-1][1] = time.monotonic()
        tally = loading.end(now=True)
    failed = tally.sent - tally.good - tally.wrong
    scene_.item("deployed_failed", failed, 0, exact=True, note=f"of {tally.sent:,} requests during {DEPLOYS} deploys at {capacity / SHARE:,.0f}/s")
    scene_.item("deployed_stale", _stale(tally, spans), 0, exact=True, note="answers of the old version to requests sent after the deploy was done")
    scene_.item("deployed_mixed", tally.wrong, 0, exact=True, note=f"answers of {ROWS} rows that are no one version's")


def _deploy(running: Process, turn: int) -> None:
    """Deploy version `turn` + 1, and wait until the API says that it serves."""
    reply = running.deploy("line", f"line:{turn + 1}")
    assert reply.status == 202, reply

    def serves() -> bool:
        told = running.ask("GET", "/deployments/line").json()
        return not told.get("rollout") and told["current"]["version"] == turn + 1

    assert probes.wait(serves, CONVERGED_S, 0.01) is not None, f"version {turn + 1} does not serve"


def _stale(tally: Tally, spans: list[list[float]]) -> int:
    """Right answers of another version than the one that was in force, by acknowledgement, from before the request to after it."""
    records = tally.records
    stale = 0
    for start, end, version in spans:
        inside = (records["sent"] > start) & (records["sent"] < end) & tally.is_good
        stale += int((records["match"][inside] != version).sum())
    return stale


def _swap(server: Server, home: Home, old: object, new: object) -> None:
    """As a rollout does it: hold the new one ready, then move the weights; acknowledged when every worker says so."""
    server.wait(sequence=home.deploy("line", {old: 100}, hold=(new,)))
    server.wait(sequence=home.deploy("line", {new: 100}))


FAULT = Fault(
    number=7,
    name="hot-swap",
    title="20 hot swaps in 30 s",
    method=(
        "Two workers, three versions whose answers differ, requests of three rows in an open loop at half of the capacity; 20 swaps, each "
        "of two plans, "
        "acknowledged when every worker reports the second. "
        f"Then {DEPLOYS} deploys by the control API, at a quarter of the capacity, each acknowledged when the API says that the version serves."
    ),
    run=run,
    controls=(
        Control(without="loading beside", misses="failed", text="the old version goes before the new one is there."),
        Control(without="true acknowledgement", misses="stale_after_ack", text="a worker acknowledges a plan 0.3 s before it applies it."),
        Control(without="one version an answer", misses="mixed", text="the first row of an answer comes from the run before."),
    ),
    headline="failed",
)
