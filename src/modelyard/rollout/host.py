"""Brings this host's data plane to what the deployments' records say, and says how far it is.

Hides order and retries: every turn derives all plans from the records again, so that it goes on from whatever it finds. A plan reaches the workers
only when the blobs that it names lie on this host, verified: workers fetch nothing. It decides nothing: which plan a record stands for is the
strategies', and when the next step comes is the driver's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from modelyard.errors import ModelyardError
from modelyard.rollout import machine
from modelyard.rollout.deployments import Deployments, Stored
from modelyard.rollout.hosts import HostReport, Membership
from modelyard.targets.base import Release, Target
from modelyard.types import Digest, Placement, TrafficPlan, Verdict


class Stock(Protocol):
    """The bundles' bytes on this host."""

    def place(self, release: Release) -> Placement | None:
        """Where the bytes of `release` lie here, whole and verified; None while they are being brought. Never waits for the network.

        Raises what keeps them from being here; then a later call may try again.
        """


class Derived(NamedTuple):
    """A deployment's record at one revision, the plan that it stands for, and the ticket since which this host has that plan in its file."""

    revision: int
    plan: TrafficPlan | None
    ticket: int


class Host:
    """Carries out all deployments on one host. `tick` from one thread at a time; `report` and `rollouts` may be read from others."""

    def __init__(
        self,
        deployments: Deployments,
        target: Target,
        *,
        stock: Stock,
        membership: Membership,
        control: str | None = None,
    ) -> None:
        self._deployments = deployments
        self._target = target
        self._stock = stock
        self._membership = membership
        self._derived: dict[str, Derived] = {}
        self._trouble: dict[str, str] = {}
        self.rollouts: dict[str, tuple[int, ...]] = {}
        """The generations of each rollout under way, as last read: what evidence is wanted of."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.report = HostReport(id=membership.id, instance=membership.instance, started_at=now, control=control)

    def tick(self) -> bool:
        """Bring everything one step on and renew `report`; whether something is under way here, so that the next tick should come soon.

        What fails for one deployment is told in the report and tried again at the next tick; it does not hold up the others.
        """
        stored = self._deployments.all()
        ticket = self._converge(stored)
        self._say(stored, ticket)
        self.rollouts = {each.deployment.name: each.deployment.rollout.generations for each in stored if each.deployment.rollout is not None}
        return bool(self.report.lagging) or any(each.deployment.rollout is not None for each in stored)

    def written(self) -> bool:
        """Write the report down where it says something new; whether it was written."""
        return self._membership.publish(self.report)

    def _converge(self, stored: Sequence[Stored]) -> int | None:
        # One place per digest for the whole turn: two deployments may have one digest from versions with an index each, and must not take turns.
        releases = {release.digest: release for each in stored for release in each.deployment.releases}
        plans: dict[str, TrafficPlan | None] = {}
        placements: dict[Digest, Placement] = {}
        self._trouble = {}
        for each in stored:
            name = each.deployment.name
            try:
                plan = machine.plan(each.deployment)
                places = {digest: self._stock.place(releases[digest]) for digest in (() if plan is None else plan.digests)}
            except ModelyardError as error:
                self._trouble[name] = error.message
                continue
            here = {digest: place for digest, place in places.items() if place is not None}
            if len(here) == len(places):
                plans[name] = plan
                placements |= here
        late = {each.deployment.name for each in stored} - plans.keys()
        try:
            ticket = self._target.converge([plan for plan in plans.values() if plan is not None], placements, keep=late)
        except ModelyardError as error:
            self._trouble |= dict.fromkeys(plans, error.message)
            self._derived = {}
            return None
        before, self._derived = self._derived, {}
        for each in stored:
            name = each.deployment.name
            if name in plans:
                known = before.get(name)
                since = ticket if known is None or known.plan != plans[name] else known.ticket
                self._derived[name] = Derived(each.revision, plans[name], since)
        return ticket

    def _say(self, stored: Sequence[Stored], ticket: int | None) -> None:
        state = self._target.state()
        is_in_line = ticket is not None and self._target.has_applied(ticket)
        applied: dict[str, int] = {}
        judged: dict[str, int] = {}
        readiness: dict[Digest, Verdict] = {}
        lagging: list[str] = []
        failing = {
            digest: why for worker in state.workers for digest, model in worker.models.items() if model.state == "ready" and (why := model.failure)
        }
        for each in stored:
            name = each.deployment.name
            derived = self._derived.get(name)
            is_in_force = derived is not None and (is_in_line or self._target.has_applied(derived.ticket))
            if not is_in_force:
                lagging.append(name)
            if each.deployment.rollout is None:
                if each.deployment.current is not None and each.deployment.current.digest in failing:
                    readiness[each.deployment.current.digest] = failing[each.deployment.current.digest]
                continue
            if derived is not None and is_in_force:
                applied[name] = each.revision
            if derived is not None and derived.plan is not None:
                readiness |= {digest: self._target.readiness(digest, since=derived.ticket) for digest in derived.plan.digests}
                judged[name] = each.revision
        self.report = msgspec.structs.replace(
            self.report,
            data=None if state.serve is None else state.serve.url,
            workers=0 if state.serve is None else len(state.serve.slots),
            # A host that has come back acts by every record that it can before a step waits for it; from then on each step does.
            counts=self.report.counts or (is_in_line and self._trouble.keys() >= set(lagging)),
            applied=applied,
            judged=judged,
            readiness=readiness,
            lagging=tuple(lagging),
            trouble=self._trouble,
        )
