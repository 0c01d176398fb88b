"""What the control API answers, as a client sees it: what it does not know it leaves out, so that it understands a newer server.

Hides nothing. `tests/house/test_client.py` holds that each name here is one of the server's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.types import Digest, Verdict


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A model's version that can serve."""

    model: str
    version: int
    digest: Digest


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout does not go on: by whom, why and since when (UTC)."""

    by: str
    why: str
    at: str


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One state of a rollout: `weight` percent to the candidate, left at `minimum_s` and `minimum_requests`; `approval` before it is entered."""

    weight: int
    minimum_s: float = 0.0
    minimum_requests: int = 0
    approval: bool = False


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What labels were: of an id not seen before, the same as before, or another than before (which stands from now on).

    `outdated` are others that were known earlier than the one that stands, `future` those dated more than a day ahead, which are not kept.
    """

    new: int = 0
    same: int = 0
    changed: int = 0
    outdated: int = 0
    future: int = 0


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What was received of a data plane elsewhere: a segment's name, and of how many requests it tells."""

    name: str
    requests: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """All labels of one deployment: `matched` a logged prediction, `unknown` are of no prediction, and of the `unsampled` nobody can tell.

    For these the log kept a share of the predictions in which theirs would not be, if there were any. `predictions` were logged. `received` tells how
    the labels came. Of the matched, `late` came after the day (UTC) of their prediction, `mistyped` are no answer that the model could give;
    `conflicting` ids have had different labels. `named` gives some ids of each kind that needs a look.
    """

    labels: int
    matched: int
    unsampled: int
    unknown: int
    predictions: int
    received: Received
    late: int = 0
    mistyped: int = 0
    conflicting: int = 0
    named: dict[str, tuple[str, ...]] = {}


class Strategy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a release shall reach the traffic, or does: `kind` is direct, blue-green, canary, shadow or ab.

    Without `steps`, the strategy's own. `guards` such as `error_rate<0.5%`, `p99<1.2x` or `auc>=champion-0.01`; the rest is as the flags of
    `modelyard deploy` say it.
    """

    kind: str = "direct"
    steps: tuple[Step, ...] = ()
    guards: tuple[str, ...] = ()
    mirror: float | None = None
    sticky: str | None = None
    metric: str | None = None
    strict: bool = False
    max_time_s: float = 86_400.0
    alpha: float = 0.05
    promote: bool = False
    keep_warm_s: float | None = None
    prometheus: str | None = None


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploy would do: `strategy` with every step, the gates' verdicts, and what there is to say of it."""

    name: str
    goal: Release
    generation: int
    strategy: Strategy
    current: Release | None = None
    gates: tuple[Verdict, ...] = ()
    is_there: bool = False
    is_warm: bool = False
    notes: tuple[str, ...] = ()


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A change under way to `goal`: at `step` of its strategy, for so long and so many requests, and what its guards say."""

    kind: str
    strategy: Strategy
    goal: Release
    generation: int
    phase: str
    started_at: str
    by: str = ""
    step: int = 0
    elapsed_s: float = 0.0
    requests: int = 0
    guards: tuple[Verdict, ...] = ()
    waits: str = ""
    pause: Pause | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the last rollout ended."""

    kind: str
    goal: Release
    generation: int
    ended_at: str
    verdict: Verdict
    gates: tuple[Verdict, ...] = ()
    guards: tuple[Verdict, ...] = ()
    by: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What serves under a name (`current`), what it may go back to, and the rollout under way, if one is."""

    name: str
    model: str
    generation: int
    current: Release | None = None
    previous: tuple[Release, ...] = ()
    rollout: Rollout | None = None
    last: Outcome | None = None

    @property
    def version(self) -> int | None:
        """The version that serves."""
        return None if self.current is None else self.current.version

    @property
    def in_force(self) -> int:
        """The generation that the traffic has now: what to say as `expected_generation` so that a change is one of this state."""
        return self.generation if self.rollout is None or self.rollout.phase == "holding" else self.rollout.generation


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a deployment: its percent of the traffic, and how many workers have it ready."""

    version: int
    digest: Digest
    weight: int
    ready: int


class DeploymentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment and what serves it; `traffic` as `modelyard status --json` tells it."""

    deployment: Deployment
    serving: tuple[Serving, ...]
    rollback_to: int | None = None
    trouble: str | None = None
    traffic: dict[str, Any] | None = None


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """The data plane."""

    url: str
    workers: int
    up_to_date: int
    grpc: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The running world."""

    home: str
    data_plane: Plane | None
    deployments: tuple[DeploymentStatus, ...]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a deployment: who did what, and why, on which verdicts."""

    deployment: str
    sequence: int
    at: str
    by: str
    what: str
    why: str = ""
    generation: int = 0
    version: int | None = None
    weight: int | None = None
    verdicts: tuple[Verdict, ...] = ()


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A name with its versions and aliases."""

    name: str
    aliases: dict[str, int]
    versions: tuple[int, ...]


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One registered bundle."""

    name: str
    version: int
    digest: Digest
    created_at: str
    aliases: tuple[str, ...] = ()
    summary: dict[str, Any] = {}


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What every gate found of a version."""

    digest: Digest
    is_fit: bool
    verdicts: tuple[Verdict, ...]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An access key; `key` itself only of one that was just made."""

    id: str
    name: str
    roles: tuple[str, ...]
    models: tuple[str, ...] = ()
    expires_at: str | None = None
    priority: str = "high"
    last_used_at: str | None = None
    key: str | None = None


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """A signer who is believed."""

    key_id: str
    kind: str = ""
    is_own: bool = False


class DataPlane(msgspec.Struct, frozen=True, kw_only=True):
    """Where predictions are asked."""

    url: str
    grpc: str | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The course of one figure of a deployment, at equal steps; `unit` is /s, s, share, level (1 is an alarm) or empty."""

    name: str
    unit: str
    values: tuple[float | None, ...]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How often a month somebody may be woken for nothing; how often somebody was in the last month, and what is left."""

    false_pages_a_month: float
    spent: float
    left: float
    chance: float = 1.0


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment does, from `since` to before `until` (seconds since 1970, UTC); the latest `verdicts`, the most important first.

    Those whose rule is in `pages` may wake somebody. `settings` are those of its `monitor.toml`.
    """

    name: str
    version: int | None
    digest: Digest | None
    since: float
    until: float
    budget: Budget
    requests: int = 0
    rows: int = 0
    judged_through: float | None = None
    judged_at: float | None = None
    verdicts: tuple[Verdict, ...] = ()
    pages: tuple[str, ...] = ()
    alerts: tuple[Alert, ...] = ()
    series: tuple[Series, ...] = ()
    late: int = 0
    labels: Account | None = None
    trouble: tuple[str, ...] = ()
    settings: dict[str, Any] = {}


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment is watched: what its `monitor.toml` says; `revision` 0 while nobody has said anything."""

    settings: dict[str, Any]
    revision: int = 0
    by: str = ""
    at: str = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of one deployment that does not hold (`pending`, `firing`), or is over (`resolved`). Times are seconds since 1970, UTC."""

    id: str
    deployment: str
    rule: str
    severity: str
    state: str
    verdict: Verdict
    since: float
    advice: str = ""
    cause: str = ""
    why: str = ""
    fired_at: float | None = None
    passing_since: float | None = None
    resolved_at: float | None = None
    ended: str = ""
    silenced_by: str = ""
    inhibited_by: str = ""


class Matcher(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts are meant: each that is given must fit."""

    deployment: str = ""
    rule: str = ""
    column: str = ""
    severity: str = ""


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody is told of what `matcher` means until `until`."""

    id: str
    matcher: Matcher
    since: float
    until: float
    by: str
    why: str


class RouteStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerts go, and how that fares: messages that wait, and since when and why it fails, if it does."""

    name: str
    kind: str = ""
    target: str = ""
    severities: tuple[str, ...] = ()
    waiting: int = 0
    waiting_since: float | None = None
    ok_at: float | None = None
    failing_since: float | None = None
    tries: int = 0
    error: str = ""


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """Every alert, those that fire first; every silence; every route."""

    alerts: tuple[Alert, ...]
    silences: tuple[Silence, ...]
    routes: tuple[RouteStatus, ...]
    trouble: str = ""


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """What came back of a test message."""

    route: str
    is_delivered: bool
    said: str
