"""The data plane of this machine, steered by one plan file and watched by the files that its processes write.

Hides the sequence number of the plan and which reports can be believed. It must not start, stop or import the data plane, and it is the only
writer of the plan file: one control process per home, one thread at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from modelyard.errors import MalformedPayload, NotFound
from modelyard.targets.base import TargetState
from modelyard.types import (
    Digest,
    HostPlan,
    Placement,
    ServeState,
    TrafficPlan,
    Verdict,
    WorkerState,
    read_plan,
    read_serve_state,
    read_worker_state,
    write_plan,
)


class Local:
    """The one local target of a home. Law: converging on what is already there writes nothing and keeps the sequence."""

    def __init__(self, *, plan: Path, run: Path) -> None:
        self._path = plan
        self._run = run
        self._lock = threading.Lock()

    def remove(self, name: str) -> int:
        """See `Target.remove`."""
        with self._lock:
            now = self._read()
            return self._write(now, tuple(plan for plan in now.plans if plan.name != name), now.placements)

    def converge(self, plans: Iterable[TrafficPlan], placements: Mapping[Digest, Placement], *, keep: Collection[str] = ()) -> int:
        """See `Target.converge`."""
        with self._lock:
            now = self._read()
            wanted = {plan.name: plan for plan in now.plans if plan.name in keep} | {plan.name: plan for plan in plans}
            return self._write(now, tuple(wanted.values()), {**now.placements, **placements})

    def readiness(self, digest: Digest, *, since: int = 0) -> Verdict:
        """See `Target.readiness`."""
        serve, workers = self._reports()
        if serve is None or not serve.slots:
            return Verdict(outcome="unknown", rule="ready", evidence="the data plane is not running")
        states = [worker.models.get(digest) for worker in workers if worker.has_seen(since)]
        for state in states:
            if state is not None and (failure := state.failure) is not None:
                return failure
        ready = sum(state is not None and state.state == "ready" for state in states)
        return Verdict(
            outcome="pass" if ready == len(serve.slots) else "unknown",
            rule="ready",
            evidence=f"{ready} of {len(serve.slots)} workers have it ready",
        )

    def has_applied(self, ticket: int) -> bool:
        """See `Target.has_applied`."""
        serve, workers = self._reports()
        return serve is not None and 0 < len(serve.slots) == len(workers) and all(worker.sequence >= ticket for worker in workers)

    def state(self) -> TargetState:
        """See `Target.state`."""
        serve, workers = self._reports()
        return TargetState(serve=serve, sequence=self._read().sequence, workers=workers)

    def _reports(self) -> tuple[ServeState | None, tuple[WorkerState, ...]]:
        """The supervisor's report, and those of its slots' living workers; a report outlives its writer, so the writer must still run."""
        try:
            serve = read_serve_state(self._run)
        except (NotFound, MalformedPayload):
            return None, ()
        if not is_running(serve.pid):
            return None, ()
        workers = []
        for slot in serve.slots:
            try:
                worker = read_worker_state(self._run, slot)
            except (NotFound, MalformedPayload):
                continue
            if is_running(worker.pid):
                workers.append(worker)
        return serve, tuple(workers)

    def _read(self) -> HostPlan:
        try:
            return read_plan(self._path)
        except (NotFound, MalformedPayload):
            # Rebuilt from the deployments' records at the next tick; the sequence must go on above what any worker has seen.
            return HostPlan(sequence=max((worker.sequence for worker in self._reports()[1]), default=0), plans=(), placements={})

    def _write(self, now: HostPlan, plans: tuple[TrafficPlan, ...], placements: Mapping[Digest, Placement]) -> int:
        plans = tuple(sorted(plans, key=lambda plan: plan.name))
        named = {digest for plan in plans for digest in plan.digests}
        kept = {digest: place for digest, place in placements.items() if digest in named}
        if now.sequence > 0 and plans == now.plans and kept == now.placements:
            return now.sequence
        write_plan(self._path, HostPlan(sequence=now.sequence + 1, plans=plans, placements=kept))
        return now.sequence + 1


def is_running(pid: int) -> bool:
    """Whether some process has this pid now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
