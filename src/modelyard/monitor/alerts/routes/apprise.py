"""Apprise, the extra: a hundred services more, each by a URL of apprise's own form, which is a credential and so never stands in the settings.

Hides the library, which is loaded when the first message is sent. What it does with a URL is its own; it says no more than whether it went well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.errors import InvalidConfig, Unavailable
from modelyard.monitor.alerts import text
from modelyard.monitor.alerts.base import Notification
from modelyard.monitor.alerts.routes.base import Written, needed, read, secret


class Said(Written, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where apprise's URL lies."""

    url_file: str = ""
    url_env: str = ""


class Apprise:
    """A service that apprise knows."""

    kind = "apprise"
    forgets = False

    def __init__(self, name: str, written: dict[str, Any], folder: Path) -> None:
        said = read(name, written, Said)
        self.name = name
        self.severities = said.severities
        self._url = needed(name, "url", secret(name, "url", said, folder))

    @property
    def target(self) -> str:
        """See `alerts.base.Route`."""
        return f"the URL {self._url.place}"

    def send(self, notification: Notification) -> str:
        """See `alerts.base.Route`."""
        try:
            import apprise
        except ImportError as error:
            raise InvalidConfig("it needs the extra apprise: pip install 'modelyard[apprise]'", field="kind", rule="extra") from error
        asset = apprise.AppriseAsset(app_id="modelyard", app_desc="modelyard", async_mode=False)
        services = apprise.Apprise(asset=asset)
        if not services.add(self._url.read()):
            raise InvalidConfig("apprise knows no service by that URL", field="url", rule="url")
        kind = {"page": apprise.NotifyType.FAILURE, "report": apprise.NotifyType.WARNING}[notification.severity]
        if notification.kind == "test":
            kind = apprise.NotifyType.INFO
        elif not notification.firing:
            kind = apprise.NotifyType.SUCCESS
        try:
            is_told = services.notify(body=text.plain(notification), title=text.subject(notification), notify_type=kind)
        except Exception as error:
            raise Unavailable(f"apprise failed: {type(error).__name__}") from error
        if not is_told:
            raise Unavailable("the service did not take the message, or cannot be reached")
        return "the service took it"
