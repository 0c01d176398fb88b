"""The wires of routes, one file each, and the literal table of them.

Hides how a route is made from what the settings say of it. Members are independent of each other; none is loaded before a route needs it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from modelyard.errors import InvalidConfig
from modelyard.monitor.alerts.base import Route

KINDS = {
    "webhook": "modelyard.monitor.alerts.routes.webhook:Webhook",
    "smtp": "modelyard.monitor.alerts.routes.smtp:Smtp",
    "slack": "modelyard.monitor.alerts.routes.slack:Slack",
    "alertmanager": "modelyard.monitor.alerts.routes.alertmanager:Alertmanager",
    "apprise": "modelyard.monitor.alerts.routes.apprise:Apprise",
}
"""kind -> "module:Class"."""


def make(name: str, written: dict[str, Any], folder: Path) -> Route:
    """The route called `name`, as `written` in settings that lie in `folder`. Raises InvalidConfig naming route and field."""
    kind = written.get("kind")
    if kind not in KINDS:
        raise InvalidConfig(f"route {name}: kind is one of {', '.join(KINDS)}", field=f"routes.{name}.kind", rule="known")
    module, _, called = KINDS[kind].partition(":")
    route: Route = getattr(import_module(module), called)(name, {key: value for key, value in written.items() if key != "kind"}, folder)
    return route
