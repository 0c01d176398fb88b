"""The table of every metric that modelyard exposes: its name, kind, meaning, labels and unit, once.

Hides nothing. Both planes write their metrics by it, and the rules and the dashboard for Prometheus and Grafana are made from it, so that none of
them can name what is not there. It must not know how a number is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["", "seconds", "bytes", "rows", "requests", "connections", "pages"]
Plane = Literal["data", "control"]

MODEL = ("model_name", "model_version")


class Metric(NamedTuple):
    """One family. `unit` is that of a sample (of a histogram: of what is observed), "" for a plain count; `plane` says whose /metrics has it."""

    kind: Kind
    says: str
    labels: tuple[str, ...] = ()
    unit: Unit = ""
    plane: Plane = "data"


METRICS: dict[str, Metric] = {
    "modelyard_requests_total": Metric("counter", "Requests answered with a prediction.", MODEL, "requests"),
    "modelyard_predictions_total": Metric("counter", "Rows predicted.", MODEL, "rows"),
    "modelyard_batches_total": Metric("counter", "Runs of the model.", MODEL),
    "modelyard_errors_total": Metric("counter", "Requests refused or failed, by error code.", (*MODEL, "code"), "requests"),
    "modelyard_shed_total": Metric("counter", "Requests refused to protect those already in.", MODEL, "requests"),
    "modelyard_queue_rows": Metric("gauge", "Rows waiting for the model.", MODEL, "rows"),
    "modelyard_queue_requests": Metric("gauge", "Requests waiting for the model.", MODEL, "requests"),
    "modelyard_concurrency_limit": Metric("gauge", "Requests that the workers hold at once before they shed.", MODEL, "requests"),
    "modelyard_in_flight_requests": Metric("gauge", "Requests without an answer yet.", (), "requests"),
    "modelyard_resident_bytes": Metric("gauge", "Memory of all workers.", (), "bytes"),
    "modelyard_isolated_resident_bytes": Metric("gauge", "Memory of the processes of models that are code.", MODEL, "bytes"),
    "modelyard_isolated_ends_total": Metric("counter", "Processes of models that are code that ended, and were replaced.", (*MODEL, "reason")),
    "modelyard_connections": Metric("gauge", "Open connections.", ("protocol",), "connections"),
    "modelyard_connections_accepted_total": Metric("counter", "Connections that were accepted.", ("protocol",), "connections"),
    "modelyard_mirrored_requests_total": Metric(
        "counter", "Requests of the champion that this version was to be asked too.", (*MODEL, "outcome"), "requests"
    ),
    "modelyard_mirrored_rows_total": Metric("counter", "Rows whose mirrored answer was compared with the champion's.", (*MODEL, "outcome"), "rows"),
    "modelyard_traces_total": Metric("counter", "Sampled requests whose trace was sent, and those whose trace was lost.", ("outcome",), "requests"),
    "modelyard_request_duration_seconds": Metric("histogram", "From the request's last byte to its answer.", MODEL, "seconds"),
    "modelyard_stage_duration_seconds": Metric("histogram", "Where requests spend it: decode, queue, predict, encode.", (*MODEL, "stage"), "seconds"),
    "modelyard_explain_duration_seconds": Metric("histogram", "Making an explanation.", MODEL, "seconds"),
    "modelyard_batch_rows": Metric("histogram", "Rows of a run.", MODEL, "rows"),
    "modelyard_degraded": Metric("gauge", "What keeps the data plane from being whole.", ("reason",)),
    "modelyard_monitor_verdict": Metric(
        "gauge", "The latest verdict of a rule: 0 pass, 1 warn, 2 fail, -1 unknown.", ("deployment", "rule"), plane="control"
    ),
    "modelyard_monitor_harm": Metric(
        "gauge", "Estimated loss of the model's own figure, by the rule that found it.", ("deployment", "rule"), plane="control"
    ),
    "modelyard_monitor_figure": Metric(
        "gauge", "What an operations rule measured: seconds, a share, requests or bytes.", ("deployment", "rule"), plane="control"
    ),
    "modelyard_monitor_usual": Metric("gauge", "What is usual where an operations rule measured.", ("deployment", "rule"), plane="control"),
    "modelyard_monitor_budget_left": Metric("gauge", "False pages that the alarm budget still allows.", ("deployment",), "pages", plane="control"),
    "modelyard_alerts": Metric("gauge", "Alerts that are pending or fire.", ("deployment", "severity", "state"), plane="control"),
    "modelyard_alert_route_failing": Metric("gauge", "Whether a route of alerts takes no messages now.", ("route",), plane="control"),
    "modelyard_alert_messages_waiting": Metric("gauge", "Messages that a route has not taken yet.", ("route",), plane="control"),
}
"""name -> what it is. The order is that of the exposition."""


def labels(**named: str) -> str:
    """Labels as the text form has them, their values escaped."""
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in named.items())
    return ",".join(f'{name}="{value}"' for name, value in escaped)


def family(name: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    """The lines of the counter or gauge `name` of the table; samples are (labels, value)."""
    metric = METRICS[name]
    lines = head(name, metric.kind, metric.says)
    return lines + [f"{name}{{{given}}} {value:.17g}" if given else f"{name} {value:.17g}" for given, value in samples]


def head(name: str, kind: str, says: str) -> list[str]:
    """The two lines before the samples of a family."""
    return [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]


def text(families: Mapping[str, Iterable[tuple[str, float]]]) -> bytes:
    """Families of the table in Prometheus' text form (0.0.4)."""
    return ("\n".join(line for name, samples in families.items() for line in family(name, samples)) + "\n").encode()
