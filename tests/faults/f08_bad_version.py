"""Fault 8: bad new versions: they do not load, are not themselves, have another schema, answer NaN, fail or are slow."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from tests.faults import probes, scene
from tests.faults.control import Control, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene, Server, Traffic

from serving import Home, spoilt_line

RATE, AWAY_S, CONTROL_S, SHARE, COUNT = 300.0, 30.0, 10.0, 1.0, 20
UNLOADABLE = 13.0
"""The offset by which launcher.py knows the version that does not load."""
CANARY = {"kind": "canary", "steps": [{"weight": 1, "minimum_s": 60.0, "minimum_requests": 20}, {"weight": 100}]}


class Bad(NamedTuple):
    """A bad version: what is wrong with it, how it is deployed, and whether it is refused before anything serves it."""

    what: str
    strategy: dict[str, Any] | None
    is_refused: bool = False


BAD = (
    Bad("load error", None),
    Bad("golden mismatch", None),
    Bad("wrong schema", None, is_refused=True),
    Bad("NaN", CANARY),
    Bad("errors", {**CANARY, "guards": ["error_rate<1%"]}),
    Bad("slow", {**CANARY, "guards": ["p50<3x"]}),
)
"""In the order of their versions, from 2 on."""


def run(scene_: Scene) -> None:
    home = Home(scene_.folder / "home")
    home.add("line")
    home.add("line", offset=UNLOADABLE)
    home.add("line", wrong_answers=True, offset=1.0)
    home.add("shop", name="line")
    home.add("line", offset=float("nan"))
    home.add("line", instead=spoilt_line("errors"))
    home.add("line", instead=spoilt_line("slow"))
    failed, reached, slowest = 0.0, 0, 0.0
    notes: list[str] = []
    unended: list[str] = []
    with scene_.server(home, wired=["unloadable"]) as server, control(scene_, home, starts=("quick gates",)) as running:
        assert running.deploy("line", "line:1").status == 202 and running.settled("line") is not None
        server.mark()
        for version, bad in enumerate(BAD, 2):
            if scene_.is_control and bad.what != "errors":
                continue
            loading = server.load(_traffic(), connections=16, seconds=600, rate=RATE)
            ended = _deploy(running, version, bad, CONTROL_S if scene_.is_control else AWAY_S)
            tally = loading.end(now=True)
            seen = _answered(server, version)
            failed += max(0.0, tally.sent - tally.good - (seen if bad.what == "errors" else 0))
            share = 100 * seen / max(1, tally.sent)
            # Each request is drawn for itself, so one in a hundred is met within chance: three standard deviations.
            is_over = seen > COUNT and seen > tally.sent * SHARE / 100 + 3 * (tally.sent * SHARE / 100) ** 0.5
            reached += is_over
            slowest = max(slowest, ended or 0.0)
            if ended is None or running.serving("line") != 1:
                unended.append(bad.what)
            took = "never" if ended is None else f"{ended:.1f} s"
            notes.append(f"{bad.what}: {seen:g} of {tally.sent:,} requests ({share:.2g} %), over after {took}")
    scene_.item("old_failed", failed, 0, exact=True, note="requests that were not answered, but by the version that fails")
    scene_.item("reached_too_many", reached, 0, exact=True, note="; ".join(notes))
    scene_.item("not_ended", len(unended), 0, exact=True, note=", ".join(unended) or f"each went back by itself; the slowest after {slowest:.0f} s")


def _deploy(running: Control, version: int, bad: Bad, seconds: float) -> float | None:
    """Ask for it; the seconds until it was refused or had gone back, None when it had not."""
    began = time.monotonic()
    reply = running.deploy("line", f"line:{version}", **({"strategy": bad.strategy} if bad.strategy else {}))
    if bad.is_refused:
        return time.monotonic() - began if reply.status == 422 else None
    assert reply.status == 202, reply
    if probes.wait(lambda: "rollout" not in running.ask("GET", "/deployments/line").json(), seconds, 0.1) is None:
        return None
    last = running.ask("GET", "/deployments/line").json()["last"]
    return time.monotonic() - began if last["verdict"]["outcome"] == "fail" else None


def _answered(server: Server, version: int) -> float:
    """User requests that this version answered, or failed."""
    time.sleep(1.2)  # the workers count once a second
    label = f'model_version="{version}"'
    return server.metric("modelyard_requests_total", label) + server.metric("modelyard_errors_total", label)


def _traffic() -> Traffic:
    """Live rows are not the golden ones: `a` is 1 or more."""
    requests, accepted = [], []
    for turn in range(32):
        a, b, c = 1 + turn % 8 / 8, turn * 3 % 10, turn % 4 / 4
        tensors = [
            {"name": name, "shape": [1, 1], "datatype": kind, "data": [value]}
            for name, kind, value in (("a", "FP64", a), ("b", "INT64", b), ("c", "FP32", c))
        ]
        requests.append(scene.post("/v2/models/line/infer", json.dumps({"id": f"{turn}", "inputs": tensors}).encode()))
        accepted.append([{"prediction": [a + 10 * b + 100 * c]}, {"prediction": [None]}])  # the second is what the version that answers NaN says
    return Traffic(requests, accepted)


FAULT = Fault(
    number=8,
    name="bad-version",
    title="Bad new versions",
    method=(
        "Versions that do not load, are not themselves on their golden rows, have another schema, answer NaN, fail or are slow on live rows are "
        f"deployed under {RATE:g} requests a second: directly where loading finds it out, else as a canary of 1 % with a guard (error rate, "
        "latency; none for NaN, which takes none). The gate that would refuse some of them is left out, so that the data plane has to."
    ),
    run=run,
    controls=(Taken(without="guards", misses="not_ended", text="no guard ever fails."),),
    headline="reached_too_many",
)
