"""What the monitor found and how alerts fare, in Prometheus' text form: the control API's metrics.

Hides how verdicts become numbers. It must not ask anything: it is handed what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from modelyard import metrics
from modelyard.control.alerting import Alerts
from modelyard.metrics import labels
from modelyard.types import Verdict

VALUES = {"pass": 0.0, "warn": 1.0, "fail": 2.0, "unknown": -1.0}
"""The number of each outcome."""


def render(alerts: Alerts, verdicts: Mapping[str, Sequence[Verdict]], budgets: Mapping[str, float]) -> bytes:
    """`alerts`, the latest `verdicts` by deployment, and how many false pages each one's budget still allows."""
    judged = [(labels(deployment=name, rule=each.rule), each) for name, all_of in sorted(verdicts.items()) for each in all_of]
    counted = Counter((each.deployment, each.severity, each.state) for each in alerts.alerts if each.state != "resolved")
    states = [(labels(deployment=name, severity=severity, state=state), float(count)) for (name, severity, state), count in sorted(counted.items())]
    routes = [(labels(route=each.name), each) for each in alerts.routes]
    return metrics.text(
        {
            "modelyard_monitor_verdict": _worst((given, VALUES[each.outcome]) for given, each in judged),
            "modelyard_monitor_harm": _worst((given, each.harm) for given, each in judged if each.harm is not None),
            "modelyard_monitor_figure": _numbers(judged, "figure"),
            "modelyard_monitor_usual": _numbers(judged, "usual"),
            "modelyard_monitor_budget_left": [(labels(deployment=name), left) for name, left in sorted(budgets.items())],
            "modelyard_alerts": states,
            "modelyard_alert_route_failing": [(given, float(each.failing_since is not None)) for given, each in routes],
            "modelyard_alert_messages_waiting": [(given, float(each.waiting)) for given, each in routes],
        }
    )


def _numbers(judged: Sequence[tuple[str, Verdict]], name: str) -> list[tuple[str, float]]:
    """A number that verdicts of operations have."""
    return [(given, each.numbers[name]) for given, each in judged if each.rule.startswith("operations:") and name in each.numbers]


def _worst(samples: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """One sample for each set of labels: of a rule with several verdicts the worst."""
    found: dict[str, float] = {}
    for given, value in samples:
        found[given] = max(value, found.get(given, value))
    return list(found.items())
