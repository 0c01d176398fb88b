"""Rules for Prometheus, made from the table of metrics: what it should page and report on for a house that alerts from there.

Hides the file's form and the arithmetic of burn rates (Google SRE Workbook, chapter 5). Every expression is put together from the table, so that a
rule cannot name a metric or a label that is not there. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from modelyard.errors import InvalidInput
from modelyard.metrics import METRICS

OUR_FAULT = ("internal", "overloaded", "unavailable", "deadline_exceeded", "model_failed", "other")
"""Error codes that are the server's fault: what counts against the objective. A caller's mistakes do not."""

OBJECTIVE = 0.999
BAD_EVENTS = 10
"""A page needs as many requests that failed: of a few requests one failure is a rate, and no outage."""


class Burn(NamedTuple):
    """A page or report when the error budget burns `factor` times too fast over both windows."""

    factor: float
    long: str
    short: str
    severity: str


BURNS = (Burn(14.4, "1h", "5m", "page"), Burn(6.0, "6h", "30m", "page"), Burn(1.0, "3d", "6h", "report"))
WINDOWS = ("5m", "30m", "1h", "6h", "3d")


class Rule(NamedTuple):
    """An alert of Prometheus; `holds` is its `for`."""

    name: str
    expr: str
    holds: str
    severity: str
    summary: str
    description: str


def series(name: str, **matchers: str) -> str:
    """A selector of the metric `name`; matchers are written with their operator (`code='=~"a|b"'`). Raises KeyError for what the table lacks."""
    metric = METRICS[name]
    for label in matchers:
        if label not in metric.labels:
            raise KeyError(f"{name} has no label {label}")
    return f"{name}{{{','.join(f'{label}{given}' for label, given in matchers.items())}}}" if matchers else name


def recorded(window: str) -> str:
    """The name under which the share of failed requests over `window` is recorded."""
    return f"modelyard:failed:ratio_rate{window}"


def records() -> list[tuple[str, str]]:
    """What is recorded: (name, expression)."""
    bad = series("modelyard_errors_total", code=f'=~"{"|".join(OUR_FAULT)}"')
    good = series("modelyard_requests_total")
    found = []
    for window in WINDOWS:
        failed = f"sum by (model_name) (rate({bad}[{window}]))"
        # A model without a failure yet has no series of errors: its share is 0 and not absent.
        whole = f"(sum by (model_name) (rate({good}[{window}])) + ({failed} or 0 * sum by (model_name) (rate({good}[{window}]))))"
        found.append((recorded(window), f"({failed} or 0 * sum by (model_name) (rate({good}[{window}]))) / {whole}"))
    return found


def alerts(objective: float = OBJECTIVE) -> list[Rule]:
    """The alerts, for an objective of requests that are answered (0.999: one in a thousand may fail). Raises InvalidInput."""
    if not 0.5 <= objective < 1:
        raise InvalidInput("an objective is a share from 0.5 to below 1, such as 0.999", field="objective", rule="range")
    budget = 1 - objective
    bad = series("modelyard_errors_total", code=f'=~"{"|".join(OUR_FAULT)}"')
    rules = []
    for burn in BURNS:
        bound = f"{burn.factor * budget:.6g}"
        expr = f"{recorded(burn.long)} > {bound} and {recorded(burn.short)} > {bound}"
        if burn.severity == "page":
            expr = f"({expr}) and sum by (model_name) (increase({bad}[{burn.long}])) >= {BAD_EVENTS}"
        rules.append(
            Rule(
                f"ModelyardErrorBudgetBurn{burn.long}",
                expr,
                "0s",
                burn.severity,
                f"{{{{ $labels.model_name }}}} fails {burn.factor:g} times as many requests as an objective of {100 * objective:.6g}% allows"
                if burn.factor > 1
                else f"{{{{ $labels.model_name }}}} fails all the requests that an objective of {100 * objective:.6g}% allows, and goes on",
                f"Over {burn.long} and {burn.short}. See `modelyard status`; `modelyard rollback` if it began with a deploy.",
            )
        )
    return [
        *rules,
        Rule(
            "ModelyardDataPlaneAway", f"absent({series('modelyard_in_flight_requests')})", "5m", "page",
            "no data plane is scraped", "It is down, or Prometheus cannot reach it.",
        ),
        Rule(
            "ModelyardDegraded", f"sum by (reason) ({series('modelyard_degraded')}) > 0", "10m", "report",
            "the data plane is less than whole: {{ $labels.reason }}", "See `modelyard status`.",
        ),
        Rule(
            "ModelyardProcessesEnd", f"sum by (model_name, reason) (increase({series('modelyard_isolated_ends_total')}[15m])) > 5", "0s", "report",
            "processes of {{ $labels.model_name }} keep ending: {{ $labels.reason }}", "See the data plane's log.",
        ),
        Rule(
            "ModelyardModelAlert",
            f"sum by (deployment, severity) ({series('modelyard_alerts', state='=' + json.dumps('firing'))}) > 0",
            "0s", "{{ $labels.severity }}", "{{ $labels.deployment }} has an alert that fires", "See `modelyard alerts {{ $labels.deployment }}`.",
        ),
        Rule(
            "ModelyardAlertRouteFails", f"{series('modelyard_alert_route_failing')} > 0", "10m", "page",
            "alerts do not reach {{ $labels.route }}", "See `modelyard alerts`; nothing is lost, it waits.",
        ),
        Rule(
            "ModelyardBudgetSpent", f"{series('modelyard_monitor_budget_left')} <= 0", "0s", "report",
            "{{ $labels.deployment }} has spent its budget of false pages", "See `modelyard monitor {{ $labels.deployment }}`.",
        ),
    ]  # fmt: skip


def document(objective: float = OBJECTIVE) -> dict[str, Any]:
    """The rules file as Prometheus has it."""
    recording = [{"record": name, "expr": expr} for name, expr in records()]
    alerting = [
        {
            "alert": rule.name,
            "expr": rule.expr,
            **({} if rule.holds == "0s" else {"for": rule.holds}),
            "labels": {"severity": rule.severity},
            "annotations": {"summary": rule.summary, "description": rule.description},
        }
        for rule in alerts(objective)
    ]
    return {"groups": [{"name": "modelyard-records", "rules": recording}, {"name": "modelyard-alerts", "rules": alerting}]}


def written(objective: float = OBJECTIVE) -> str:
    """The rules file, in YAML."""
    return "# Made by `modelyard monitor rules`; make it anew after an upgrade.\n" + "\n".join(_yaml(document(objective), 0)) + "\n"


def _yaml(value: Any, depth: int) -> list[str]:
    """`value` in YAML's block form; texts in double quotes, which is JSON's form too."""
    pad = "  " * depth
    lines: list[str] = []
    for name, each in value.items():
        if isinstance(each, dict):
            lines += [f"{pad}{name}:", *_yaml(each, depth + 1)]
        elif isinstance(each, list):
            lines.append(f"{pad}{name}:")
            for item in each:
                first, *rest = _yaml(item, depth + 2)
                lines += [re.sub(r"^( *)  ", r"\1- ", first, count=1), *rest]
        else:
            lines.append(f"{pad}{name}: {json.dumps(each)}")
    return lines
