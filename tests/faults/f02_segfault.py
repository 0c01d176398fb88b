"""Fault 2: a model that is code and reads address 0."""

from __future__ import annotations

import json
import shutil
import time
from itertools import count

from tests.faults import probes, scene
from tests.faults.control import Control as Process
from tests.faults.control import control
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

from modelyard.security.identity import Keyring
from modelyard.security.keys import FileKeys
from serving import Home

POISON, SECONDS, ENDS, BACK_S, STAYS_S = 666.0, 8.0, 5, 10.0, 3.0
FORGOTTEN_S = 3.0  # a host reports once a second
CANARY = {"kind": "canary", "steps": [{"weight": 50, "minimum_s": 600.0, "minimum_requests": 1}, {"weight": 100}]}


def run(scene_: Scene) -> None:
    if scene_.without != "going back":
        _ended(scene_)
    if scene_.without in {"", "going back", "tidiness"}:
        _left(scene_)


def _ended(scene_: Scene) -> None:
    others = scene.rows("sleeper")
    with scene_.server(scene_.code_home("Crasher", "Sleeper"), settings={"max_batch_rows": 1}) as server:
        rate = server.capacity(others, seconds=2) / 2
        server.mark()
        loading = server.load(others, connections=16, seconds=SECONDS / 2 if scene_.is_control else SECONDS, rate=rate)
        same = [_ask(server, [POISON, 0, 0, 0]) for _ in range(4)]
        time.sleep(1.5)  # the worker counts its processes' ends once a second
        ends = server.metric("modelyard_isolated_ends_total", 'model_name="crasher"')
        for turn in range(0 if scene_.is_control else 3):
            _ask(server, [POISON, turn + 1, 0, 0])
        degraded = None if scene_.is_control else probes.wait(lambda: _is_degraded(server), 5, 0.1)
        tally = loading.end()
        scene_.item(
            "callers_not_5xx", sum(not 500 <= status < 600 for status, _ in same[:2]), 0, exact=True, note="the two whose input ended a process"
        )
        scene_.item("told", max(seconds for _, seconds in same) * 1000, 1000, "ms")
        scene_.item("ended", ends, 2, exact=True, note="processes that one input ended, asked four times")
        scene_.item("not_422_then", sum(status != 422 for status, _ in same[2:]), 0, exact=True)
        scene_.item("degraded", degraded, 5, "s", note="after five ends within a minute")
        scene_.item("others_success", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,}")


def _left(scene_: Scene) -> None:
    """Version 2 ends its processes: as a canary without a guard, and once a direct deploy of it has settled. Version 1 does not."""
    scene.packaged_twice("Plain", "Crasher", name="twofold")
    home = Home.__new__(Home)
    home.folder, home.plans = scene_.folder / "twofold", {}
    shutil.copytree(scene.shelf(), home.folder)
    poison = count(1)
    with scene_.server(home, settings={"max_batch_rows": 1}) as server, control(scene_, home, starts=("quick gates",)) as running:
        _settle(running, "twofold:1")
        server.mark()
        if not scene_.is_control:
            took_s = _canary(server, running, poison)
            scene_.item("canary_back", took_s, BACK_S, "s", note="a candidate without a guard, from the fifth end to the old version answering all")
            # What ended lately is held against a version for as long as a worker has it.
            assert probes.wait(lambda: not _is_degraded(server), 60.0, 0.1) is not None
            time.sleep(FORGOTTEN_S)
        _settle(running, "twofold:2")
        for _ in range(ENDS):
            assert _ask(server, [POISON, next(poison), 0, 0], "twofold")[0] != 200
        took_s = probes.wait(lambda: _answers(server, running), BACK_S / (2 if scene_.is_control else 1), 0.05)
        scene_.item("went_back", took_s, BACK_S, "s", note="a version that has settled, from the fifth end to the old version answering all")
        if scene_.is_control:
            return
        refused = sum(_ask(server, [POISON, next(poison), 0, 0], "twofold")[0] != 200 for _ in range(ENDS))
        until = time.monotonic() + STAYS_S
        strays = 0
        while time.monotonic() < until:
            strays += not _answers(server, running)
            time.sleep(0.1)
        told = [each for each in running.ask("GET", "/deployments/twofold/history").json() if each["what"] == "rollback"]
        key = Keyring(FileKeys(home.folder / "keys" / "access.json")).add("reader", roles=("auditor",))
        listed = [each["entry"] for each in running.ask("GET", "/audit?limit=100", key=key).json()]
        audited = [each for each in listed if (each["principal"], each["action"], each["subject"]) == ("modelyard", "rollback", "twofold")]
    scene_.item("old_refused", refused, 0, exact=True, note=f"of {ENDS} inputs that end the new version, asked of the old one")
    scene_.item("left_again", strays, 0, exact=True, note=f"looks in {STAYS_S:g} s at which it was not the old version that served")
    scene_.item("told_once", abs(len(told) - 1) + sum(each["by"] != "modelyard" for each in told), 0, exact=True, note="in the history, by modelyard")
    scene_.item("audited_once", abs(len(audited) - 1), 0, exact=True, note=f"in the audit chain: {[each['detail'] for each in audited]}")


def _settle(running: Process, reference: str) -> None:
    assert running.deploy("twofold", reference).status == 202
    assert running.settled("twofold", 60.0) is not None and running.serving("twofold") == int(reference[-1])


def _canary(server: Server, running: Process, poison: count[int]) -> float | None:
    """Seconds from the fifth end of a candidate's process until the old version answers all; None: it stayed."""
    assert running.deploy("twofold", "twofold:2", strategy=CANARY).status == 202
    assert probes.wait(lambda: _rollout(running).get("phase") == "watching", 60.0, 0.05) is not None, "the canary did not begin"
    ends = 0
    while ends < ENDS:
        ends += _ask(server, [POISON, next(poison), 0, 0], "twofold")[0] != 200
    took_s = probes.wait(lambda: not _rollout(running) and _answers(server, running), BACK_S, 0.05)
    last = running.ask("GET", "/deployments/twofold").json()["last"]
    return took_s if last["verdict"]["rule"] == "isolated-crashes" else None


def _rollout(running: Process) -> dict[str, object]:
    return running.ask("GET", "/deployments/twofold").json().get("rollout") or {}


def _answers(server: Server, running: Process) -> bool:
    """Whether the old version serves by record, plan and workers, and answers."""
    (answer,) = server.send(scene.code_request("twofold", [1.0, 0, 0, 0], {"Connection": "close"}), timeout=10)
    is_old = answer.status == 200 and json.loads(answer.body)["model_version"] == "1"
    return is_old and running.serving("twofold") == 1 and running.is_settled("twofold")


def _ask(server: Server, values: list[float], name: str = "crasher") -> tuple[int, float]:
    """The status of one question, and the seconds; 0 where there was no answer."""
    began = time.monotonic()
    try:
        (answer,) = server.send(scene.code_request(name, values, {"Connection": "close"}), timeout=10)
        return answer.status, time.monotonic() - began
    except (OSError, ValueError, AssertionError):
        return 0, time.monotonic() - began


def _is_degraded(server: Server) -> bool:
    """Whether the version is said to be in trouble, where operators look."""
    return b"isolated-crashes" in (server.home.run / "worker-0.json").read_bytes()


FAULT = Fault(
    number=2,
    name="segfault",
    title="A model that ends its process",
    method=(
        "A model that is code reads address 0 on a poison input: the same input four times, then three others. Another model is asked "
        "at half of its capacity meanwhile. "
        "Degraded: the worker's state names `isolated-crashes`. Then, with a control process, a version that does so beside one that does not: as a "
        "canary of 50 % without a guard, and deployed directly, five inputs after it has settled; and such inputs asked of the one gone back to."
    ),
    run=run,
    controls=(
        Control(without="suspicion", misses="ended", text="nobody remembers which input ended a process."),
        Control(without="going back", misses="went_back", text="nothing that serves is left by itself."),
        Control(without="isolation", misses="others_success", text="the model ends the worker that serves it."),
    ),
    headline="others_success",
)
