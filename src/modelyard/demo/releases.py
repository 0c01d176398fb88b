"""Two releases while traffic runs: a challenger that earns it, and a bad version that is sent back before it has it.

Hides how the traffic is kept up and how a rollout is followed through the command line's `--json`. It must not judge a version: modelyard does.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from modelyard.demo import bikes
from modelyard.demo.traffic import Caller, Refused
from modelyard.demo.world import World
from modelyard.errors import DeadlineExceeded
from modelyard.types import Schema

CONNECTIONS = 4
REST_S = 0.002
"""Between two requests of a connection: enough for evidence, and the demo shares the machine with what it shows."""
STEPS = "10,50,100"
STEP_S, STEP_REQUESTS = 2, 100
POLL_S = 0.1
LIMIT_S = 90.0
CHALLENGER_GUARDS = ("error_rate<1%", "p95<30ms")
BAD_GUARDS = (*CHALLENGER_GUARDS, "prediction_shift<0.2")
MISTAKEN = 60.0
"""What the bad version's labels are multiplied by: the mistake of a unit."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one version: the `weights` that it had, in order, and `why` its rollout ended.

    `answered` counts the answers meanwhile by version, `failed` the requests that got none; `errors` are mean absolute errors in bikes an hour.
    """

    version: int
    is_live: bool
    weights: tuple[int, ...]
    answered: dict[int, int]
    failed: int
    errors: dict[int, float]
    why: str
    seconds: float


def package(world: World, hours: Any, *, factor: float = 1.0) -> Any:
    """A model like the first, registered as the next version: trained on `hours` but every fifth day, on which its quality is measured. Its labels
    are `factor` times what they should be.

    Every gate lets it pass, whatever the factor: it answers just as it was trained to.
    """
    learnt, held = bikes.held_back(hours.assign(**{bikes.TARGET: hours[bikes.TARGET] * factor}))
    return bikes.package(bikes.train(learnt), learnt, held, home=world.settings.home, progress=lambda _stage, _fraction: None)


def release(world: World, reference: str, asking: Asking, *, guards: Sequence[str], tell: Callable[[str, float], None]) -> Release:
    """Deploy `reference` as a canary among requests, and follow it to its end. Raises DeadlineExceeded, or what a verb raises."""
    version = int(reference.partition(":")[2])
    started = time.monotonic()
    flags = [part for guard in guards for part in ("--guard", guard)]
    steps = ("--strategy", "canary", "--steps", STEPS, "--step-time", f"{STEP_S}s", "--step-requests", str(STEP_REQUESTS))
    with asking:
        time.sleep(STEP_S / 2)  # so that what serves now is seen before
        world.verb("deploy", reference, "--as", bikes.NAME, *steps, *flags, "--detach")
        weights, last = _followed(world, version, tell)
        time.sleep(STEP_S / 2)  # and what serves from here on
    return Release(
        version=version,
        is_live=last["verdict"]["outcome"] == "pass",
        weights=weights,
        answered={each: len(found) for each, found in sorted(asking.errors.items())},
        failed=sum(asking.failed.values()),
        errors={each: float(np.mean(found)) for each, found in sorted(asking.errors.items())},
        why=str(last["verdict"]["evidence"]),
        seconds=time.monotonic() - started,
    )


def _followed(world: World, version: int, tell: Callable[[str, float], None]) -> tuple[tuple[int, ...], Mapping[str, Any]]:
    """The weights that `version` had, by the history, and how its rollout ended."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        found = next(each for each in world.verb("status")["deployments"] if each["deployment"]["name"] == bikes.NAME)
        last = found["deployment"].get("last")
        if found["deployment"].get("rollout") is None and last["goal"]["version"] == version:
            told = world.verb("history", bikes.NAME)
            return tuple(each["weight"] for each in told if each["what"] == "step" and each.get("version") == version), last
        weight = next((each["weight"] for each in found["serving"] if each["version"] == version), 0)
        tell(f"version {version} has {weight} %", weight / 100)
        time.sleep(POLL_S)
    raise DeadlineExceeded(f"the rollout of version {version} did not end within {LIMIT_S:.0f} s")


class Asking:
    """Questions about the same hours again and again, on several connections, from `with` to its end; then it tells what it found.

    `errors` are absolute errors by the version that answered, `failed` the reasons of requests that got no answer.
    """

    def __init__(self, world: World, schema: Schema, hours: Any) -> None:
        self.errors: dict[int, list[float]] = {}
        self.failed: Counter[str] = Counter()
        self._world = world
        self._schema = schema
        self._rows = hours[list(bikes.FEATURES)].to_dict("records")
        self._labels = hours[bikes.TARGET].tolist()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(CONNECTIONS)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, index: int) -> None:
        caller = Caller(self._world.settings.host, self._world.settings.port, bikes.NAME, self._schema)
        with contextlib.closing(caller):
            while not self._stop.wait(REST_S):
                try:
                    version, value = caller.ask_whom(self._rows[index])
                except (Refused, OSError, http.client.HTTPException) as error:
                    with self._lock:
                        self.failed[str(error)] += 1
                else:
                    with self._lock:
                        self.errors.setdefault(version, []).append(abs(value - self._labels[index]))
                index = (index + CONNECTIONS) % len(self._rows)
