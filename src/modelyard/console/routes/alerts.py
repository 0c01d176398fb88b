"""Alerts over HTTP: what fires, silences, and a message to see whether a route works."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from modelyard.console.operations import Call, Operation, in_utc
from modelyard.control import alerting
from modelyard.control.alerting import Alerts, Tested
from modelyard.control.once import Effect
from modelyard.errors import Forbidden, InvalidInput
from modelyard.monitor.alerts.base import TEXT_CHARACTERS, Matcher, Silence

Text = Annotated[str, msgspec.Meta(max_length=200)]


class SilenceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to silence (each that is given must fit: a deployment, a rule or detector, a guilty column, a severity), until when (ISO 8601 with a
    zone), and why.
    """

    until: datetime
    why: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARACTERS)]
    deployment: Text = ""
    rule: Text = ""
    column: Text = ""
    severity: Literal["", "page", "report"] = ""


def _alerts(call: Call) -> Alerts:
    return call.plane.alerts()


def _mine(found: Alerts, sees: Callable[[str], bool]) -> Alerts:
    return alerting.seen(found, sees)


def _silence(call: Call) -> Silence:
    asked: SilenceRequest = call.body
    if asked.until.tzinfo is None:
        raise InvalidInput("a silence ends at a time that names its zone", field="until", rule="form")
    matcher = Matcher(deployment=asked.deployment, rule=asked.rule, column=asked.column, severity=asked.severity)
    return call.plane.silence(call.who, matcher, until=in_utc(asked.until, "until").timestamp(), why=asked.why)


def _silenced(call: Call) -> tuple[str, ...]:
    """The deployment that is silenced: a key for some deployments silences one of them, and never all."""
    asked: SilenceRequest = call.body
    if asked.deployment:
        return (asked.deployment,)
    if call.who.models:
        raise Forbidden("you are held to some models; name the deployment that you silence", field="deployment", rule="grant")
    return ()


def _unsilence(call: Call) -> Silence:
    return call.plane.unsilence(call.who, call.path["id"])


def _silenced_again(_: Call, effect: Effect) -> Silence:
    return msgspec.convert(effect.body, Silence)


def _test(call: Call) -> Tested:
    return call.plane.test_route(call.who, call.path["route"])


def _metrics(call: Call) -> bytes:
    return call.plane.metrics()


OPERATIONS = (
    Operation("GET", "/metrics", "metrics", "Verdicts, harm, budgets, alerts and routes, for Prometheus.", _metrics, bytes, kind="metrics"),
    Operation("GET", "/alerts", "list_alerts", "What fires and what is over, silences, and how routes fare.", _alerts, Alerts, sift=_mine),
    Operation(
        "POST", "/silences", "silence", "Let nobody be told of some alerts for a while; they go on being judged and shown.",
        _silence, Silence, SilenceRequest, models=_silenced, status=lambda _: 201, statuses=(201,), recall=_silenced_again,
    ),
    Operation(
        "DELETE", "/silences/{id}", "unsilence", "End a silence now, by the first digits of its id.", _unsilence, Silence, recall=_silenced_again
    ),
    Operation(
        "POST", "/alerts/routes/{route}/test", "test_route", "Send a test message by a route, now, and say what came back.",
        _test, Tested, is_long=True,
    ),
)  # fmt: skip
