"""Takes each rollout from step to step, as what the hosts report and the strategies allow.

Hides clocks and retries. Every turn is: read the records and the hosts' reports, ask the strategy, write the next state, so that a driver that is
killed at any moment is continued by the next one. It acts on no target: each host carries out the records for itself. It must not decide:
strategies do.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from modelyard.errors import Conflict, ModelyardError
from modelyard.rollout import evidence, hosts, machine
from modelyard.rollout.deployments import Deployments, Stored
from modelyard.rollout.hosts import Hosts
from modelyard.types import TrafficPlan

ALLOWED_S = 120.0
"""How long one phase of a rollout may take before it goes back: a large model loads and replays its golden rows in that time."""
SWEEP_EVERY_S = 60.0
"""How often evidence that no rollout needs any more is looked for."""
GONE_S = 3600.0
"""A host that was silent for so long is forgotten; it is known again when it reports."""


class Planned(NamedTuple):
    """A plan, the revision of the record since which it has stood, and the latest revision seen."""

    plan: TrafficPlan | None
    since: int
    latest: int


class Driver:
    """Drives all deployments of one store, for one term of its leader, under which `deployments` are written.

    `tick` from one thread at a time; `trouble` may be read from others.
    """

    def __init__(
        self,
        deployments: Deployments,
        *,
        allowed_s: float = ALLOWED_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployments = deployments
        self.hosts = Hosts(deployments.records, clock=clock)
        self._allowed_s = allowed_s
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[str, tuple[tuple[int, str], float]] = {}
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
            self._planned = {name: planned for name, planned in self._planned.items() if name in names}
            is_moving = self.has_written = False
            for each in stored:
                name = each.deployment.name
                try:
                    is_moving |= self._drive(each, reports)
                    self.trouble.pop(name, None)
                except Conflict:
                    is_moving = True  # someone changed it meanwhile: the next tick reads it again
                except ModelyardError as error:
                    self.trouble[name] = error.message
                    is_moving |= each.deployment.rollout is not None
            self._sweep(stored)
            return is_moving

    def _drive(self, stored: Stored, reports: Sequence[hosts.Seen]) -> bool:
        deployment = stored.deployment
        planned_at = self._planned_at(stored)
        if deployment.rollout is None:
            self._since.pop(deployment.name, None)
            return False
        seen = machine.Seen(
            readiness=hosts.readiness(reports, deployment.rollout.goal.digest),
            acknowledged=hosts.acknowledged(reports, deployment.name, planned_at),
            is_over=self._is_over(deployment.name, (deployment.rollout.generation, deployment.rollout.phase)),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        following = machine.advance(deployment, seen)
        if following != deployment:
            stored = self._deployments.put(following, expected=stored.revision)
            self._since.pop(deployment.name, None)  # a generation that went back is given again, and its next try has the whole time
            self._planned_at(stored, is_own=True)
            self.has_written = True
        return stored.deployment.rollout is not None

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
        known, since = self._since.get(name, (None, 0.0))
        if known != phase:
            since = self._clock()
            self._since[name] = (phase, since)
        return self._clock() - since > self._allowed_s

    def _sweep(self, stored: Sequence[Stored]) -> None:
        if self._clock() - self._swept_s >= SWEEP_EVERY_S:
            self._swept_s = self._clock()
            evidence.sweep(self._deployments.records, stored)

    def _forget(self, reports: Sequence[hosts.Seen]) -> None:
        for seen in reports:
            if seen.silent_s > GONE_S:
                with contextlib.suppress(ModelyardError):  # it has come back, or the next tick tries again
                    self.hosts.forget(seen)
