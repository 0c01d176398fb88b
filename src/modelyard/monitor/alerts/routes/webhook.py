"""A webhook: the notification as JSON, signed if the two share a secret.

Hides the form of the body and of the signature: `X-Modelyard-Signature: t=SECONDS,v1=HEX`, HEX the HMAC-SHA256 of `SECONDS.BODY`. The time is signed
so that a receiver can refuse what was recorded and is played again; `X-Modelyard-Delivery` is the same for a message that comes twice.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import msgspec

from modelyard.monitor.alerts import outbox, text
from modelyard.monitor.alerts.base import Alert, Notification
from modelyard.monitor.alerts.post import post, require_url, shown
from modelyard.monitor.alerts.routes.base import Written, beside, needed, read, secret

FORMAT = 1


class Said(Written, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url`, or where it lies when it is itself a secret; the `secret` of the signature; a `token` sent as bearer."""

    url: str = ""
    url_file: str = ""
    url_env: str = ""
    secret_file: str = ""
    secret_env: str = ""
    token_file: str = ""
    token_env: str = ""
    ca_file: str = ""


class Webhook:
    """A receiver of JSON over HTTP."""

    kind = "webhook"
    forgets = False

    def __init__(self, name: str, written: dict[str, Any], folder: Path) -> None:
        said = read(name, written, Said)
        self.name = name
        self.severities = said.severities
        self._url = require_url(said.url) if said.url else ""
        self._url_secret = None if said.url else needed(name, "url", secret(name, "url", said, folder))
        self._secret = secret(name, "secret", said, folder)
        self._token = secret(name, "token", said, folder)
        self._ca_file = beside(folder, said.ca_file)

    @property
    def target(self) -> str:
        """See `alerts.base.Route`."""
        return shown(self._url) if self._url_secret is None else self._url_secret.place

    def send(self, notification: Notification) -> str:
        """See `alerts.base.Route`."""
        url = self._url if self._url_secret is None else self._url_secret.read()
        content = msgspec.json.encode(body(notification))
        headers = {"x-modelyard-delivery": outbox.delivery_id(self.name, notification)}
        if self._secret is not None:
            headers["x-modelyard-signature"] = signature(self._secret.read(), content, at=int(time.time()))
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token.read()}"
        return f"it answered with status {post(url, content, headers=headers, ca_file=self._ca_file).status}"


def signature(secret: str, content: bytes, *, at: int) -> str:
    """The signature of `content` sent at `at`."""
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + content, hashlib.sha256).hexdigest()}"


def body(notification: Notification) -> dict[str, Any]:
    """What is sent: everything that is known, and the text that people read."""
    return {
        "format": FORMAT,
        "kind": notification.kind,
        "status": "firing" if notification.firing else "resolved",
        "deployment": notification.deployment,
        "severity": notification.severity,
        "at": text.instant(notification.at),
        "subject": text.subject(notification),
        "text": text.plain(notification),
        "alerts": [_alert(each) for each in notification.alerts],
        "news": list(notification.news),
        "also": list(notification.also),
    }


def _alert(alert: Alert) -> dict[str, Any]:
    verdict = alert.verdict
    value, threshold = text.judged(verdict)
    return {
        "id": alert.id,
        "rule": alert.rule,
        "severity": alert.severity,
        "status": alert.state,
        "evidence": text.line(verdict.evidence),
        "value": None if value is None else verdict.numbers[value],
        "threshold": None if threshold is None else verdict.numbers[threshold],
        "numbers": verdict.numbers,
        "window": None if verdict.window is None else [text.instant(at) for at in verdict.window],
        "columns": list(verdict.columns),
        "harm": verdict.harm,
        "cause": alert.cause or None,
        "why": alert.why or None,
        "advice": alert.advice,
        "since": text.instant(alert.since),
        "fired_at": None if alert.fired_at is None else text.instant(alert.fired_at),
        "resolved_at": None if alert.resolved_at is None else text.instant(alert.resolved_at),
        "ended": alert.ended or None,
    }
