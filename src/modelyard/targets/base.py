"""Deployments as they should be, and the port through which a target is brought there.

Hides nothing of a platform; it is the vocabulary of rollouts and targets. It must hold no clock, no network and no store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, Protocol

import msgspec

from modelyard.types import Digest, Placement, ServeState, TrafficPlan, Verdict, WorkerState

HISTORY = 100  # how far back a rollback can go; older releases are no longer kept from deletion
MAX_TIME_S = 86_400.0


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What can serve: a model's version, its identity, and the index by which its bytes are found."""

    model: str
    version: int
    digest: Digest
    index: Digest


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One state of a rollout: `weight` percent to the candidate (0: mirrored requests alone), left at `minimum_s` in force and `minimum_requests`.

    With `approval` it is entered only when someone else than who began the rollout has approved it.
    """

    weight: int
    minimum_s: float = 0.0
    minimum_requests: int = 0
    approval: bool = False


class Strategy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a release shall reach the traffic; `rollout.strategies.complete` checks it and fills in what was left out.

    No `steps`: the strategy's own. `guards` are as written; they, with the metric, share `alpha`, the probability of a false alarm over the whole
    rollout. `mirror` is the share of the champion's requests that are also asked of the candidate (None: what the guards need), `sticky` what keeps a
    caller with one version (`header:NAME`, `field:NAME`), `metric` what an A/B test decides by. `strict`: a step is left only when every guard has
    passed. A step that is not left after `max_time_s` is paused. `promote`: a shadow that has earned it goes live by itself. After the end the old
    release stays ready for `keep_warm_s` (None: of blue-green until the next rollout, of others not at all). Queries go to `prometheus`, a URL.
    """

    kind: Literal["direct", "blue-green", "canary", "shadow", "ab"] = "direct"
    steps: tuple[Step, ...] = ()
    guards: tuple[str, ...] = ()
    mirror: float | None = None
    sticky: str | None = None
    metric: str | None = None
    strict: bool = False
    max_time_s: float = MAX_TIME_S
    alpha: float = 0.05
    promote: bool = False
    keep_warm_s: float | None = None
    prometheus: str | None = None


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout does not go on: by whom, why and since when (UTC)."""

    by: str
    why: str
    at: str


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """`by` lets the step with this index be entered."""

    step: int
    by: str
    at: str


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change under way to `goal`, begun by `by`.

    `holding`: loaded beside the old at weight 0; `switching`: the step's plan is written down; `watching`: it is in force everywhere, and judged.
    `generation` is that of the step, or while holding that which the first will have; `generations` are those of every step entered, in whose counts
    the evidence lies. `elapsed_s` and `requests` (of the candidate) are those of the step in force so far, from the driver's monotonic clock and
    the counts; `step_at` is when it was entered, for people, and `because` why; `waits` says why it is not left yet. `gates` judged the release
    before, `guards` (and for A/B last the metric) judge it now. `forced` is who promoted it past what guards say; `resumed_s` what `elapsed_s` was
    when it was resumed.
    """

    kind: Literal["deploy", "rollback"]
    strategy: Strategy
    goal: Release
    generation: int
    phase: Literal["holding", "switching", "watching"]
    started_at: str
    by: str = ""
    step: int = 0
    generations: tuple[int, ...] = ()
    step_at: str = ""
    elapsed_s: float = 0.0
    requests: int = 0
    gates: tuple[Verdict, ...] = ()
    guards: tuple[Verdict, ...] = ()
    because: str = ""
    waits: str = ""
    pause: Pause | None = None
    resumed_s: float = 0.0
    approvals: tuple[Approval, ...] = ()
    forced: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the last rollout, begun by `by`, ended: `verdict` pass, or fail with what went wrong; `guards` are the last verdicts of the guards."""

    kind: Literal["deploy", "rollback"]
    goal: Release
    generation: int
    ended_at: str
    verdict: Verdict
    gates: tuple[Verdict, ...] = ()
    guards: tuple[Verdict, ...] = ()
    by: str = ""
    started_at: str = ""


class Warm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A release that served before and stays ready at weight 0, so that going back to it is a flip: for `keep_s` (None: until the next rollout)."""

    release: Release
    keep_s: float | None = None
    elapsed_s: float = 0.0


class Deployment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Desired state of one served name.

    `current` serves as `generation` (None while the first rollout has not ended) and is the champion; `previous` are the releases that a rollback
    goes back to, the latest last; `warm` is one of them that is kept ready; `rollout` is the change under way and `last` the end of the one before.
    """

    name: str
    model: str
    generation: int
    target: str = "local"
    current: Release | None = None
    previous: tuple[Release, ...] = ()
    warm: Warm | None = None
    rollout: Rollout | None = None
    last: Outcome | None = None

    @property
    def in_force(self) -> int:
        """The generation that its plan has now; what a change expects it to have still."""
        return self.generation if self.rollout is None or self.rollout.phase == "holding" else self.rollout.generation

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

    def converge(self, plans: Iterable[TrafficPlan], placements: Mapping[Digest, Placement], *, keep: Collection[str] = ()) -> int:
        """Make `plans` all that is served here, in one step; of the other names those in `keep` stay as they are.

        Return the ticket by which `has_applied` tells that it is in force.
        """

    def remove(self, name: str) -> int:
        """Serve `name` no longer; return a ticket as `converge` does."""

    def readiness(self, digest: Digest, *, since: int = 0) -> Verdict:
        """`pass` when every part that serves has `digest` ready, `fail` when one cannot or it keeps ending (its own verdict), else `unknown`.

        What a part said before it saw the plan of the ticket `since` says nothing: a version that failed may have been asked for anew.
        """

    def has_applied(self, ticket: int) -> bool:
        """Whether every living part that serves acts by the plan of `ticket` or a later one; False when none lives."""

    def state(self) -> TargetState:
        """What serves here, as last reported."""
