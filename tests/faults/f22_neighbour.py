"""Fault 22: a neighbour who asks for ten times its share, and a flood in a lower class."""

from __future__ import annotations

from tests.faults import scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Traffic

TIMES, SECONDS, CONTROL_S = 10, 6.0, 3.0
SLOW_S = 1 / 128
"""What the noisy model sleeps: a number that is exact in binary."""


def run(scene_: Scene) -> None:
    quiet, noisy = scene.rows("sleeper"), _noisy()
    seconds = CONTROL_S if scene_.is_control else SECONDS
    with scene_.server(scene_.code_home("Sleeper", "Slow"), settings={"max_batch_rows": 1}) as server:
        capacity = server.capacity(quiet)
        if scene_.without in {"", "own process"}:
            theirs = 1 / SLOW_S if scene_.is_control else server.capacity(noisy, seconds=2)
            alone = server.latency(quiet, capacity / 2, seconds=5)
            server.mark()
            flood = server.load(noisy, connections=128, seconds=seconds + 1, rate=TIMES * theirs)
            tally = server.load(quiet, connections=16, seconds=seconds, rate=capacity / 2).end()
            flooded = flood.end()
            scene_.item("neighbour_p99", tally.p(99) / alone, 2, "x", note=f"{tally.p(99):.1f} ms, L = {alone:.1f} ms")
            scene_.item(
                "neighbour_errors", tally.sent - tally.good, 0, exact=True, note=f"of {tally.sent:,}; the noisy one had {flooded.success:.0f} %"
            )
        if scene_.without in {"", "classes"}:
            flood = server.load(scene.rows("sleeper", headers={"X-Priority": "low"}), connections=128, seconds=seconds + 1, rate=TIMES * capacity)
            high = scene.rows("sleeper", headers={"X-Priority": "high"})
            tally = server.load(high, connections=16, seconds=seconds, rate=0.3 * capacity).end()
            flood.end()
            scene_.item("high_class", tally.success, 99, "%", better="higher", note=f"of {tally.sent:,} beside {TIMES} C of the low class")


def _noisy() -> Traffic:
    values = [SLOW_S, 0.5, 0.25, 0.125]
    return Traffic([scene.code_request("slow", values)], [[{"prediction": [sum(values)]}]])


FAULT = Fault(
    number=22,
    name="neighbour",
    title="A noisy neighbour, and a flood in a lower class",
    method=(
        "Model A is asked for ten times its capacity while model B, in the same worker, is asked for half of its own. Then B is "
        "flooded in the class `low` (10 C) while the class "
        "`high` asks for 0.3 C."
    ),
    run=run,
    controls=(
        Control(without="own process", misses="neighbour_p99", text="the noisy model runs on the worker's event loop."),
        Control(without="classes", misses="high_class", text="a server that takes every class for the same."),
    ),
    headline="neighbour_p99",
)
