"""Fault 5: memory and descriptors over many requests."""

from __future__ import annotations

from tests.faults import scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene

REQUESTS = 20_000


def run(scene_: Scene) -> None:
    with scene_.server(scene_.home("line"), workers=1) as server:
        _half(scene_, server)
        half = server.holds()
        server.mark()
        _half(scene_, server)
        after = server.holds()
        scene_.item("grown", (after[1] - half[1]) / 1e6, 20, "MB", note=f"{half[1] / 1e6:.0f} MB at half-time")
        scene_.item("descriptors", after[0] - half[0], 0, exact=True)


def _half(scene_: Scene, server: scene.Server) -> None:
    if scene_.is_long:
        server.load(scene.line(), connections=16, seconds=scene_.limit_s / 2, rate=1000).end()
    else:
        server.load(scene.line(), connections=16, seconds=120, count=REQUESTS // 2).end()


FAULT = Fault(
    number=5,
    name="leak",
    title="20,000 requests, or 2 h of them",
    method=(
        "20,000 requests over 16 connections; resident memory and descriptors of all processes at half-time and at the end. "
        "The long form asks 1,000 times a second for FAULTS_LEAK_S (7,200 s)."
    ),
    run=run,
    controls=(
        Control(without="freeing", misses="grown", text="a model that keeps 64 KB of each run."),
        Control(without="freeing", misses="descriptors", text="a model that opens a file at each twentieth run."),
    ),
    headline="grown",
)
