"""A deployment's watch over HTTP: what was judged of it, and how it is to be watched.

Settings are changed on the revision that their caller has seen (`expected_revision`; 0: nobody had said anything), or refused with the current ones.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from modelyard.console.failures import seen
from modelyard.console.operations import Call, Operation, in_utc
from modelyard.control.monitoring import Chosen
from modelyard.control.once import Effect
from modelyard.monitor.overview import Overview
from modelyard.monitor.settings import Monitored
from modelyard.security import policy


class MonitorQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From when on courses are told (ISO 8601; UTC where it names no zone); by default the window of the settings."""

    since: datetime | None = None


class SettingsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the deployment shall be watched, in full: what is left out is the default. `expected_revision` is of the settings that were seen."""

    settings: Monitored
    expected_revision: Annotated[int, msgspec.Meta(ge=0)] | None = None


_NEEDED = {"intake": "what is observed is not taken in now", "monitor": "nothing is judged now", "lease": "nothing can be written down now"}
"""What of the control process a watch needs, by its loop: where that fails, the watch is older than it looks."""


def _overview(call: Call) -> Overview:
    asked: MonitorQuery = call.query
    found = call.plane.overview(call.name, since=None if asked.since is None else in_utc(asked.since, "since"))
    failing = seen(call.world.failing(), lambda name: policy.sees(call.who, name))
    said = (f"{what}: {failing[loop]}" for loop, what in _NEEDED.items() if loop in failing)
    return msgspec.structs.replace(found, trouble=(*said, *found.trouble))


def _settings(call: Call) -> Chosen:
    return call.plane.monitored(call.name)


def _set(call: Call) -> Chosen:
    asked: SettingsRequest = call.body
    return call.plane.monitor_so(call.who, call.name, asked.settings, expected_revision=asked.expected_revision)


def _recalled(call: Call, effect: Effect) -> Chosen:
    said = msgspec.convert(effect.body, Chosen)
    now = call.plane.monitored(call.name)
    return now if msgspec.structs.replace(now, revision=0) == said else said


ONE = "/deployments/{name}/monitor"

OPERATIONS = (
    Operation(
        "GET", ONE, "monitor", "What was judged of a deployment: verdicts, the alarm budget, the course of traffic, drift and performance.",
        _overview, Overview, query=MonitorQuery,
    ),
    Operation("GET", f"{ONE}/settings", "get_monitor_settings", "How a deployment is watched, and who said so.", _settings, Chosen),
    Operation(
        "PUT", f"{ONE}/settings", "set_monitor_settings", "Let a deployment be watched so, from the next minute on.",
        _set, Chosen, SettingsRequest, current=_settings, recall=_recalled,
    ),
)  # fmt: skip
