"""The nouns of alerting: what is wrong with a deployment, since when, who has been told, and who does not want to be.

Hides nothing; it is what the machine, the outbox, the routes and the API share, and the form in which they are records. Times are seconds since
1970, UTC. It must hold no clock, no network and no store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

import msgspec

from modelyard.errors import InvalidInput
from modelyard.types import Verdict

Severity = Literal["page", "report"]
SEVERITIES: tuple[Severity, ...] = ("page", "report")
"""`page` wakes somebody; `report` waits until somebody looks. The graver first."""

Kind = Literal["new", "changed", "repeat", "resolved", "alive", "test"]

TEXT_CHARACTERS = 500


def detector_of(rule: str) -> str:
    """The detector whose rule it is: `drift` of `drift:age`."""
    return rule.partition(":")[0]


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule of one deployment that does not hold. `verdict` is the latest that said so, with its numbers, window, columns and harm.

    `pending` has not failed for long enough yet, `firing` has, `resolved` is over (`ended` says how). `since` is when it began to fail, `fired_at`
    when it began to fire, `passing_since` from when on a firing one passes again. `cause` and `why` are what explains it, `advice` what to do.
    `begun` is when the release took over on which it last failed (0: nobody knows).
    A firing one of which nobody is told is silenced by a silence (`silenced_by`), or inhibited by another alert (`inhibited_by`): the ids.
    """

    id: str
    deployment: str
    rule: str
    severity: Severity
    state: Literal["pending", "firing", "resolved"]
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
    begun: float = 0.0

    @property
    def is_told(self) -> bool:
        """Whether somebody is to be told of it now: it fires, and is neither silenced nor inhibited."""
        return self.state == "firing" and not self.silenced_by and not self.inhibited_by

    @property
    def columns(self) -> tuple[str, ...]:
        """The guilty columns, the worst first."""
        return self.verdict.columns


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What receivers were last told of one severity of one deployment: the ids of alerts that they believe to fire, and when they were told.

    `waits_since` is since when there has been news that they were not told yet; `alive_at` when it was last said that all is as it was.
    """

    told: tuple[str, ...] = ()
    told_at: float | None = None
    waits_since: float | None = None
    alive_at: float | None = None


class Book(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything kept of one deployment: its alerts, those that are over for a while too, and its groups by severity."""

    alerts: tuple[Alert, ...] = ()
    groups: dict[str, Group] = {}


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the machine is to be handed again at the next turn: the books by deployment."""

    books: dict[str, Book] = {}

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Every alert, by deployment."""
        return tuple(alert for name in sorted(self.books) for alert in self.books[name].alerts)


class Notification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What receivers are to be told of one severity of one deployment, in full: all that fires, and what is over since they were last told.

    `news` are the ids of what fires that nobody was told of before: of a page, what somebody is woken for. `also` are rules that fail for the same
    reason (what fires inhibits them). `alive` repeats for receivers that forget what is not repeated;
    `routes` names those that are to be told, None all.
    """

    deployment: str
    severity: Severity
    kind: Kind
    at: float
    firing: tuple[Alert, ...] = ()
    resolved: tuple[Alert, ...] = ()
    news: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    routes: tuple[str, ...] | None = None

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Those that fire, then those that are over."""
        return (*self.firing, *self.resolved)


class Matcher(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which alerts are meant: each that is given must fit. `rule` is a whole rule or a detector; `column` one of the alert's guilty columns."""

    deployment: str = ""
    rule: str = ""
    column: str = ""
    severity: str = ""

    def __post_init__(self) -> None:
        if not (self.deployment or self.rule or self.column or self.severity):
            raise InvalidInput("say what to silence: a deployment, a rule, a column or a severity", field="matcher", rule="required")
        if self.severity and self.severity not in SEVERITIES:
            raise InvalidInput(f"a severity is one of {', '.join(SEVERITIES)}", field="severity", rule="known")

    def fits(self, alert: Alert) -> bool:
        """Whether `alert` is meant."""
        return (
            self.deployment in ("", alert.deployment)
            and self.rule in ("", alert.rule, detector_of(alert.rule))
            and self.severity in ("", alert.severity)
            and (not self.column or self.column in alert.columns)
        )


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody is told of what `matcher` means until `until`; who wants it so, why, and since when. Alerts go on being judged and shown."""

    id: str
    matcher: Matcher
    since: float
    until: float
    by: str
    why: str


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a deployment's alerts reach people; every default is meant to be left alone.

    A rule must fail for `for_s` before it fires (`hold` says otherwise for one rule or detector; e-detectors have waited long enough when they speak)
    and pass for `keep_s` before it is over. The first news of a group waits for `group_wait_s`, further news until `group_interval_s` after the last
    message, and what stays as it is is said again after `repeat_s`. `routes` names who is told (None: every route).
    """

    for_s: float = 0.0
    keep_s: float = 300.0
    group_wait_s: float = 0.0
    group_interval_s: float = 300.0
    repeat_s: float = 14_400.0
    hold: dict[str, float] = {}
    routes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        spans = {name: getattr(self, name) for name in ("for_s", "keep_s", "group_wait_s", "group_interval_s", "repeat_s")}
        for name, span_s in {**spans, **{f"hold.{rule}": each for rule, each in self.hold.items()}}.items():
            if not 0 <= span_s < math.inf:
                raise InvalidInput(f"{name} is a number of seconds from 0", field=name, rule="range")
        if self.repeat_s < 60:
            raise InvalidInput("repeat_s is 60 or more: nobody reads an alert more often", field="repeat_s", rule="range")

    def hold_s(self, rule: str) -> float:
        """How long `rule` must fail before it fires."""
        return self.hold.get(rule, self.hold.get(detector_of(rule), self.for_s))


class Inhibition(NamedTuple):
    """While an alert of the detector (or rule) `source` fires, those of `targets` are not told: they are its consequences.

    With `same_columns` only those all of whose columns are among the source's.
    """

    source: str
    targets: frozenset[str]
    same_columns: bool = False


INHIBITIONS = (
    Inhibition("slo", frozenset({"operations"})),
    Inhibition("quality", frozenset({"drift", "shift", "multivariate", "slices"}), same_columns=True),
    Inhibition("drift", frozenset({"shift"}), same_columns=True),
    Inhibition("performance", frozenset({"estimated_performance"})),
)
"""Who is not answered has other latencies too; a column that came broken has drifted as well; and what is known need not be estimated. Never does a
report keep a page back.
"""


class Explained(NamedTuple):
    """What explains an alert: the kind of cause in its own words (`unknown` is none), a sentence, and what to do where the cause itself says it.
    Alerts of one cause page once.
    """

    cause: str
    why: str
    advice: str = ""


class Rules(NamedTuple):
    """By what the machine goes this turn. `pages` are the detectors (or rules) whose `fail` is a page; whatever else fails or warns is a report.

    `paging` by deployment, else `pages`; `policies` likewise, else `policy`; `alive_s` is how often receivers are told that all is as it was (0: none
    of them forgets). `begun` is when the release that a deployment is judged by took over, where that is known.
    """

    pages: frozenset[str] = frozenset()
    paging: Mapping[str, frozenset[str]] = {}
    policy: Policy = Policy()
    policies: Mapping[str, Policy] = {}
    silences: tuple[Silence, ...] = ()
    inhibitions: tuple[Inhibition, ...] = INHIBITIONS
    alive_s: float = 0.0
    begun: Mapping[str, float] = {}

    def severity(self, deployment: str, verdict: Verdict) -> Severity:
        """That of an alert of `deployment` from `verdict`, which fails or warns."""
        pages = self.paging.get(deployment, self.pages)
        return "page" if verdict.outcome == "fail" and not pages.isdisjoint({verdict.rule, detector_of(verdict.rule)}) else "report"

    def policy_of(self, deployment: str) -> Policy:
        """How alerts of `deployment` reach people."""
        return self.policies.get(deployment, self.policy)


class Route(Protocol):
    """Where notifications go: one receiver and the wire that it reads. Safe to use from any thread, one message at a time.

    `severities` are those it takes; one that `forgets` is told that alerts are alive.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def severities(self) -> tuple[Severity, ...]: ...

    @property
    def forgets(self) -> bool: ...

    @property
    def target(self) -> str:
        """Where it leads, as may be shown: no password, no token."""
        ...

    def send(self, notification: Notification) -> str:
        """Hand it over and return what the receiver said, in a few words. Bounded in time. Raises Unavailable (try again), or InvalidConfig where
        it was refused for what only the settings can mend; its message holds no secret.
        """
        ...


def takes(route: Route, notification: Notification) -> bool:
    """Whether `notification` is for `route`."""
    is_meant = notification.routes is None or route.name in notification.routes
    return is_meant and notification.severity in route.severities and (notification.kind != "alive" or route.forgets)


def gravest(alerts: Iterable[Alert]) -> Severity:
    """The gravest severity among `alerts`; `report` of none."""
    return "page" if any(alert.severity == "page" for alert in alerts) else "report"
