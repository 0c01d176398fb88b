"""Alerts of a home as its verbs show and change them: what fires, who does not want to be told, and how the routes fare.

Hides from which records it is gathered. It decides nothing about alerts (`monitor.alerts.machine` does) and sends nothing but the message that
somebody asks for to see whether a route works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import InvalidConfig, NotFound, Unavailable
from modelyard.monitor.alerts import Alert, Notification, Silence, outbox
from modelyard.monitor.alerts import book as alert_book
from modelyard.monitor.alerts.base import Severity
from modelyard.monitor.alerts.book import Receiver
from modelyard.monitor.alerts.written import Routes

if TYPE_CHECKING:
    from modelyard.registry.base import Records


class RouteStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One route and how it fares: `waiting` messages since `waiting_since`; `ok_at` when it last took one; while it takes none, since when, after how
    many tries, and why. One that the settings do not name (any more) has no kind.
    """

    name: str
    kind: str = ""
    target: str = ""
    severities: tuple[Severity, ...] = ()
    waiting: int = 0
    waiting_since: float | None = None
    ok_at: float | None = None
    failing_since: float | None = None
    tries: int = 0
    error: str = ""


class Alerts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every alert, those that fire first; every silence; every route. `trouble` is what keeps the file of routes from being used."""

    alerts: tuple[Alert, ...]
    silences: tuple[Silence, ...]
    routes: tuple[RouteStatus, ...]
    trouble: str = ""


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """What came back of a test message."""

    route: str
    is_delivered: bool
    said: str


def alerts(records: Records, routes: Routes) -> Alerts:
    """What there is to be told of now."""
    return Alerts(alerts=alert_book.alerts(records), silences=alert_book.silences(records), routes=_routes(records, routes), trouble=_trouble(routes))


def seen(found: Alerts, sees: Callable[[str], bool]) -> Alerts:
    """What somebody may see who sees some deployments alone: their alerts, and the silences that mean one of them or all."""
    return msgspec.structs.replace(
        found,
        alerts=tuple(each for each in found.alerts if sees(each.deployment)),
        silences=tuple(each for each in found.silences if not each.matcher.deployment or sees(each.matcher.deployment)),
    )


def test(routes: Routes, name: str) -> Tested:
    """Send a test message by the route called `name`, now. Raises NotFound."""
    known = routes()
    if name not in known:
        trouble = f"; {routes.trouble}" if routes.trouble else ""
        raise NotFound(f"no route is called {name[:80]}; alerts.toml names {', '.join(known) or 'none'}{trouble}", field="route")
    route = known[name]
    message = Notification(deployment="", severity=route.severities[0], kind="test", at=time.time())
    try:
        return Tested(route=name, is_delivered=True, said=route.send(message))
    except (Unavailable, InvalidConfig) as error:
        return Tested(route=name, is_delivered=False, said=error.message)


def _trouble(routes: Routes) -> str:
    routes()
    return routes.trouble


def _routes(records: Records, routes: Routes) -> tuple[RouteStatus, ...]:
    waits: dict[str, list[float]] = {}
    for each in outbox.waiting(records):
        waits.setdefault(each.message.route, []).append(each.message.queued_at)
    fared = alert_book.receivers(records)
    known = routes()
    told = []
    for name in sorted({*known, *waits}):
        route, how = known.get(name), fared.get(name, Receiver())
        told.append(
            RouteStatus(
                name=name,
                kind="" if route is None else route.kind,
                target="" if route is None else route.target,
                severities=() if route is None else route.severities,
                waiting=len(waits.get(name, ())),
                waiting_since=min(waits[name]) if name in waits else None,
                ok_at=how.ok_at,
                failing_since=how.failing_since,
                tries=how.tries,
                error=how.error if route is not None else "alerts.toml of this home does not name it",
            )
        )
    return tuple(told)
