"""Alertmanager, by its API v2: what fires as alerts of its own, grouped, silenced and routed there as the rest of the house's.

Hides the mapping. An alert's labels are what makes it one and never change while it lives; everything that may change is an annotation. Alertmanager
forgets what is not repeated (and all of it when it restarts), so each message carries its own end, and the machine says `alive` well before that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from modelyard.monitor.alerts import text
from modelyard.monitor.alerts.base import Alert, Notification, Severity, detector_of
from modelyard.monitor.alerts.post import post, require_url, shown
from modelyard.monitor.alerts.routes.base import Written, beside, read, secret

LIVES_S = 900.0
"""How long Alertmanager believes in an alert of which it hears nothing more: several times `book.ALIVE_S`, and longer than a takeover or restart."""


class Said(Written, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Alertmanager listens, a `token` sent as bearer if it wants one, and labels that every alert gets (a team, a cluster)."""

    url: str
    token_file: str = ""
    token_env: str = ""
    ca_file: str = ""
    labels: dict[str, str] = {}
    severities: tuple[Severity, ...] = ("page", "report")


class Alertmanager:
    """An Alertmanager of 0.16 or later."""

    kind = "alertmanager"
    forgets = True

    def __init__(self, name: str, written: dict[str, Any], folder: Path, *, now: Callable[[], float] = time.time) -> None:
        said = read(name, written, Said)
        self.name = name
        self.severities = said.severities
        self._url = require_url(said.url).rstrip("/")
        self._token = secret(name, "token", said, folder)
        self._ca_file = beside(folder, said.ca_file)
        self._labels = said.labels
        self._now = now

    @property
    def target(self) -> str:
        """See `alerts.base.Route`."""
        return shown(self._url)

    def send(self, notification: Notification) -> str:
        """See `alerts.base.Route`."""
        headers = {} if self._token is None else {"authorization": f"Bearer {self._token.read()}"}
        content = msgspec.json.encode(alerts(notification, labels=self._labels, now=self._now()))
        answer = post(f"{self._url}/api/v2/alerts", content, headers=headers, ca_file=self._ca_file)
        return f"it answered with status {answer.status}"


def alerts(notification: Notification, *, labels: dict[str, str], now: float) -> list[dict[str, Any]]:
    """The alerts of `notification` as API v2 has them, at `now`."""
    if notification.kind == "test":
        return [
            {
                "labels": {**labels, "alertname": "modelyard_test", "severity": "report"},
                "annotations": {"summary": text.subject(notification), "description": text.plain(notification)},
                "startsAt": text.instant(now),
                "endsAt": text.instant(now + 60),
            }
        ]
    told = [_alert(each, labels, endsAt=now + LIVES_S) for each in notification.firing]
    return told + [_alert(each, labels, endsAt=each.resolved_at or now) for each in notification.resolved]


def _alert(alert: Alert, labels: dict[str, str], *, endsAt: float) -> dict[str, Any]:
    ours = {
        "alertname": alert.rule,
        "detector": detector_of(alert.rule),
        "deployment": alert.deployment,
        "severity": alert.severity,
        "alert_id": alert.id,
    }
    facts = {what.replace(" ", "_"): how for what, how in text.facts(alert)}
    summary = f"{alert.deployment}: {text.line(alert.verdict.evidence)}"
    return {
        "labels": {**labels, **ours},
        "annotations": {"summary": summary, "description": "\n".join(f"{what}: {how}" for what, how in facts.items()), **facts},
        "startsAt": text.instant(min(alert.fired_at or alert.since, endsAt)),  # a clock may have been put back
        "endsAt": text.instant(endsAt),
    }
