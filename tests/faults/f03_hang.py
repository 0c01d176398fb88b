"""Fault 3: models that do not come back, and a worker that does not."""

from __future__ import annotations

import os
import signal
import threading
import time

from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

POISON, TIMEOUT_S, SECONDS = 666.0, 1.0, 10.0
HANGING = ("Hanger", "Spinner")


class Health:
    """Asks /healthz/live every 50 ms on a connection of its own; keeps the longest wait."""

    def __init__(self, server: Server) -> None:
        self.longest_s = 0.0
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            began = time.monotonic()
            try:
                is_well = self._server.ask("GET", "/healthz/live", timeout=5).status == 200
            except (OSError, ValueError, AssertionError):
                is_well = False
            self.longest_s = max(self.longest_s, time.monotonic() - began if is_well else 5.0)

    def end(self) -> float:
        """The longest wait, in ms."""
        self._stop.set()
        self._thread.join()
        return self.longest_s * 1000


def run(scene_: Scene) -> None:
    if scene_.without != "heartbeats":
        _models(scene_)
    if scene_.without != "ending what hangs":
        _worker(scene_)


def _models(scene_: Scene) -> None:
    others = scene.rows("sleeper")
    settings = {"max_batch_rows": 1}
    with scene_.server(scene_.code_home(*HANGING, "Sleeper"), settings=settings) as server:
        rate = server.capacity(others, seconds=2) / 2
        alone = server.latency(others, rate, seconds=1 if scene_.is_control else 4)
        server.mark()
        health = Health(server)
        loading = server.load(others, connections=16, seconds=4 if scene_.is_control else SECONDS, rate=rate)
        late_ms, replaced_s, statuses = 0.0, 0.0, []
        for model in HANGING[: 1 if scene_.is_control else None]:
            began = time.monotonic()
            status, _ = _ask(server, model, [POISON, 0, 0, 0], TIMEOUT_S)
            statuses.append(status)
            late_ms = max(late_ms, (time.monotonic() - began - TIMEOUT_S) * 1000)
            again = probes.wait(lambda model=model: _ask(server, model, [0.5, 0, 0, 0], 0.5)[0] == 200, 6)
            replaced_s = max(replaced_s, float("inf") if again is None else again)
        tally = loading.end()
        scene_.item(
            "not_504", sum(status != 504 for status in statuses), 0, exact=True, note=f"a model that sleeps and one that computes: {statuses}"
        )
        scene_.item("told_late", late_ms, 250, "ms", note="counted from the deadline")
        scene_.item("process_replaced", replaced_s, 5, "s", note="from the 504 to the next right answer of that model")
        scene_.item("health", health.end(), 100, "ms", note="the longest wait for /healthz/live")
        scene_.item("others_p99", tally.p(99) / alone, 2, "x", note=f"{tally.p(99):.1f} ms, alone {alone:.1f} ms")
        scene_.item("others_success", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,}")


def _worker(scene_: Scene) -> None:
    """A worker that stands still (SIGSTOP): nothing in it, neither loop nor lock, goes on."""
    with scene_.server(scene_.home("line"), workers=2) as server:
        before = server.worker()
        os.kill(before, signal.SIGSTOP)
        replaced = probes.wait(lambda: server.worker() not in {0, before}, 8)
        scene_.item("worker_replaced", 9.0 if replaced is None else replaced, 5, "s")
        if replaced is None:
            os.kill(before, signal.SIGCONT)


def _ask(server: Server, model: str, values: list[float], timeout_s: float) -> tuple[int, bytes]:
    request = scene.code_request(model.lower(), values, {"Connection": "close", "X-Request-Timeout": f"{timeout_s:g}"})
    try:
        (answer,) = server.send(request, timeout=10)
        return answer.status, answer.body
    except (OSError, ValueError, AssertionError):
        return 0, b""


FAULT = Fault(
    number=3,
    name="hang",
    title="A model, or a worker, that does not come back",
    method=(
        "A model that sleeps for an hour and one that computes for ever with the interpreter's lock are asked with a time of 1 s; "
        "another model is asked at half of its capacity, "
        "and health every 50 ms. Then one of two workers is stopped (SIGSTOP)."
    ),
    run=run,
    controls=(
        Control(without="ending what hangs", misses="process_replaced", text="a process that hangs is left alone."),
        Control(without="heartbeats", misses="worker_replaced", text="a supervisor that waits for ever for a sign of life."),
    ),
    headline="told_late",
)
