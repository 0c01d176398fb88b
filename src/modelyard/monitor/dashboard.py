"""A dashboard for Grafana, made from the table of metrics: a panel for each, by its kind, under a row that sums them up.

Hides Grafana's JSON. A metric that joins the table has its panel without a line here; every expression is put together by `monitor.rules.series`, so
that none can name what is not there. Pure.
"""

from __future__ import annotations

from typing import Any

from modelyard.metrics import METRICS, MODEL, Metric
from modelyard.monitor.rules import OUR_FAULT, series

SCHEMA = 39
"""Grafana's version of the dashboard form: that of Grafana 11."""

UNITS = {"seconds": "s", "bytes": "bytes", "rows": "short", "requests": "short", "connections": "short", "pages": "short", "": "short"}
RATES = {"requests": "reqps", "rows": "rowsps"}
WIDTH, HEIGHT, ACROSS = 12, 8, 24
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_MODEL = '=~"$model"'
_DEPLOYMENT = '=~"$deployment"'


def dashboard() -> dict[str, Any]:
    """The dashboard, to be imported or provisioned."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, made in (("At a glance", _glance()), ("The monitor and its alerts", _all("control")), ("The data plane", _all("data"))):
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": ACROSS, "x": 0, "y": y}})
        y += 1
        for at, panel in enumerate(made):
            panels.append({**panel, "gridPos": {"h": HEIGHT, "w": WIDTH, "x": WIDTH * (at % 2), "y": y + HEIGHT * (at // 2)}})
        y += HEIGHT * ((len(made) + 1) // 2)
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "uid": "modelyard",
        "title": "modelyard",
        "tags": ["modelyard"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("model", "Model", "modelyard_requests_total", "model_name"),
                _variable("deployment", "Deployment", "modelyard_monitor_verdict", "deployment"),
            ]
        },
        "panels": panels,
    }


def expressions(made: dict[str, Any]) -> list[str]:
    """Every expression in a dashboard."""
    return [target["expr"] for panel in made["panels"] for target in panel.get("targets", ())]


def _glance() -> list[dict[str, Any]]:
    answered, failed = "modelyard_requests_total", "modelyard_errors_total"
    ours = series(failed, model_name=_MODEL, code=f'=~"{"|".join(OUR_FAULT)}"')
    latency = series("modelyard_request_duration_seconds", model_name=_MODEL).replace("modelyard_request_duration_seconds", _bucket)
    firing = series("modelyard_alerts", deployment=_DEPLOYMENT, state='="firing"')
    return [
        _panel(
            "Requests a second", "reqps", ("{{model_name}}", f"sum by (model_name) (rate({series(answered, model_name=_MODEL)}[$__rate_interval]))")
        ),
        _panel("Alerts that fire", "short", ("{{deployment}} {{severity}}", f"sum by (deployment, severity) ({firing})")),
        _panel(
            "Share of requests that we failed", "percentunit",
            (
                "{{model_name}}",
                f"sum by (model_name) (rate({ours}[$__rate_interval])) / sum by (model_name) "
                f"(rate({series(answered, model_name=_MODEL)}[$__rate_interval]))",
            ),
        ),
        _panel(
            "Latency", "s",
            *(
                (f"p{100 * q:g} {{{{model_name}}}}", f"histogram_quantile({q}, sum by (le, model_name) (rate({latency}[$__rate_interval])))")
                for q in (0.5, 0.99)
            ),
        ),
    ]  # fmt: skip


_bucket = "modelyard_request_duration_seconds_bucket"


def _all(plane: str) -> list[dict[str, Any]]:
    return [_of(name, metric) for name, metric in METRICS.items() if metric.plane == plane]


def _of(name: str, metric: Metric) -> dict[str, Any]:
    """The panel of one metric: a counter's rate, a gauge, or a histogram's median and 99th percentile."""
    matchers = {}
    if "model_name" in metric.labels:
        matchers["model_name"] = _MODEL
    if "deployment" in metric.labels:
        matchers["deployment"] = _DEPLOYMENT
    selector = series(name, **matchers)
    by = ", ".join(metric.labels)
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or name
    if metric.kind == "counter":
        expr = f"sum by ({by}) (rate({selector}[$__rate_interval]))" if by else f"sum(rate({selector}[$__rate_interval]))"
        return _panel(f"{_title(name)} a second", RATES.get(metric.unit, "cps"), (legend, expr), says=metric.says)
    if metric.kind == "gauge":
        fold = "sum" if metric.labels[:2] == MODEL or not by else "max"  # what several instances say alike is not to be added up
        return _panel(_title(name), UNITS[metric.unit], (legend, f"{fold} by ({by}) ({selector})" if by else f"{fold}({selector})"), says=metric.says)
    buckets = selector.replace(name, f"{name}_bucket", 1)
    quantiles = ((f"p{100 * q:g} {legend}", f"histogram_quantile({q}, sum by (le, {by}) (rate({buckets}[$__rate_interval])))") for q in (0.5, 0.99))
    return _panel(_title(name), UNITS[metric.unit], *quantiles, says=metric.says)


def _title(name: str) -> str:
    words = name.removeprefix("modelyard_").removesuffix("_total").removesuffix("_seconds").removesuffix("_bytes").replace("_", " ")
    return words[0].upper() + words[1:]


def _panel(title: str, unit: str, *targets: tuple[str, str], says: str = "") -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "description": says,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": None, "custom": {"fillOpacity": 8, "showPoints": "never"}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": expr, "legendFormat": legend} for at, (legend, expr) in enumerate(targets)
        ],
    }


def _variable(name: str, label: str, metric: str, of: str) -> dict[str, Any]:
    query = f"label_values({series(metric)}, {of})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }
