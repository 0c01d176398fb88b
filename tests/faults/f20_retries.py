"""Fault 20: half of everything fails, and everybody tries again."""

from __future__ import annotations

import threading
import time

import numpy as np
from tests.faults import scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

from modelyard.client import Client
from modelyard.errors import ModelyardError

THREADS, BEFORE_S, DURING_S = 12, 0.3, 8.0
AFTER_S = 12.0
"""How long it is watched afterwards: a second longer than what may pass until a good one begins, the pause of a process that ended last included."""
POISON, RATE = 666.0, 60.0


class Callers:
    """Threads that ask through one `modelyard` client, one call after the other; keeps when each began and whether it was answered rightly."""

    def __init__(self, client: Client) -> None:
        self.calls: list[tuple[float, bool]] = []
        self.wrong = 0
        self._client = client
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        row = np.array([[0.5, 0.25, 0.125, 1.0]], np.float32)
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                answer = self._client.predict("sleeper", {"X": row})["prediction"]
                self.wrong += answer.tolist() != [1.875]
                self.calls.append((began, True))
            except ModelyardError:
                self.calls.append((began, False))
            time.sleep(0.005)

    def end(self) -> None:
        """Wait for all of them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run(scene_: Scene) -> None:
    _clients(scene_)
    if not scene_.is_control:
        _worker(scene_)


def _clients(scene_: Scene) -> None:
    with scene_.server(scene_.code_home("Sleeper"), wired=["failing upstream"]) as server:
        client = Client(data_url=server.url)
        if scene_.without == "retry budget":
            for method in ("GET", "POST"):
                client._budgets.of(f"data {method}").take = lambda: True  # type: ignore[method-assign]
        client.inputs("sleeper")
        server.mark()
        callers = Callers(client)
        fault = scene_.folder / "upstream-fails"
        time.sleep(0.0 if scene_.is_control else BEFORE_S)  # these few earn what the budget has saved up when it begins
        began = time.monotonic()
        fault.touch()
        time.sleep(DURING_S)
        ended = time.monotonic()
        asked = _asked(server)
        fault.unlink()
        calls = sum(at < ended for at, _ in list(callers.calls))
        time.sleep(1.0 if scene_.is_control else AFTER_S)
        callers.end()
        client.close()
        scene_.wrong += callers.wrong
        scene_.checked += len(callers.calls)
        during = [is_good for at, is_good in callers.calls if began <= at < ended]
        note = f"{asked:,.0f} requests for {calls:,} calls; while half failed {100 * sum(during) / max(1, len(during)):.0f} % succeeded"
        scene_.item("client_amplification", asked / calls, 1.2, "x", note=note)
        if not scene_.is_control:
            scene_.item("recovered", _recovered(callers.calls, ended), 10, "s", note="from the end of the fault to a second of which 95 % succeed")


def _asked(server: Server) -> float:
    """Requests for a prediction that reached the server."""
    return server.metric("modelyard_requests_total", "sleeper") + server.metric("modelyard_errors_total", "sleeper")


def _recovered(calls: list[tuple[float, bool]], ended: float) -> float | None:
    for tenth in range(int(AFTER_S * 10) - 10):
        at = ended + tenth / 10
        found = [is_good for began, is_good in calls if at <= began < at + 1.0]
        if found and sum(found) >= 0.95 * len(found):
            return tenth / 10
    return None


def _worker(scene_: Scene) -> None:
    """What a worker asks its models' processes again, where every second question ends one."""
    requests, accepted = [], []
    for turn in range(1200):
        values = [POISON if turn % 2 else 0.5, turn / 8, 0, 0]
        requests.append(scene.code_request("crasher", values, ident=f"{turn}"))
        accepted.append([{"prediction": [sum(values)]}])
    with scene_.server(scene_.code_home("Crasher"), wired=["counting"], mark=False) as server:
        server.is_ended = True
        tally = server.load(scene.Traffic(requests, accepted), connections=32, seconds=DURING_S, rate=RATE).end()
        asks = sum(path.stat().st_size for path in scene_.folder.glob("asks-*"))
        scene_.item(
            "worker_amplification",
            asks / tally.sent,
            1.2,
            "x",
            note=f"{asks:,} questions to processes for {tally.sent:,} requests, half of them poison",
        )
        ended = time.monotonic()
        good = scene.Traffic(requests[::2], accepted[::2])
        after = server.load(good, connections=16, seconds=AFTER_S, rate=RATE).end()
        calls = list(zip(after.records["due"].tolist(), after.is_good.tolist(), strict=True))
        scene_.item("worker_recovered", _recovered(calls, ended), 10, "s")


FAULT = Fault(
    number=20,
    name="retries",
    title="Half of everything fails, and everybody tries again",
    method=(
        "Twelve callers share one `modelyard` client (up to three tries a call); for 8 s the worker's way to its model fails every "
        "second question with 503. Requests that reached "
        "the server over calls made. Then every second question to a model that is code ends its process: questions to its processes over requests."
    ),
    run=run,
    controls=(Control(without="retry budget", misses="client_amplification", text="a client that tries three times whatever happens."),),
    headline="client_amplification",
)
