"""Fault 5: memory and descriptors over many requests."""

from __future__ import annotations

from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene

REQUESTS = 20_000


def run(scene_: Scene) -> None:
    with scene_.server(scene_.home("line"), workers=1) as server:
        good = _half(scene_, server)
        half = server.holds()
        server.mark()
        good = min(good, _half(scene_, server))
        after = server.holds()
        scene_.item("success", good, 100, "%", better="higher", exact=True)
        scene_.item("grown", (after[1] - half[1]) / 1e6, 20, "MB", note=f"{half[1] / 1e6:.0f} MB at half-time")
        scene_.item("descriptors", after[0] - half[0], 0, exact=True)
    if not scene_.is_control:
        _watched(scene_)


def _watched(scene_: Scene) -> None:
    """The product's own watch over models that are code: it says so of one that keeps 100 KB of every batch, and of no other."""
    with scene_.server(scene_.code_home("Leaker", "Sleeper"), settings={"max_batch_rows": 1}, mark=False) as server:
        server.is_ended = True  # this one may have grown
        leaks = server.load(scene.rows("leaker"), connections=4, seconds=90, rate=60)
        other = server.load(scene.rows("sleeper"), connections=4, seconds=90, rate=60)
        flagged = probes.wait(lambda: _flagged(server) > 0, 80, 0.5)
        scene_.item("leaker_flagged", flagged, 60, "s", note="by the worker's state: isolated-memory")
        scene_.item("others_flagged", max(0, _flagged(server) - 1), 0, exact=True)
        leaks.end(now=True)
        other.end(now=True)


def _flagged(server: scene.Server) -> int:
    return (server.home.run / "worker-0.json").read_bytes().count(b"isolated-memory")


def _half(scene_: Scene, server: scene.Server) -> float:
    """Half of the requests; gives the share answered rightly, in percent."""
    if not scene_.is_long:
        return server.load(scene.line(), connections=16, seconds=120, count=REQUESTS // 2).end().success
    minutes = range(max(1, int(scene_.limit_s / 120)))  # one by one, so that the client holds the records of one
    return min(server.load(scene.line(), connections=16, seconds=60, rate=1000).end().success for _ in minutes)


FAULT = Fault(
    number=5,
    name="leak",
    title="20,000 requests, or 2 h of them",
    method=(
        "20,000 requests over 16 connections; resident memory and descriptors of all processes at half-time and at the end. "
        "Then a model that is code and keeps 100 KB of each batch must be flagged by the worker within a minute, and one that does not"
        " must not. The long form asks 1,000 times a second for FAULTS_LEAK_S (7,200 s)."
    ),
    run=run,
    controls=(
        Control(without="freeing", misses="grown", text="a model that keeps 64 KB of each run."),
        Control(without="freeing", misses="descriptors", text="a model that opens a file at each twentieth run."),
        Control(without="right answers", misses="wrong_answers", text="a model that is wrong by one in every hundredth run (for every fault)."),
        Control(
            without="tidiness",
            misses="aftermath",
            text="a worker that keeps files open, logs a secret and leaves a process behind (for every fault).",
        ),
    ),
    headline="grown",
)
