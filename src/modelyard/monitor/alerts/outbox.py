"""What receivers are still to be told, as records: at most one message per route and group, always in its latest state.

Hides the records' form and how news joins a message that waits: what fires now stands, what is over is added, so that an outbox of a receiver that is
away for days is as small as one of a minute, and nobody is told of last week first. It must not send anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from modelyard.errors import Conflict
from modelyard.monitor.alerts.base import Kind, Notification, Route, takes

if TYPE_CHECKING:
    from modelyard.registry.base import Records

KIND = "outbox"
MOST_RESOLVED = 100
"""How many alerts that are over one message tells of; the latest."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that waits for one route since `queued_at`, the time of its first news that was not handed over."""

    route: str
    queued_at: float
    notification: Notification


class Waiting(NamedTuple):
    """A message as it lies there: under its key, at the revision that was read."""

    key: str
    revision: int
    message: Message


def put(records: Records, notification: Notification, routes: Iterable[Route], *, now: float) -> int:
    """Queue `notification` for each of `routes` that takes it, joined with what waits there; for how many. Call it inside the transaction of the
    state that it tells of.
    """
    queued = 0
    for route in routes:
        if not takes(route, notification):
            continue
        key = key_of(route.name, notification)
        found = records.get(KIND, key)
        message = Message(route=route.name, queued_at=now, notification=notification)
        if found is not None:
            before = msgspec.convert(found.body, Message)
            message = Message(route=route.name, queued_at=min(before.queued_at, now), notification=joined(before.notification, notification))
        records.put(KIND, key, msgspec.to_builtins(message), expected=None)
        queued += 1
    return queued


def waiting(records: Records) -> tuple[Waiting, ...]:
    """Every message that waits, the oldest first."""
    found = (Waiting(record.key, record.revision, msgspec.convert(record.body, Message)) for record in records.list(KIND))
    return tuple(sorted(found, key=lambda each: (each.message.queued_at, each.key)))


def done(records: Records, sent: Waiting) -> bool:
    """Take out what was handed over; False where it has had news since, which then waits on."""
    try:
        records.delete(KIND, sent.key, expected=sent.revision)
    except Conflict as error:
        if error.rule != "revision":
            raise
        return False
    return True


def joined(before: Notification, after: Notification) -> Notification:
    """One message in place of two: what `after` says fires, and everything that is over by either."""
    firing = {alert.id for alert in after.firing}
    over = {alert.id: alert for alert in (*before.resolved, *after.resolved) if alert.id not in firing}
    resolved = sorted(over.values(), key=lambda alert: (alert.resolved_at or 0.0, alert.id))[-MOST_RESOLVED:]
    kind: Kind = after.kind
    if after.firing and before.kind in ("new", "changed") and after.kind in ("repeat", "alive", "changed"):
        kind = before.kind  # nobody has heard of it yet
    news = tuple(each.id for each in after.firing if each.id in before.news or each.id in after.news)
    return msgspec.structs.replace(after, kind=kind, resolved=tuple(resolved), news=news)


def key_of(route: str, notification: Notification) -> str:
    """The key under which the group's message for `route` waits."""
    return f"{route}/{notification.deployment}/{notification.severity}"


def delivery_id(route: str, notification: Notification) -> str:
    """The same for a message that is handed over twice, another for any other."""
    ids = "".join(f"{alert.id}:{alert.state};" for alert in notification.alerts)
    return hashlib.sha256(f"{key_of(route, notification)}\0{notification.kind}\0{notification.at!r}\0{ids}".encode()).hexdigest()[:32]
