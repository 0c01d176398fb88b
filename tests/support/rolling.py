"""A store with hosts whose workers do as they are told when asked to, for tests of what carries rollouts out."""

from __future__ import annotations

import os
from pathlib import Path

from modelyard.monitor.evidence import Seen
from modelyard.registry import Registry, Version
from modelyard.registry.base import Also
from modelyard.rollout import machine
from modelyard.rollout.deployments import Deployments
from modelyard.rollout.driver import Driver
from modelyard.rollout.host import Host
from modelyard.rollout.hosts import Membership
from modelyard.targets.base import Deployment, Release
from modelyard.targets.local import Local
from modelyard.types import Digest, ModelState, Placement, ServeState, Verdict, WorkerState, read_plan, write_serve_state, write_worker_state


class Shelf:
    """Every release lies here, but those whose versions are in `missing`, and those in `broken`, which cannot be brought."""

    def __init__(self, blobs: Path) -> None:
        self.blobs = str(blobs)
        self.missing: set[int] = set()
        self.broken: dict[int, Exception] = {}

    def place(self, release: Release) -> Placement | None:
        if release.version in self.broken:
            raise self.broken[release.version]
        return None if release.version in self.missing else Placement(blobs=self.blobs, index=release.index)


class Machine:
    """One host: its own home, and two workers."""

    def __init__(self, deployments: Deployments, home: Path, *, id: str) -> None:
        self.home = home
        self.id = id
        self.deployments = deployments
        (home / "run").mkdir(parents=True, exist_ok=True)
        self.local = Local(plan=home / "plan.json", run=home / "run")
        self.shelf = Shelf(home / "blobs")
        self.restart()

    def restart(self) -> None:
        """Another control process."""
        self.membership = Membership(self.deployments.records, id=self.id, instance=os.urandom(4).hex())
        self.host = Host(self.deployments, self.local, stock=self.shelf, membership=self.membership)

    def tick(self) -> bool:
        is_moving = self.host.tick()
        self.host.written()
        return is_moving

    def renew(self) -> None:
        with self.deployments.records.transaction() as records:
            self.membership.renew(records)

    def work(self, *, failed: str | None = None, crashing: str | None = None) -> None:
        """Both workers take the plan in: every digest ready, but `failed`, and of `crashing` processes keep ending."""
        plan = read_plan(self.home / "plan.json")
        models = {digest: ModelState(state="ready") for each in plan.plans for digest in each.digests}
        for digest in models:
            if digest == failed:
                models[digest] = ModelState(state="failed", verdict=Verdict(outcome="fail", rule="load", evidence="broken"))
            if digest == crashing:
                models[digest] = ModelState(state="ready", verdict=Verdict(outcome="fail", rule="isolated-crashes", evidence="5 ended"))
        write_serve_state(self.home / "run", ServeState(pid=os.getpid(), host="h", port=1, slots=(0, 1), started_at=""))
        for slot in (0, 1):
            write_worker_state(self.home / "run", WorkerState(slot=slot, pid=os.getpid(), sequence=plan.sequence, models=models))

    def ready(self) -> set[int]:
        """The versions that the workers are to have ready."""
        return {plan.versions[digest] for plan in read_plan(self.home / "plan.json").plans for digest in plan.digests}

    def weights(self) -> dict[int, int]:
        plans = read_plan(self.home / "plan.json").plans
        return {plan.versions[digest]: weight for plan in plans for digest, weight in plan.weights.items()}


class World:
    """A store with three registered versions, one host and a driver; more hosts by `join`."""

    def __init__(self, home: Path, versions: list[Version], records: Registry) -> None:
        self.home = home
        self.versions = versions
        self.registry = records
        self.deployments = Deployments(records)
        self.now = 0.0
        self.told: list[tuple[str, str, str]] = []
        self.counts: dict[str, dict[int, dict[Digest, Seen]]] = {}
        self.machine = Machine(self.deployments, home, id="one")
        self.machines = [self.machine]
        self.driver = self.new_driver()

    def new_driver(self) -> Driver:
        return Driver(self.deployments, audited=self.audited, gather=lambda name: self.counts.get(name, {}), allowed_s=10.0, clock=lambda: self.now)

    def audited(self, action: str, subject: str, why: str) -> Also:
        return lambda transaction: self.told.append((action, subject, why))

    def join(self, id: str) -> Machine:
        self.machines.append(Machine(self.deployments, self.home / id, id=id))
        return self.machines[-1]

    def release(self, number: int) -> Release:
        version = self.versions[number - 1]
        return Release(model=version.name, version=version.version, digest=version.digest, index=version.index)

    def begin(self, number: int, *, name: str = "churn") -> None:
        found = self.deployments.find(name)
        before = found.deployment if found else Deployment(name=name, model="churn", generation=0)
        after = machine.begin(before, self.release(number), kind="deploy", gates=(), at="")
        self.deployments.put(after, expected=found.revision if found else 0)

    def turn(self) -> bool:
        """Every host one turn, the driver one, and every host another, so that the driver's step is in its plan."""
        for each in self.machines:
            each.tick()
        is_moving = self.driver.tick()
        for each in self.machines:
            each.tick()
        return is_moving

    def work(self, *, failed: int | None = None, crashing: int | None = None) -> None:
        """All workers of all hosts take their plans in."""
        digests = [None if number is None else self.release(number).digest for number in (failed, crashing)]
        for each in self.machines:
            each.work(failed=digests[0], crashing=digests[1])

    def finish(self) -> Deployment:
        for _ in range(10):
            is_moving = self.turn()
            self.work()
            if not is_moving:
                break
        return self.deployments.get("churn").deployment

    def wait(self, seconds: float, *, silent: tuple[Machine, ...] = ()) -> None:
        """Let time pass while the driver watches and all hosts but `silent` renew their leases."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            for each in self.machines:
                if each not in silent:
                    each.renew()
            self.driver.tick()

    def weights(self) -> dict[int, int]:
        return self.machine.weights()
