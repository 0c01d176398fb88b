"""Fault 19: ten times what the server can do."""

from __future__ import annotations

from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene

TIMES, TIMEOUT_S, CONNECTIONS = 10, 1.0, 192
SECONDS, LONG_S, CONTROL_S = 12.0, 30.0, 6.0


def run(scene_: Scene) -> None:
    traffic = scene.rows("sleeper", headers={"X-Request-Timeout": f"{TIMEOUT_S:g}"})
    with scene_.server(scene_.code_home("Sleeper"), settings={"max_batch_rows": 1}) as server:
        capacity = server.capacity(traffic)
        alone = server.latency(traffic, capacity / 2, seconds=5)
        server.mark()
        with probes.Peak(server.worker(), every_s=0.05) as peak:
            seconds = CONTROL_S if scene_.is_control else LONG_S if scene_.is_long else SECONDS
            tally = server.load(traffic, connections=CONNECTIONS, seconds=seconds, rate=TIMES * capacity).end()
        refused = tally.of(429, 503)
        accepted = tally.p(99)
        scene_.item(
            "goodput", 100 * tally.good / seconds / capacity, 80, "%", better="higher", note=f"of C = {capacity:,.0f}/s, {tally.sent:,} asked"
        )
        scene_.item("accepted_p99", accepted / alone, 3, "x", note=f"{accepted:.1f} ms, L = {alone:.1f} ms")
        scene_.item("accepted_late", int(accepted > TIMEOUT_S * 1000), 0, exact=True, note=f"p99 above the deadline of {TIMEOUT_S:g} s")
        scene_.item("rejected_p99", tally.p(99, refused), 50, "ms", note=f"{len(refused):,} refusals")
        scene_.item("without_retry_after", int((refused["retry_after"] < 1).sum()), 0, exact=True)
        others = tally.sent - tally.good - tally.wrong - len(refused)
        scene_.item("failed_otherwise", others, 0.001 * tally.sent, note="neither answered nor refused with 429 or 503; bar: 0.1 %")
        scene_.item("grown", peak.growth_mb, 100, "MB")
        if not scene_.is_control:
            after = server.load(traffic, connections=16, seconds=9, rate=capacity / 2).end()
            late = after.records[after.is_good & (after.records["due"] > after.records["due"].min() + 4.5)]
            scene_.item("back", after.p(99, late) / alone, 1.2, "x", note=f"p99 from 4.5 s after the flood on: {after.p(99, late):.1f} ms")


FAULT = Fault(
    number=19,
    name="overload",
    title="Ten times the capacity",
    method=(
        "An isolated model of 5 ms, for 12 s (long form: 30 s) an open loop at 10 C over 192 connections with a deadline of 1 s each. "
        "A latency counts from when "
        "the request was due."
    ),
    run=run,
    controls=(Control(without="admission", misses="accepted_p99", text="a limit on concurrency that never moves."),),
    headline="goodput",
)
