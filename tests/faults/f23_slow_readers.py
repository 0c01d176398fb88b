"""Fault 23: callers who ask for much and read one byte a second."""

from __future__ import annotations

import time

from tests.faults import probes, scene
from tests.faults.callers import Caller, Callers
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene

READERS, SECONDS = 100, 8.0
ASKED = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 80


def run(scene_: Scene) -> None:
    traffic = scene.rows("sleeper")
    with scene_.server(scene_.code_home("Sleeper"), settings={"max_batch_rows": 1}) as server:
        rate = server.capacity(traffic) / 2
        alone = server.latency(traffic, rate, seconds=1 if scene_.is_control else SECONDS)
        server.mark()
        readers = [Caller(b"", lambda turn: ASKED, reads=1, receive_buffer=4096) for _ in range(READERS)]
        with probes.Peak(server.worker(), every_s=0.05) as peak, Callers(server.port, readers) as callers:
            callers.are_open.wait(10)
            tally = server.load(traffic, connections=16, seconds=SECONDS, rate=rate).end()
            unsent_mb = probes.unsent(server.port) / 1e6
        scene_.item(
            "per_reader", (peak.growth_mb + unsent_mb) / READERS, 1, "MB", note=f"in all {peak.growth_mb:.1f} MB, and {unsent_mb:.1f} in the system"
        )
        scene_.item("others_p99", tally.p(99) / alone, 1.5, "x", note=f"{tally.p(99):.1f} ms, alone {alone:.1f} ms")
        scene_.item("others_success", tally.success, 100, "%", better="higher", exact=True)
        time.sleep(0.5)


FAULT = Fault(
    number=23,
    name="slow-readers",
    title="100 callers who read one byte a second",
    method=(
        "Each asks 80 times a second for the API document (7 KB) and reads one byte a second, through a receive buffer of 4 KB. The memory "
        "of the worker over its own before "
        "and what the system holds unsent; the p99 of others "
        "at half of capacity over theirs before."
    ),
    run=run,
    controls=(Control(without="back-pressure", misses="per_reader", text="a server that reads on while its answers heap up."),),
    headline="per_reader",
)
