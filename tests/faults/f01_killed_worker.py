"""Fault 1: workers killed one after the other while clients ask."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene

SECONDS, LONG_S, EVERY_S = 20.0, 30.0, 5.0
LEARNT_S = 0.01
"""How long after a death its clients still send: until their own loop has read that the connection is gone."""


class Prober:
    """Asks for readiness every 50 ms, each time on a connection of its own and without waiting for the last; keeps when it was answered 200."""

    def __init__(self, server: scene.Server) -> None:
        self.server = server
        self.ready: list[float] = [time.monotonic()]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asking: list[threading.Thread] = []
        while not self._stop.wait(0.05):
            thread = threading.Thread(target=self._ask, daemon=True)
            thread.start()
            asking = [each for each in [*asking, thread] if each.is_alive()]
        for thread in asking:
            thread.join()

    def _ask(self) -> None:
        if self.server.is_healthy():
            self.ready.append(time.monotonic())

    def end(self) -> float:
        """The longest time without an answer that said ready."""
        self._stop.set()
        self._thread.join()
        return float(np.diff(sorted([*self.ready, time.monotonic()])).max())


def run(scene_: Scene) -> None:
    home = scene_.code_home("Sleeper")
    traffic = scene.rows("sleeper")
    with scene_.server(home, workers=2, settings={"max_batch_rows": 1}) as server:
        if scene_.is_control:
            scene_.item("replaced", _replaced(server, 0, _kill(server, 0)), 5, "s")
            return
        capacity = server.capacity(traffic)
        seconds = LONG_S if scene_.is_long else SECONDS
        server.mark()
        prober = Prober(server)
        loading = server.load(traffic, connections=16, seconds=seconds, rate=capacity / 2, retries=1)
        began, kills, waits = time.monotonic(), [], []
        for turn in range(int(seconds / EVERY_S)):
            time.sleep(max(0.0, began + turn * EVERY_S + 2.0 - time.monotonic()))
            killed = time.monotonic()
            before = _kill(server, turn % 2)
            probes.wait(lambda before=before: not probes.is_alive(before), 1, 0.001)
            kills.append((killed, time.monotonic()))
            waits.append(_replaced(server, turn % 2, before))
        tally = loading.end()
        scene_.item("success", tally.success, 99.9, "%", better="higher", note=f"{tally.sent:,} requests, {len(kills)} kills")
        records = tally.records
        in_flight = sum(int(((records["sent"] <= dead + LEARNT_S) & (records["done"] >= killed)).sum()) for killed, dead in kills)
        lost = int((records["first"] == 0).sum())
        note = f"{lost} of {in_flight} in flight between the signals and {LEARNT_S * 1000:.0f} ms after the deaths"
        scene_.item("lost_before_retry", lost / max(1, in_flight), 1, "x", note=note)
        scene_.item("not_ready", prober.end(), 1, "s")
        longest = None if None in waits else max(wait for wait in waits if wait is not None)
        scene_.item("replaced", longest, 5, "s", note="from the kill to the successor's first state")
        scene_.item("supervisor_ended", server.process.poll() is not None, 0, exact=True)


def _kill(server: scene.Server, slot: int) -> int:
    pid = server.worker(slot)
    os.kill(pid, signal.SIGKILL)
    return pid


def _replaced(server: scene.Server, slot: int, before: int) -> float | None:
    return probes.wait(lambda: server.worker(slot) not in {0, before} and probes.is_alive(server.worker(slot)), 6)


FAULT = Fault(
    number=1,
    name="killed-worker",
    title="A worker killed every 5 s",
    method=(
        "Two workers, a model of 5 ms, 16 connections in an open loop at half of the capacity measured before, for 20 s (long form: 30"
        " s); kill -9 to the "
        "workers in turn every 5 s. "
        "The client tries once more what was lost. Readiness is asked every 50 ms on fresh connections."
    ),
    run=run,
    controls=(Control(without="restarts", misses="replaced", text="a supervisor that fills each slot once; the killed worker stays away."),),
    headline="success",
)
