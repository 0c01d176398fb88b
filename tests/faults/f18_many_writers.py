"""Fault 18: many who deploy, roll back and undeploy one name at once; a small checker looks for an order that explains the answers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from contextlib import closing
from typing import NamedTuple

from tests.faults.control import Control, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene

from modelyard.registry.records import SqliteRecords
from modelyard.security.audit import AuditLog
from modelyard.security.identity import Keyring
from modelyard.security.keys import FileKeys
from serving import Home

THREADS, EACH, LONG_THREADS, LONG_EACH, VERSIONS, SEED = 16, 64, 32, 1024, 3, 18
LOSES = {404, 409}


class Act(NamedTuple):
    """One request and its answer; `version` is what it would have serve, 0 for nothing."""

    who: str
    verb: str
    version: int
    began: float
    ended: float
    status: int


def run(scene_: Scene) -> None:
    home = Home(scene_.folder / "home")
    for offset in range(VERSIONS):
        home.add("line", offset=1000.0 * offset)
    threads, each = (LONG_THREADS, LONG_EACH) if scene_.is_long else (THREADS, EACH)
    with scene_.server(home, mark=False) as server, control(scene_, home, starts=("quick gates",)) as running:
        assert running.deploy("line", "line:1").status == 202 and running.settled("line") is not None
        server.mark()
        keyring = Keyring(FileKeys(home.folder / "keys" / "access.json"))
        callers = [Caller(running, number, keyring.add(f"t{number}", roles=("admin",)), each) for number in range(threads)]
        began = time.monotonic()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        took_s = time.monotonic() - began
        settled = running.settled("line")
        last = running.serving("line")
        acts = [act for caller in callers for act in caller.acts]
    statuses = Counter(act.status for act in acts)
    order, faults = _order(home, acts)
    found = explain(order)
    faults += found.faults
    note = ", ".join(f"{count} of {status}" for status, count in sorted(statuses.items()))
    scene_.item("server_errors", sum(count for status, count in statuses.items() if status >= 500 or not status), 0, exact=True, note=note)
    others = sum(count for status, count in statuses.items() if status < 500 and status not in {0, 200, 202, *LOSES})
    scene_.item("losers_otherwise", others, 0, exact=True, note="neither accepted, nor 409, nor 404")
    scene_.item("not_linearisable", len(faults), 0, exact=True, note="; ".join(faults[:3]) or f"{len(order)} accepted in {took_s:.0f} s")
    scene_.item("final_state", int(last != found.serves), 0, exact=True, note=f"serves {last}; the last accepted says {found.serves}")
    scene_.item("settled", settled, 10, "s")


class Caller(threading.Thread):
    """One of them."""

    def __init__(self, running: Control, number: int, key: str, each: int) -> None:
        super().__init__()
        self.acts: list[Act] = []
        self._running, self._key, self._each, self._who = running, key, each, f"key:t{number}"
        self._chance = random.Random(SEED + number)
        self._seen: set[tuple[str, str] | None] = set()

    def run(self) -> None:
        for _ in range(self._each):
            verb = self._chance.choices(("deploy", "rollback", "undeploy"), (60, 25, 15))[0]
            version = self._chance.randint(1, VERSIONS) if verb == "deploy" else 0
            method, path, body = {
                "deploy": ("POST", "/deployments/line", {"reference": f"line:{version}"}),
                "rollback": ("POST", "/deployments/line/rollback", None),
                "undeploy": ("DELETE", "/deployments/line", None),
            }[verb]
            began = time.monotonic()
            reply = self._running.ask(method, path, body, key=self._key)
            rollout = reply.json().get("rollout") if reply.status in {200, 202} else None
            if rollout and verb == "rollback":
                version = rollout["goal"]["version"]
            # What serves already, or is on its way, is answered as it is, and nothing was changed.
            own = None if rollout is None else (rollout["by"], rollout["started_at"])
            is_same = verb == "deploy" and (own is None or own[0] != self._who or own in self._seen)
            self._seen.add(own)
            self.acts.append(Act(self._who, "same" if is_same else verb, version, began, time.monotonic(), reply.status))


def _order(home: Home, acts: list[Act]) -> tuple[list[Act], list[str]]:
    """The accepted acts as the audit chain has them, and what it has otherwise; each entry was written in the transaction of its change."""
    with closing(SqliteRecords(home.folder / "registry.sqlite")) as records:
        entries = [entry for entry in AuditLog(records).entries() if entry.outcome == "done" and entry.principal.startswith("key:t")]
    waiting = {who: [act for act in acts if act.who == who and act.status in {200, 202} and act.verb != "same"] for who in {act.who for act in acts}}
    order: list[Act] = []
    faults: list[str] = []
    for entry in entries:
        queue = waiting[entry.principal]
        if queue and queue[0].verb == entry.action:
            order.append(queue.pop(0))
        else:
            faults.append(f"entry {entry.sequence} ({entry.action} by {entry.principal}) is of no accepted act")
    faults += [f"{queue[0].verb} by {who} was accepted, and is not in the audit chain" for who, queue in waiting.items() if queue]
    return order, faults


class Explained(NamedTuple):
    """What does not fit, and what must serve in the end."""

    faults: list[str]
    serves: int | None


def explain(order: list[Act]) -> Explained:
    """Whether `order` respects time, and each act is possible where it stands. Pure."""
    faults: list[str] = []
    past: list[int] = [1]
    latest_began = float("-inf")
    for place, act in enumerate(order):
        if act.ended < latest_began:
            faults.append(f"{act.verb} {place} had ended before one that stands before it began")
        latest_began = max(latest_began, act.began)
        if act.verb == "deploy":
            if past and past[-1] == act.version:
                faults.append(f"deploy {place} of what served")
            past.append(act.version)
        elif act.verb == "rollback":
            if len(past) < 2 or past[-2] != act.version:
                faults.append(f"rollback {place} went to {act.version}, not to what served before")
            past = past[:-1] if len(past) > 1 else past
        else:
            if not past:
                faults.append(f"undeploy {place} of nothing")
            past = []
    return Explained(faults, past[-1] if past else None)


FAULT = Fault(
    number=18,
    name="many-writers",
    title="16 callers, 64 changes each, of one deployment",
    method=(
        "16 callers deploy, roll back and undeploy one name as fast as they are answered (in the long form 32, 1,024 times). The audit chain, "
        "written in each change's transaction, gives an order; a checker asks that it respects time, that each act was possible where it "
        "stands, and that the last one is what serves."
    ),
    run=run,
    controls=(Taken(without="compare and swap", misses="not_linearisable", text="a change is written over whatever was written meanwhile."),),
    headline="not_linearisable",
    may_share=True,
)
