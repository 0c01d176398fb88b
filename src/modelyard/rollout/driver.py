"""Takes each rollout from step to step, as what the hosts report and what its guards find allow.

Hides clocks and retries. Every turn is: read the records, the hosts' reports and the evidence, ask the machine, write the next state, so that a
driver that is killed at any moment is continued by the next one. It acts on no target: each host carries out the records for itself. It
must not decide: the machine does, on the verdicts of guards.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from modelyard.errors import Conflict, ModelyardError
from modelyard.rollout import evidence, gauges, history, hosts, machine
from modelyard.rollout.deployments import Deployments, Stored
from modelyard.rollout.gauges import Gauges
from modelyard.rollout.hosts import Hosts
from modelyard.rollout.judging import UNLABELLED, Gather, Judge
from modelyard.rollout.truths import Truths
from modelyard.targets.base import Deployment, Release
from modelyard.types import TrafficPlan, Verdict

if TYPE_CHECKING:
    from modelyard.registry.base import Also

ALLOWED_S = 120.0
"""How long one phase of a rollout may take before it goes back: a large model loads and replays its golden rows in that time."""
PROGRESS_S = 2.0
"""How often progress that decides nothing is written down: what a step has earned since then is earned again after a crash."""
COOLING_S = 60.0
"""How often it is of a release that is kept warm for a time."""
UNASKED = Verdict(outcome="unknown", rule="ready", evidence="nothing serves")
SWEEP_EVERY_S = 60.0
"""How often evidence that no rollout needs any more is looked for."""
GONE_S = 3600.0
"""A host that was silent for so long is forgotten; it is known again when it reports."""


class Planned(NamedTuple):
    """A plan, the revision of the record since which it has stood, and the latest revision seen."""

    plan: TrafficPlan | None
    since: int
    latest: int


Audited = Callable[[str, str, str], "Also"]
"""What tells the audit chain, in the transaction of a change, that modelyard made it: the verb, the deployment and why."""


class Driver:
    """Drives all deployments of one store, for one term of its leader, under which `deployments` are written.

    `tick` from one thread at a time; `trouble` may be read from others.
    """

    def __init__(
        self,
        deployments: Deployments,
        *,
        gather: Gather | None = None,
        asks: Gauges | None = None,
        truths: Truths | None = None,
        audited: Audited | None = None,
        allowed_s: float = ALLOWED_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployments = deployments
        self.hosts = Hosts(deployments.records, clock=clock)
        self._allowed_s = allowed_s
        self._clock = clock
        self._lock = threading.Lock()
        self._judge = Judge(gather or functools.partial(evidence.merged, deployments.records))
        self._gauges = Gauges(deployments.records, clock=clock) if asks is None else asks
        self._truths = truths
        self._audited = audited
        self._stays: dict[str, str] = {}
        self._phases: dict[str, tuple[tuple[int, str], float]] = {}
        self._steps: dict[str, tuple[tuple[object, ...], float]] = {}
        self._told: dict[str, float] = {}
        self._planned: dict[str, Planned] = {}
        self._swept_s = clock() - SWEEP_EVERY_S
        self.has_written = False
        self.trouble: dict[str, str] = {}

    def tick(self) -> bool:
        """Bring each rollout one step on; whether one is under way, so that the next tick should come soon. `has_written` says whether one went on.

        What fails for one deployment is kept in `trouble` and tried again at the next tick; it does not hold up the others.
        """
        with self._lock:
            stored = self._deployments.all()
            reports = self.hosts.look()
            self._forget(reports)
            names = {each.deployment.name for each in stored}
            for kept in (self._planned, self._phases, self._steps, self._told, self._stays):
                for name in kept.keys() - names:
                    del kept[name]
            is_moving = self.has_written = False
            for each in stored:
                name = each.deployment.name
                try:
                    is_moving |= self._drive(each, reports)
                    self.trouble.pop(name, None)
                    self._tell(name)
                except Conflict:
                    is_moving = True  # someone changed it meanwhile: the next tick reads it again
                except ModelyardError as error:
                    self.trouble[name] = error.message
                    is_moving |= each.deployment.rollout is not None
            moving = [each.deployment.name for each in stored if each.deployment.rollout is not None]
            for each_kept in (self._gauges, self._truths):
                if each_kept is not None:
                    each_kept.forget(moving)
            self._sweep(stored)
            return is_moving

    def _drive(self, stored: Stored, reports: Sequence[hosts.Seen]) -> bool:
        deployment, rollout = stored.deployment, stored.deployment.rollout
        planned_at = self._planned_at(stored)
        release = deployment.current if rollout is None else rollout.goal
        readiness = UNASKED if release is None else _readiness(reports, stored, release, planned_at)
        self._stays.pop(deployment.name, None)
        if rollout is None:
            self._phases.pop(deployment.name, None)
            self._judge.forget(deployment.name)
            if (deployment.warm is None or deployment.warm.keep_s is None) and readiness.outcome != "fail":
                self._steps.pop(deployment.name, None)
                return False
        truth = UNLABELLED
        if self._truths is not None:
            truth = self._truths.look(deployment, functools.partial(self._deployments.history, deployment.name))
        judged = self._judge.judge(deployment, readiness, self._gauges.look(deployment), truth)
        acknowledged = hosts.acknowledged(reports, deployment.name, planned_at)
        if acknowledged and readiness.outcome == "pass":
            self._phases.pop(deployment.name, None)  # it got there: a worker that starts again later has the whole time too
        now = datetime.now(UTC)
        seen = machine.Seen(
            readiness=readiness,
            acknowledged=acknowledged,
            is_over=rollout is not None and self._is_over(deployment.name, (rollout.generation, rollout.phase)),
            at=now.isoformat(timespec="milliseconds"),
            elapsed_s=self._elapsed_s(deployment),
            requests=judged.requests,
            guards=judged.guards,
            metric=judged.metric,
            served_s=_served_s(deployment, now) if rollout is None and readiness.outcome == "fail" else 0.0,
        )
        following = machine.advance(deployment, seen)
        if rollout is None and readiness.outcome == "fail" and following.rollout is None:
            self._stays[deployment.name] = (
                f"{_failing(deployment, readiness)}; there is nothing that it goes back to by itself: deploy another version"
            )
        if following != deployment and self._is_due(deployment, following):
            stored = self._put(stored, following, readiness)
            self._told[deployment.name] = self._clock()
            self._planned_at(stored, is_own=True)
            if not machine.is_progress(deployment, following):
                self._phases.pop(deployment.name, None)  # a generation that went back is given again, and its next try has the whole time
                self.has_written = True
        return stored.deployment.rollout is not None

    def _put(self, stored: Stored, following: Deployment, readiness: Verdict) -> Stored:
        """Write the next state down; a rollout that nobody asked for is told, with why, in the history and in the audit chain."""
        if stored.deployment.rollout is not None or following.rollout is None:
            return self._deployments.put(following, expected=stored.revision)
        why = _failing(stored.deployment, readiness)
        told = None if self._audited is None else self._audited("rollback", following.name, why)
        return self._deployments.put(following, expected=stored.revision, change=history.itself(why), also=told)

    def _tell(self, name: str) -> None:
        """What evidence could not be had, and what keeps failing and stays."""
        if name in self._stays:
            self.trouble[name] = self._stays[name]
        for gathering in (self._gauges, self._truths):
            if gathering is not None and name in gathering.trouble:
                self.trouble[name] = gathering.trouble[name]

    def _elapsed_s(self, deployment: Deployment) -> float:
        """How long its step has been in force (or its warm release kept): what the record says, and what has passed here since it was first seen.

        By our monotonic clock: no other machine's, and no time of day, is trusted.
        """
        rollout, warm = deployment.rollout, deployment.warm
        if rollout is not None:
            what: tuple[object, ...] = (rollout.started_at, rollout.generation, rollout.phase)
            before_s = rollout.elapsed_s if rollout.phase == "watching" else 0.0
        else:
            what, before_s = ("warm", deployment.generation), 0.0 if warm is None else warm.elapsed_s
        known = self._steps.get(deployment.name)
        if known is None or known[0] != what:
            known = self._steps[deployment.name] = (what, self._clock() - before_s)
        return self._clock() - known[1]

    def _is_due(self, before: Deployment, after: Deployment) -> bool:
        """Whether to write now: what decides something at once, mere progress now and then."""
        if not machine.is_progress(before, after):
            return True
        rest_s = PROGRESS_S if after.rollout is not None else COOLING_S
        return self._clock() - self._told.get(before.name, -math.inf) >= rest_s

    def _planned_at(self, stored: Stored, *, is_own: bool = False) -> int:
        """The oldest revision since which the plan of now has stood: a host that acts by that one acts by this one.

        It reaches back only over changes that this driver made (`is_own`): between two of anyone else's another plan may have stood.
        """
        plan = machine.plan(stored.deployment)
        known = self._planned.get(stored.deployment.name)
        is_same = known is not None and known.plan == plan and (is_own or known.latest == stored.revision)
        planned = Planned(plan, known.since if known is not None and is_same else stored.revision, stored.revision)
        self._planned[stored.deployment.name] = planned
        return planned.since

    def _is_over(self, name: str, phase: tuple[int, str]) -> bool:
        known, since = self._phases.get(name, (None, 0.0))
        if known != phase:
            since = self._clock()
            self._phases[name] = (phase, since)
        return self._clock() - since > self._allowed_s

    def _sweep(self, stored: Sequence[Stored]) -> None:
        if self._clock() - self._swept_s >= SWEEP_EVERY_S:
            self._swept_s = self._clock()
            evidence.sweep(self._deployments.records, stored)
            gauges.sweep(self._deployments.records, evidence.needed(stored))

    def _forget(self, reports: Sequence[hosts.Seen]) -> None:
        for seen in reports:
            if seen.silent_s > GONE_S:
                with contextlib.suppress(ModelyardError):  # it has come back, or the next tick tries again
                    self.hosts.forget(seen)


def _readiness(reports: Sequence[hosts.Seen], stored: Stored, release: Release, planned_at: int) -> Verdict:
    """Of a goal by those hosts that have seen that it is one; of what serves by all."""
    since = 0 if stored.deployment.rollout is None else planned_at
    return hosts.readiness(reports, release.digest, name=stored.deployment.name, since=since)


def _served_s(deployment: Deployment, now: datetime) -> float:
    """How long ago the last rollout ended, by the time of day: a day more or less is no harm here, and it outlives whoever leads."""
    return 0.0 if deployment.last is None else (now - datetime.fromisoformat(deployment.last.ended_at)).total_seconds()


def _failing(deployment: Deployment, readiness: Verdict) -> str:
    return f"version {0 if deployment.current is None else deployment.current.version} keeps failing: {readiness.evidence}"
