"""Fault 6: SIGTERM with requests in flight that take 3 s."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter

from tests.faults import scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

IN_FLIGHT, MODEL_MS, DRAIN_S = 8, 3000.0, 8.0


def run(scene_: Scene) -> None:
    with scene_.server(scene_.home("slow", "line"), workers=2, wired=["sleeper"], settings={"drain_timeout_s": DRAIN_S}) as server:
        server.is_ended = True
        loading = server.load(scene.slow(MODEL_MS, count=IN_FLIGHT), connections=IN_FLIGHT, seconds=60, count=IN_FLIGHT)
        time.sleep(1.0)
        server.process.send_signal(signal.SIGTERM)
        newcomers = Newcomers(server)
        code, took_s = _exit(server, DRAIN_S + 3)
        outcomes = newcomers.end()
        tally = loading.end(now=True)
        scene_.item("finished", tally.success, 100, "%", better="higher", exact=True, note=f"{IN_FLIGHT} requests of {MODEL_MS / 1000:g} s")
        scene_.item("newcomers_hung", outcomes["hung"], 0, exact=True, note=", ".join(f"{count} {what}" for what, count in sorted(outcomes.items())))
        scene_.item("newcomers_served_late", outcomes["served late"], 0, exact=True, note="a prediction begun later than 1 s after the signal")
        scene_.item("exit", took_s, DRAIN_S + 1, "s")
        scene_.item("exit_code", code, 0, exact=True)
    if not scene_.is_control:
        _second(scene_)


def _second(scene_: Scene) -> None:
    with scene_.server(scene_.home("slow"), workers=2, wired=["sleeper"], settings={"drain_timeout_s": 60}) as server:
        server.is_ended = True
        loading = server.load(scene.slow(20_000, count=2), connections=2, seconds=60, count=2)
        time.sleep(0.7)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        server.process.send_signal(signal.SIGTERM)
        _, took_s = _exit(server, 10)
        scene_.item("exit_at_second_signal", took_s, 1, "s")
        loading.end(now=True)


def _exit(server: Server, seconds: float) -> tuple[int | None, float | None]:
    began = time.monotonic()
    try:
        return server.process.wait(seconds), time.monotonic() - began
    except subprocess.TimeoutExpired:
        return None, None


class Newcomers:
    """Somebody new every 50 ms from the signal on; each must be answered, refused or let go within 1 s."""

    def __init__(self, server: Server) -> None:
        self.outcomes: Counter[str] = Counter()
        self._server = server
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._asking: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            thread = threading.Thread(target=self._ask, daemon=True)
            thread.start()
            self._asking.append(thread)

    def _ask(self) -> None:
        began = time.monotonic()
        try:
            answers = self._request()
            outcome = self._outcome(answers, began)
        except TimeoutError:
            outcome = "hung"
        except OSError:
            outcome = "refused"
        self.outcomes["hung" if time.monotonic() - began > 1.0 else outcome] += 1

    def _request(self) -> bytes:
        with self._server.connect(timeout=1.0) as connection:
            connection.sendall(scene.line(count=1).requests[0])
            return connection.recv(65536)

    def _outcome(self, answer: bytes, began: float) -> str:
        if not answer:
            return "closed"
        head = answer.split(b"\r\n\r\n")[0].lower()
        if b" 503 " in head[:16]:
            return "503 and close" if b"connection: close" in head else "hung"
        return "served" if began - self._began <= 1.0 else "served late"

    def end(self) -> Counter[str]:
        """What became of them."""
        self._stop.set()
        self._thread.join()
        for thread in self._asking:
            thread.join()
        return self.outcomes


FAULT = Fault(
    number=6,
    name="drain",
    title="SIGTERM with requests of 3 s in flight",
    method=(
        "Two workers, 8 requests of 3 s in flight, drain limit 8 s; SIGTERM, and a newcomer every 50 ms. Then again with requests of 20 s "
        "and a second SIGTERM."
    ),
    run=run,
    controls=(
        Control(without="draining", misses="finished", text="a server that takes itself for idle at the signal."),
        Control(
            without="closing the door",
            misses="newcomers_hung",
            text="a drain that leaves the listener open, where newcomers are taken and left waiting.",
        ),
    ),
    headline="finished",
)
