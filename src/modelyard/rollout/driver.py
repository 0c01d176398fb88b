"""Brings each target to what the deployments' records say, step by step, from whatever it finds.

Hides clocks, order and retries. Every step is: apply the plan of the record (again, if it was), look, write the next state, so that a driver that is
killed at any moment is continued by the next one. One driver per home runs at a time. It must not decide: strategies do.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from modelyard.errors import Conflict, ModelyardError
from modelyard.rollout import machine
from modelyard.rollout.deployments import Deployments, Stored
from modelyard.targets.base import Deployment, Target
from modelyard.types import Digest, Placement, TrafficPlan

ALLOWED_S = 120.0
"""How long one phase of a rollout may take before it goes back: a large model loads and replays its golden rows in that time."""


class Driver:
    """Drives all deployments of one home. `tick` from one thread at a time; `trouble` may be read from others."""

    def __init__(
        self,
        deployments: Deployments,
        targets: Mapping[str, Target],
        *,
        blobs: Path,
        allowed_s: float = ALLOWED_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployments = deployments
        self._targets = targets
        self._blobs = str(blobs)
        self._allowed_s = allowed_s
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[str, tuple[tuple[int, str], float]] = {}
        self._indexes: dict[Digest, Digest] = {}
        self.trouble: dict[str, str] = {}

    def tick(self) -> bool:
        """Bring everything one step on; whether a rollout is under way, so that the next tick should come soon.

        What fails for one deployment is kept in `trouble` and tried again at the next tick; it does not hold up the others.
        """
        with self._lock:
            stored = self._deployments.all()
            # One place per digest for the whole tick: two deployments may have one digest from versions with an index each, and must not take turns.
            self._indexes = {release.digest: release.index for each in stored for release in each.deployment.releases}
            is_moving = False
            with contextlib.suppress(ModelyardError):  # what fails here fails below for each deployment, whose trouble tells it
                self._remove_strays({each.deployment.name for each in stored})
            for each in stored:
                name = each.deployment.name
                try:
                    is_moving |= self._drive(each)
                    self.trouble.pop(name, None)
                except Conflict:
                    is_moving = True  # someone changed it meanwhile: the next tick reads it again
                except ModelyardError as error:
                    self.trouble[name] = error.message
                    is_moving |= each.deployment.rollout is not None
            return is_moving

    def _drive(self, stored: Stored) -> bool:
        deployment = stored.deployment
        target = self._targets[deployment.target]
        ticket = self._apply(target, deployment)
        if deployment.rollout is None:
            self._since.pop(deployment.name, None)
            return False
        seen = machine.Seen(
            readiness=target.readiness(deployment.rollout.goal.digest),
            acknowledged=target.has_applied(ticket),
            is_over=self._is_over(deployment.name, (deployment.rollout.generation, deployment.rollout.phase)),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        following = machine.advance(deployment, seen)
        if following != deployment:
            stored = self._deployments.put(following, expected=stored.revision)
            self._since.pop(deployment.name, None)  # a generation that went back is given again, and its next try has the whole time
            self._apply(target, stored.deployment)
        return stored.deployment.rollout is not None

    def _apply(self, target: Target, deployment: Deployment) -> int:
        plan = machine.plan(deployment)
        if plan is None:
            return target.remove(deployment.name)
        return target.apply(plan, self._placements(plan))

    def _placements(self, plan: TrafficPlan) -> dict[Digest, Placement]:
        return {digest: Placement(blobs=self._blobs, index=self._indexes[digest]) for digest in plan.digests}

    def _is_over(self, name: str, phase: tuple[int, str]) -> bool:
        known, since = self._since.get(name, (None, 0.0))
        if known != phase:
            since = self._clock()
            self._since[name] = (phase, since)
        return self._clock() - since > self._allowed_s

    def _remove_strays(self, names: set[str]) -> None:
        for target in self._targets.values():
            for name in target.names():
                if name not in names:
                    target.remove(name)
