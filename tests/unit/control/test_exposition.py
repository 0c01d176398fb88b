"""The control API's metrics: what the table says, in a form that promtool takes, whatever a rule is called."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from receivers import alert, over, verdict

from modelyard.control.alerting import Alerts, RouteStatus
from modelyard.control.exposition import render
from modelyard.types import Verdict


def rendered() -> str:
    alerts = Alerts(
        alerts=(alert(), alert(id="2", rule="concept"), alert(id="3", state="pending"), over()),
        silences=(),
        routes=(RouteStatus(name="oncall", kind="webhook", waiting=2, failing_since=1.0), RouteStatus(name="team", kind="slack")),
    )
    judged = (verdict(), verdict("pass", harm=None), verdict("unknown", 'drift:"é"\\\n', harm=None), verdict("pass", "concept", harm=0.0))
    return render(alerts, {"churn": judged, "fraud": ()}, {"churn": 0.4}).decode()


def test_figures_of_operations_are_told_beside_what_is_usual_and_no_others() -> None:
    found = Verdict(outcome="pass", rule="operations:latency_p50", evidence="", numbers={"figure": 0.004, "usual": 0.0045})
    early = Verdict(outcome="unknown", rule="operations:queue", evidence="")
    other = Verdict(outcome="pass", rule="quality:age", evidence="", numbers={"figure": 1.0})
    lines = render(Alerts(alerts=(), silences=(), routes=()), {"churn": (found, early, other)}, {}).decode().splitlines()
    told = [line for line in lines if line.startswith(("modelyard_monitor_figure", "modelyard_monitor_usual"))]
    assert told == [
        'modelyard_monitor_figure{deployment="churn",rule="operations:latency_p50"} 0.0040000000000000001',
        'modelyard_monitor_usual{deployment="churn",rule="operations:latency_p50"} 0.0044999999999999997',
    ]


def test_every_family_says_what_there_is() -> None:
    text = rendered()
    for line in (
        'modelyard_monitor_verdict{deployment="churn",rule="drift:age"} 2',
        'modelyard_monitor_verdict{deployment="churn",rule="drift:\\"é\\"\\\\\\n"} -1',
        'modelyard_monitor_verdict{deployment="churn",rule="concept"} 0',
        'modelyard_monitor_harm{deployment="churn",rule="drift:age"} 0.029999999999999999',
        'modelyard_monitor_harm{deployment="churn",rule="concept"} 0',
        'modelyard_monitor_budget_left{deployment="churn"} 0.40000000000000002',
        'modelyard_alerts{deployment="churn",severity="page",state="firing"} 2',
        'modelyard_alerts{deployment="churn",severity="page",state="pending"} 1',
        'modelyard_alert_route_failing{route="oncall"} 1',
        'modelyard_alert_route_failing{route="team"} 0',
        'modelyard_alert_messages_waiting{route="oncall"} 2',
    ):
        assert line in text.splitlines(), line
    assert "resolved" not in text


def test_promtool_finds_no_fault(component: Callable[[str], str]) -> None:
    done = subprocess.run([component("promtool"), "check", "metrics"], input=rendered(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
