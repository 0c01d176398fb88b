"""The table of metrics keeps Prometheus' own rules of names, and is written as its text form has it."""

from __future__ import annotations

import re

import pytest

from modelyard import metrics
from modelyard.metrics import METRICS


@pytest.mark.parametrize("name", METRICS)
def test_names_follow_the_conventions(name: str) -> None:
    metric = METRICS[name]
    assert re.fullmatch(r"modelyard_[a-z_]+", name)
    assert (metric.kind == "counter") == name.endswith("_total")
    assert metric.says.endswith(".") and "\n" not in metric.says
    if metric.kind == "histogram" and metric.unit in ("seconds", "rows"):
        assert name.endswith(f"_{metric.unit}")
    assert all(re.fullmatch(r"[a-z_]+", label) for label in metric.labels)


def test_a_family_is_a_head_and_its_samples() -> None:
    assert metrics.family("modelyard_alerts", [(metrics.labels(deployment="a"), 1.0)]) == [
        f"# HELP modelyard_alerts {METRICS['modelyard_alerts'].says}",
        "# TYPE modelyard_alerts gauge",
        'modelyard_alerts{deployment="a"} 1',
    ]
    assert metrics.family("modelyard_resident_bytes", [("", 2.5)])[-1] == "modelyard_resident_bytes 2.5"
    assert metrics.text({"modelyard_alerts": []}).endswith(b"gauge\n")


def test_label_values_are_escaped() -> None:
    assert metrics.labels(rule='a"b\\c\nd') == 'rule="a\\"b\\\\c\\nd"'
