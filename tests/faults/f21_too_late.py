"""Fault 21: requests whose time has passed, and requests whose caller has left."""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress

from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

MODEL_MS, TIMEOUT_S, ASKED = 200.0, 0.5, 40
HELD_MS, LEAVING = 1500.0, 100
SLACK_S = 0.05
"""From this client's sending to the server's having it whole."""


def run(scene_: Scene) -> None:
    with scene_.server(scene_.home("slow"), wired=["sleeper", "recorder"], settings={"max_batch_rows": 1}) as server:
        _deadlines(scene_, server)
        _leaving(scene_, server)


def executions(scene_: Scene) -> dict[float, float]:
    """When the model ran for each input: the input -> the time."""
    found = {}
    for path in scene_.folder.glob("executions-*.log"):
        for line in path.read_text().splitlines():
            at, *values = map(float, line.split())
            found |= dict.fromkeys(values, at)
    return found


def _deadlines(scene_: Scene, server: Server) -> None:
    requests = [scene.slow(MODEL_MS + turn / 8, headers={"X-Request-Timeout": f"{TIMEOUT_S}"}) for turn in range(ASKED)]
    traffic = scene.Traffic([each.requests[0] for each in requests], [each.accepted[0] for each in requests])
    tally = server.load(traffic, connections=ASKED, seconds=20, count=ASKED).end()
    time.sleep(0.5)
    ran = executions(scene_)
    late = asked = 0
    for record in tally.records:
        begun = ran.get(MODEL_MS + record["request"] / 8)
        asked += begun is not None
        late += begun is not None and begun > record["sent"] + TIMEOUT_S + SLACK_S
    scene_.item("run_late", late, 0, exact=True, note=f"of {tally.sent} requests with {TIMEOUT_S} s, {asked} ran")
    over_s = float((tally.records["done"] - tally.records["sent"]).max()) - TIMEOUT_S
    scene_.item("told_late", over_s * 1000, 250, "ms", note="the last answer, counted from its deadline")


def _leaving(scene_: Scene, server: Server) -> None:
    holding = server.load(scene.slow(HELD_MS), connections=1, seconds=10, count=1)
    probes.wait(lambda: HELD_MS in executions(scene_), 5)
    sockets = []
    for turn in range(LEAVING):
        connection = server.connect()
        connection.sendall(scene.slow(1000.0 + turn).requests[0])
        sockets.append(connection)
    queued = probes.wait(lambda: _queued(server) >= LEAVING, 1)
    for turn, connection in enumerate(sockets):
        if turn % 2:  # half of them with a reset, half as a client closes that has not read all
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    holding.end()
    time.sleep(1.0 if not scene_.is_control else 3.0)
    ran = executions(scene_)
    scene_.item("queued", None if queued is None else LEAVING, LEAVING, better="higher", exact=True)
    scene_.item("run_for_nobody", sum(1000.0 + turn in ran for turn in range(LEAVING)), 0, exact=True, note=f"of {LEAVING} whose caller closed")


def _queued(server: Server) -> int:
    with suppress(OSError, AssertionError):
        found = re.search(rb"modelyard_queue_rows\{[^}]*\} (\d+)", server.ask("GET", "/metrics").body)
        return int(found[1]) if found else 0
    return 0


FAULT = Fault(
    number=21,
    name="too-late",
    title="Requests past their deadline, and 100 whose callers left",
    method=(
        "A model of 200 ms gets 40 requests at once, each with 0.5 s; its executions are written down beside it. Then, behind a request of "
        "1.5 s, 100 callers ask and close, "
        "half of them with a reset."
    ),
    run=run,
    controls=(
        Control(without="deadlines", misses="run_late", text="a queue that gives the model whatever waits."),
        Control(without="deadlines", misses="run_for_nobody", text="the same queue does not ask whether somebody still waits."),
    ),
    headline="run_for_nobody",
)
