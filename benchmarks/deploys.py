"""How long changes of the running world take, on a real `modelyard up` under traffic: a deploy, a flip back, and a guard's own way back.

One caller asks all the time and notes which version answered when; figures are from the moment at which a change was asked for (or decided) to the
last or first answer that shows it. Medians of a few rounds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.items import Item, spread
from benchmarks.serving import forest

ROUNDS = 5
TIMEOUT_S = 60.0
NAME = "forest"


def run() -> list[Item]:
    """Deploy to first answer, rollback, automatic rollback."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, home = forest(folder, challengers=1)
        (home.folder / "plan.json").unlink()
        with up(home.folder) as client, Caller(client) as caller:
            return [_deploys(client, caller), _flips(client, caller), _guarded(client, caller)]


class Caller:
    """Asks the forest all the time; which version answered when (by both clocks)."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[tuple[float, float, str]] = []
        self.failures = 0

    def __enter__(self) -> Caller:
        self._client.deploy(f"{NAME}:1", name=NAME)
        self._client.wait(NAME)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        import httpx
        from sklearn.datasets import load_breast_cancer

        rows = load_breast_cancer().data.tolist()
        url, turn = f"{self._client.status().data_plane.url}/v1/models/{NAME}:predict", 0
        with httpx.Client(trust_env=False, timeout=30) as http:
            while not self._stop.is_set():
                turn += 1
                answer = http.post(url, json={"instances": [rows[turn % len(rows)]]})
                self.failures += answer.status_code != 200
                self.answers.append((time.monotonic(), time.time(), answer.headers.get("x-model-version", "?")))
                self._stop.wait(0.002)

    def first(self, version: str, since: float) -> float:
        """When `version` answered first after `since`, by the monotonic clock."""
        return wait_for(lambda: next((at for at, _, by in list(self.answers) if at > since and by == version), None))

    def last(self, version: str) -> tuple[float, float]:
        """When `version` answered last, by both clocks; nothing if it never did."""
        return next(((at, of_day) for at, of_day, by in reversed(self.answers) if by == version), (0.0, 0.0))


def wait_for(found: Callable[[], Any]) -> Any:
    """What `found` gives once it gives something. Raises TimeoutError."""
    until = time.monotonic() + TIMEOUT_S
    while (value := found()) is None:
        if time.monotonic() > until:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.005)
    return value


@contextmanager
def up(home: Path) -> Iterator[Any]:
    """A client of `home`, which is up while the block runs."""
    from modelyard import config
    from modelyard.client import Client

    told = [sys.executable, "-m", "modelyard.cli"]
    flags = ["--home", str(home)]
    ports = ["--port", "0", "--control-port", "0", "--grpc-port", "0", "--workers", "1"]
    subprocess.run([*told, "up", "--detach", *ports, *flags], check=True, stdout=subprocess.DEVNULL)
    try:
        with Client(home=config.load({"home": home})) as client:
            yield client
    finally:
        subprocess.run([*told, "down", *flags], check=True, stdout=subprocess.DEVNULL)


def _settled(client: Any) -> Any:
    """The deployment once no rollout is under way."""
    return wait_for(lambda: found if (found := client.deployment(NAME)).rollout is None else None)


def _deploys(client: Any, caller: Caller) -> Item:
    took = []
    for turn in range(ROUNDS):
        version = str(2 - turn % 2)
        asked = time.monotonic()
        client.deploy(f"{NAME}:{version}", name=NAME)
        took.append(caller.first(version, asked) - asked)
        _settled(client)
    return _item("deploy-to-first-answer", took, bar=2.0, note=f"a forest of 100 trees, gates included; {caller.failures} failed requests")


def _flips(client: Any, caller: Caller) -> Item:
    took = []
    for _ in range(ROUNDS):
        now = client.deployment(NAME).current.version
        other = 3 - now
        client.deploy(f"{NAME}:{other}", name=NAME, strategy="blue-green")
        _settled(client)
        asked = time.monotonic()
        client.rollback(NAME)
        _settled(client)
        acknowledged = time.monotonic()
        time.sleep(0.1)
        took.append(max(acknowledged, caller.last(str(other))[0]) - asked)
    return _item("rollback", took, bar=1.0, note=f"blue-green, to the last answer of what was rolled back; {caller.failures} failed requests")


def _guarded(client: Any, caller: Caller) -> Item:
    """From the moment at which the failing verdict was reached to the last answer of the version that it is about."""
    from modelyard.client.answers import Step, Strategy

    took = []
    for _ in range(ROUNDS):
        other = 3 - client.deployment(NAME).current.version
        steps = (Step(weight=50, minimum_s=600.0), Step(weight=100))
        client.deploy(f"{NAME}:{other}", name=NAME, strategy=Strategy(kind="canary", steps=steps, guards=("disagreement<0.1%",), mirror=1.0))
        _settled(client)
        time.sleep(0.5)
        ended = client.history(NAME)[-1]
        if ended.what != "back":
            raise RuntimeError(f"the canary was to go back by itself, and ended as {ended.what}: {ended.why}")
        took.append(max(0.0, caller.last(str(other))[1] - datetime.fromisoformat(ended.at).timestamp()))
    return _item(
        "automatic-rollback", took, bar=5.0, note=f"a canary of 50 %, from the verdict to its last answer; {caller.failures} failed requests"
    )


def _item(name: str, took: list[float], *, bar: float, note: str) -> Item:
    return Item(name=name, figure=statistics.median(took), unit="s", bar=bar, better="lower", note=f"{spread(took, ' s')}; {note}")
