"""Fault 24: headers and bodies by the byte, and silence."""

from __future__ import annotations

import time

from tests.faults import probes, scene
from tests.faults.callers import Caller, Callers, longest
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene

HEADERS, BODIES, SILENT = 500, 200, 200
HEADER_S, BODY_S = 10.0, 30.0
BEGUN = b"POST /v2/models/sleeper/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def run(scene_: Scene) -> None:
    traffic = scene.rows("sleeper")
    headers = [Caller(BEGUN + b"X: ", lambda turn: b"a") for _ in range(HEADERS)]
    bodies = [Caller(BEGUN + b"Content-Length: 100000\r\n\r\n", lambda turn: b" ") for _ in range(BODIES)]
    silent = [Caller() for _ in range(SILENT)]
    seconds = HEADER_S + 1 if scene_.is_control else BODY_S + 2
    with scene_.server(scene_.code_home("Sleeper"), settings={"max_batch_rows": 1}) as server:
        rate = server.capacity(traffic) / 2
        alone = server.latency(traffic, rate, seconds=1 if scene_.is_control else 6)
        server.mark()
        with Callers(server.port, [*headers, *bodies, *silent]) as callers:
            loading = server.load(traffic, connections=16, seconds=seconds, rate=rate)
            probes.wait(callers.all_closed, seconds, 0.1)
            tally = loading.end(now=True)
        scene_.item("headers_closed", longest(headers), HEADER_S, "s", note=f"the last of {HEADERS}")
        scene_.item("silent_closed", longest(silent), HEADER_S, "s", note=f"the last of {SILENT}")
        scene_.item("bodies_closed", longest(bodies), BODY_S, "s", note=f"the last of {BODIES}")
        scene_.item("others_success", tally.success, 99.9, "%", better="higher", note=f"of {tally.sent:,}")
        scene_.item("others_p99", tally.p(99) / alone, 2, "x", note=f"{tally.p(99):.1f} ms, alone {alone:.1f} ms")
        time.sleep(0.5)


FAULT = Fault(
    number=24,
    name="slowloris",
    title="900 callers who send by the byte, or nothing",
    method=(
        "500 send a header and 200 a body at one byte a second, 200 connect and stay silent. Each is timed from its own connecting to the "
        "server's last word; "
        "others ask at half of capacity."
    ),
    run=run,
    controls=(Control(without="timeouts", misses="headers_closed", text="a server that never looks how long a connection has taken."),),
    headline="headers_closed",
)
