"""Deployments as they should be, and the port through which a target is brought there.

Hides nothing of a platform; it is the vocabulary of rollouts and targets. It must hold no clock, no network and no store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from modelyard.types import Digest, Placement, ServeState, TrafficPlan, Verdict, WorkerState

HISTORY = 100  # how far back a rollback can go; older releases are no longer kept from deletion


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What can serve: a model's version, its identity, and the index by which its bytes are found."""

    model: str
    version: int
    digest: Digest
    index: Digest


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change under way: `goal` shall serve as `generation`. `holding`: loaded beside the old at weight 0; `switching`: the weights have moved."""

    kind: Literal["deploy", "rollback"]
    strategy: Literal["direct"]
    goal: Release
    generation: int
    phase: Literal["holding", "switching"]
    started_at: str
    verdicts: tuple[Verdict, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the last rollout ended: `verdict` pass, or fail with what went wrong."""

    kind: Literal["deploy", "rollback"]
    goal: Release
    generation: int
    ended_at: str
    verdict: Verdict
    gates: tuple[Verdict, ...] = ()


class Deployment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Desired state of one served name.

    `current` serves as `generation` (None while the first rollout has not ended); `previous` are the releases that a rollback goes back to, the
    latest last; `rollout` is the change under way and `last` the end of the one before.
    """

    name: str
    model: str
    generation: int
    target: str = "local"
    current: Release | None = None
    previous: tuple[Release, ...] = ()
    rollout: Rollout | None = None
    last: Outcome | None = None

    @property
    def releases(self) -> tuple[Release, ...]:
        """Every release that this deployment serves, is moving to, or may go back to."""
        moving = () if self.rollout is None else (self.rollout.goal,)
        serving = () if self.current is None else (self.current,)
        return (*self.previous, *serving, *moving)


class TargetState(msgspec.Struct, frozen=True, kw_only=True):
    """What a target says of itself: `serve` is None when no data plane runs; `workers` are those of its living slots that have reported."""

    serve: ServeState | None
    sequence: int
    workers: tuple[WorkerState, ...]


class Target(Protocol):
    """A place that serves deployments. Every method may be called again with the same arguments to no further effect."""

    def apply(self, plan: TrafficPlan, placements: Mapping[Digest, Placement]) -> int:
        """Make `plan` the desired state of its name; return the ticket by which `has_applied` tells that it is in force."""

    def remove(self, name: str) -> int:
        """Serve `name` no longer; return a ticket as `apply` does."""

    def names(self) -> tuple[str, ...]:
        """The names that have a plan here."""

    def readiness(self, digest: Digest) -> Verdict:
        """`pass` when every part that serves has `digest` ready, `fail` when one cannot (its own verdict), else `unknown`."""

    def has_applied(self, ticket: int) -> bool:
        """Whether every living part that serves acts by the plan of `ticket` or a later one; False when none lives."""

    def state(self) -> TargetState:
        """What serves here, as last reported."""
