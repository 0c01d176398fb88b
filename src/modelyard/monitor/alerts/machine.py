"""From the verdicts of a turn to alerts, and to what receivers are to be told: a pure machine.

Hides every rule of alerting: how long something must fail, what is one alert and what another, who inhibits whom, when a group is told and when
again. No clock, no store: time comes in, state goes in and out. Semantics follow Prometheus and Alertmanager (`for`, `keep_firing_for`, group_wait,
group_interval, repeat_interval, inhibition, silences), with one group for each severity of a deployment, so that a report never repeats a page.

Laws (`tests/property/test_alert_laws.py`): what is pending, silenced or inhibited is told to nobody; whoever was told that something fires is told
when it is over; two messages of a group are at least `group_interval_s` apart; a report keeps no page back, and while pages fire one of them is told,
unless it is silenced; a second step on the same verdicts at the same time says nothing; all passing long enough, nothing is left.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from modelyard.monitor.alerts.advice import advise
from modelyard.monitor.alerts.base import (
    SEVERITIES,
    Alert,
    Book,
    Explained,
    Group,
    Inhibition,
    Kind,
    Notification,
    Policy,
    Rules,
    Severity,
    State,
    detector_of,
)
from modelyard.types import Verdict

KEPT_S = 86_400.0
"""How long an alert that is over is still shown."""

KEPT = 100
"""How many of them, of one deployment."""

ONE_CAUSE_S = 3_600.0
"""Alerts of one kind of cause that began so near to one another are taken for one, whatever their columns: a shift reaches its columns in turn."""

RELEASE_S = 3_600.0
"""How long an alert on a release that serves no more waits for a word on the next: its first week may be one in which nobody can tell."""
_OF_ALL = ("slo", "operations", "watch")
"""What is judged of the deployment, whichever release answers."""

_ORDER = ("slo", "quality", "concept", "performance", "estimated_performance", "drift", "operations")
"""Which of several alerts that share a cause is told: the first of these, then whichever began first."""

_WORST = {"fail": 3, "warn": 2, "unknown": 1, "pass": 0}


def step(
    state: State,
    verdicts: Mapping[str, Sequence[Verdict]],
    *,
    rules: Rules,
    now: float,
    causes: Mapping[tuple[str, str], Explained] | None = None,
) -> tuple[State, tuple[Notification, ...]]:
    """One turn. `verdicts` are all that was judged now, by deployment; `causes` explain some of them, by deployment and rule.

    A deployment that is not in `verdicts` is served no more, and a detector that it lacks judges no more: their alerts are over. A rule that its
    detector tells no more passes: many tell what they find, and nothing of the rest. Where nobody could judge (`unknown`, of the rule or of its whole
    detector) an alert stays as it is, for an hour where another release has taken over. A clock that was put back counts from then on.
    """
    books: dict[str, Book] = {}
    told: list[Notification] = []
    for name in sorted({*state.books, *verdicts}):
        before = _clamped(state.books.get(name, Book()), now)
        why = {rule: each for (deployment, rule), each in (causes or {}).items() if deployment == name}
        alerts = _judged(name, before.alerts, verdicts.get(name), why, rules=rules, now=now)
        alerts = _inhibited(_silenced(alerts, rules, now), rules.inhibitions)
        groups: dict[str, Group] = {}
        for severity in SEVERITIES:
            group, notification = _told(name, severity, alerts, before.groups.get(severity, Group()), rules=rules, now=now)
            if group is not None:
                groups[severity] = group
            if notification is not None:
                told.append(notification)
        book = Book(alerts=_kept(alerts, groups.values(), now), groups=groups)
        if book.alerts or book.groups:
            books[name] = book
    return State(books=books), tuple(told)


# Alerts


def _judged(
    name: str,
    before: Iterable[Alert],
    verdicts: Sequence[Verdict] | None,
    causes: Mapping[str, Explained],
    *,
    rules: Rules,
    now: float,
) -> list[Alert]:
    """The alerts after `verdicts`, those that are over among them; None: `name` is served no more."""
    judged = _joined(verdicts or ())
    blind = {verdict.rule for verdict in judged.values() if verdict.outcome == "unknown"}
    judging = {detector_of(rule) for rule in judged}
    policy = rules.policy_of(name)
    known = tuple(before)
    taken = {alert.id for alert in known}
    alerts: list[Alert] = []
    active: dict[str, Alert] = {}
    for alert in known:
        if alert.state == "resolved":
            alerts.append(alert)
        else:
            active[alert.rule] = alert
    for rule in sorted({*active, *judged}):
        found, verdict = active.get(rule), judged.get(rule)
        if verdict is not None and verdict.outcome in ("fail", "warn"):
            alerts += _failing(name, found, verdict, causes.get(rule), rules=rules, now=now, taken=taken)
        elif found is None:
            continue
        elif verdicts is None:
            alerts += _over(found, "the deployment is served no more", now)
        elif verdict is None and detector_of(rule) not in blind | judging:
            alerts += _over(found, "it is judged no more", now)
        elif verdict is None and detector_of(rule) not in blind:  # it tells what it finds, and this is not among it
            alerts += _passing(found, policy, now, ended="it is found no more")
        elif verdict is None or verdict.outcome == "unknown":
            is_past = _is_of_before(found, rules.begun.get(name, 0.0), now)
            alerts += _over(found, "the release that had it serves no more, and of this one it is not known yet", now) if is_past else [found]
        else:
            alerts += _passing(found, policy, now)
    return alerts


def _failing(
    name: str, found: Alert | None, verdict: Verdict, explained: Explained | None, *, rules: Rules, now: float, taken: Collection[str]
) -> list[Alert]:
    severity = rules.severity(name, verdict)
    ended: list[Alert] = []
    if found is not None and found.severity == "report" and severity == "page":
        ended, found = _over(found, "it is a page now", now), None
    if found is None:
        found = Alert(
            id=_id(name, verdict.rule, severity, now, taken=taken),
            deployment=name,
            rule=verdict.rule,
            severity=severity,
            state="pending",
            verdict=verdict,
            since=now,
        )
    cause, why, advice = (found.cause, found.why, "") if explained is None else explained
    found = msgspec.structs.replace(
        found,
        verdict=verdict,
        passing_since=None,
        cause=cause,
        why=why,
        advice=advice or advise(verdict.rule, cause, verdict.columns),
        begun=rules.begun.get(name, 0.0),
    )
    if found.state == "pending" and now - found.since >= rules.policy_of(name).hold_s(verdict.rule):
        found = msgspec.structs.replace(found, state="firing", fired_at=now)
    return [*ended, found]


def _passing(alert: Alert, policy: Policy, now: float, *, ended: str = "it passes again") -> list[Alert]:
    if alert.state == "pending":
        return []
    since = now if alert.passing_since is None else alert.passing_since
    if now - since >= policy.keep_s:
        return _over(alert, ended, now)
    return [msgspec.structs.replace(alert, passing_since=since)]


def _is_of_before(alert: Alert, begun: float, now: float) -> bool:
    """Whether an alert of which nothing is known now is of a release that serves no more, and the one that took over has had its time to show it."""
    return max(alert.since, alert.begun) < begun <= now - RELEASE_S and detector_of(alert.rule) not in _OF_ALL


def _over(alert: Alert, ended: str, now: float) -> list[Alert]:
    """A firing alert that is over; of one that never fired nothing is left."""
    if alert.state == "pending":
        return []
    return [msgspec.structs.replace(alert, state="resolved", resolved_at=now, ended=ended, silenced_by="", inhibited_by="")]


def _joined(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """One verdict per rule: of several the worst stands, with the columns of all that are as bad. Numbers that are none are left out."""
    joined: dict[str, Verdict] = {}
    for each in verdicts:
        verdict = msgspec.structs.replace(
            each,
            numbers={name: value for name, value in each.numbers.items() if math.isfinite(value)},
            harm=each.harm if each.harm is None or math.isfinite(each.harm) else None,
        )
        other = joined.get(verdict.rule)
        if other is None or _WORST[verdict.outcome] > _WORST[other.outcome]:
            joined[verdict.rule] = verdict
        elif verdict.outcome == other.outcome and verdict.outcome in ("fail", "warn"):
            worse, lesser = (verdict, other) if (verdict.harm or 0.0) > (other.harm or 0.0) else (other, verdict)
            joined[verdict.rule] = msgspec.structs.replace(worse, columns=tuple(dict.fromkeys((*worse.columns, *lesser.columns))))
    return joined


def _id(name: str, rule: str, severity: str, since: float, *, taken: Collection[str]) -> str:
    """An id that no alert of the deployment has: one may end and begin again at one time, when the clock was put back."""
    ids = (hashlib.sha256(f"{name}\0{rule}\0{severity}\0{since!r}\0{turn}".encode()).hexdigest()[:16] for turn in itertools.count())
    return next(each for each in ids if each not in taken)


# Who is not told


def _silenced(alerts: Iterable[Alert], rules: Rules, now: float) -> list[Alert]:
    def silence(alert: Alert) -> str:
        return next((each.id for each in rules.silences if now < each.until and each.matcher.fits(alert)), "")

    return [alert if alert.state != "firing" else _with(alert, silenced_by=silence(alert)) for alert in alerts]


def _inhibited(alerts: Sequence[Alert], inhibitions: Sequence[Inhibition]) -> list[Alert]:
    """Each firing alert with what inhibits it. Taken in one order, each is inhibited only by one before it that is not: so one is always told."""
    by_id: dict[str, str] = {}
    free: list[Alert] = []
    for alert in sorted((each for each in alerts if each.state == "firing"), key=_rank):
        source = next((each for each in free if _inhibits(each, alert, inhibitions)), None)
        by_id[alert.id] = "" if source is None else source.id
        if source is None:
            free.append(alert)
    return [_with(alert, inhibited_by=by_id[alert.id]) if alert.id in by_id else alert for alert in alerts]


def _rank(alert: Alert) -> tuple[int, int, float, str]:
    place = next((at for at, each in enumerate(_ORDER) if each in (alert.rule, detector_of(alert.rule))), len(_ORDER))
    return SEVERITIES.index(alert.severity), place, alert.since, alert.rule


def _inhibits(source: Alert, target: Alert, inhibitions: Sequence[Inhibition]) -> bool:
    if SEVERITIES.index(source.severity) > SEVERITIES.index(target.severity):
        return False
    if source.cause not in ("", "unknown") and source.cause == target.cause:
        shares = not source.columns or not target.columns or bool(set(source.columns) & set(target.columns))
        if shares or abs(source.since - target.since) <= ONE_CAUSE_S:
            return True
    return any(
        each.source in (source.rule, detector_of(source.rule))
        and not each.targets.isdisjoint({target.rule, detector_of(target.rule)})
        and (not each.same_columns or (bool(target.columns) and set(target.columns) <= set(source.columns)))
        for each in inhibitions
    )


def _with(alert: Alert, **changes: str) -> Alert:
    return alert if all(getattr(alert, name) == value for name, value in changes.items()) else msgspec.structs.replace(alert, **changes)


# Who is told, and when


def _told(
    name: str, severity: Severity, alerts: Iterable[Alert], before: Group, *, rules: Rules, now: float
) -> tuple[Group | None, Notification | None]:
    """The group after this turn (None: there is nothing to remember of it), and what its receivers are to be told, if anything."""
    policy = rules.policy_of(name)
    mine = [alert for alert in alerts if alert.severity == severity]
    firing = tuple(sorted((alert for alert in mine if alert.is_told), key=_rank))
    known = set(before.told)
    over = tuple(alert for alert in mine if alert.state == "resolved" and alert.id in known)
    is_news = bool(over) or any(alert.id not in known for alert in firing)
    since_told_s = math.inf if before.told_at is None else now - before.told_at
    waits_since = (now if before.waits_since is None else before.waits_since) if is_news else None
    if waits_since is not None and now - waits_since >= policy.group_wait_s and since_told_s >= policy.group_interval_s:
        kind: Kind = "resolved" if not firing else "changed" if known else "new"
    elif not is_news and firing and since_told_s >= policy.repeat_s:
        kind = "repeat"
    else:
        lives = tuple(alert for alert in firing if alert.id in known)
        group = msgspec.structs.replace(before, waits_since=waits_since)
        if lives and rules.alive_s and now - max(before.alive_at or 0.0, before.told_at or 0.0) >= rules.alive_s:
            alive = Notification(deployment=name, severity=severity, kind="alive", at=now, firing=lives, routes=policy.routes)
            return msgspec.structs.replace(group, alive_at=now), alive
        hidden = bool(known & {alert.id for alert in mine if alert.state == "firing"})
        is_done = not is_news and not firing and not hidden and since_told_s >= policy.group_interval_s
        return (None if is_done else group), None
    # Who was told of what is silenced or inhibited since is to be told of its end.
    still = tuple(alert.id for alert in mine if alert.state == "firing" and (alert.is_told or alert.id in known))
    told = {alert.id for alert in firing}
    also = tuple(alert.rule for alert in alerts if alert.inhibited_by in told)
    said = Notification(
        deployment=name,
        severity=severity,
        kind=kind,
        at=now,
        firing=firing,
        resolved=over,
        news=tuple(alert.id for alert in firing if alert.id not in known),
        also=also if firing else (),
        routes=policy.routes,
    )
    return Group(told=still, told_at=now), said


def _kept(alerts: Sequence[Alert], groups: Iterable[Group], now: float) -> tuple[Alert, ...]:
    """Those that are not over, those whose end somebody is still to be told, and of the others the latest for a while."""
    owed = {each for group in groups for each in group.told}
    shown = sorted(
        (each for each in alerts if each.state == "resolved" and each.id not in owed and now - (each.resolved_at or 0.0) < KEPT_S),
        key=lambda each: each.resolved_at or 0.0,
    )
    latest = {each.id for each in shown[-KEPT:]}
    return tuple(each for each in alerts if each.state != "resolved" or each.id in owed or each.id in latest)


def _clamped(book: Book, now: float) -> Book:
    """`book` with no time after `now`: what a clock wrote that has been put back since must not hold anything up."""

    def clamp(at: float | None) -> float | None:
        return at if at is None or at <= now else now

    def alert(each: Alert) -> Alert:
        times = {name: clamp(getattr(each, name)) for name in ("since", "fired_at", "passing_since", "resolved_at", "begun")}
        return each if all(getattr(each, name) == at for name, at in times.items()) else msgspec.structs.replace(each, **times)

    def group(each: Group) -> Group:
        return msgspec.structs.replace(each, **{name: clamp(getattr(each, name)) for name in ("told_at", "waits_since", "alive_at")})

    return Book(alerts=tuple(map(alert, book.alerts)), groups={severity: group(each) for severity, each in book.groups.items()})
