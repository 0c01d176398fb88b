"""The dashboard for Grafana: a panel for every metric of the table, and each expression one that Prometheus reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus import named

from modelyard import metrics
from modelyard.metrics import METRICS, Metric
from modelyard.monitor.dashboard import dashboard, expressions


def filled(expression: str) -> str:
    """As Grafana asks it."""
    return expression.replace("$__rate_interval", "5m").replace("$model", ".*").replace("$deployment", ".*")


def test_every_metric_has_a_panel_and_no_other_is_named() -> None:
    assert set().union(*map(named, expressions(dashboard()))) == set(METRICS)


def test_a_metric_that_joins_the_table_joins_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics.METRICS, "modelyard_new_total", Metric("counter", "New.", ("reason",)))
    assert any("modelyard_new_total" in each for each in expressions(dashboard()))


def parses(expressions: list[str], folder: Path, promtool: str) -> bool:
    """Whether promtool takes each as the expression of a rule."""
    recording = [{"record": f"e:{at}", "expr": filled(each)} for at, each in enumerate(expressions)]
    path = folder / "expressions.yml"
    path.write_text(json.dumps({"groups": [{"name": "g", "rules": recording}]}))
    return subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, check=False).returncode == 0


def test_prometheus_reads_every_expression(tmp_path: Path, component: Callable[[str], str]) -> None:
    assert parses(expressions(dashboard()), tmp_path, component("promtool"))
    assert not parses([*expressions(dashboard()), "sum by (x ("], tmp_path, component("promtool")), "and would find one that is none"


def test_panels_stand_beside_and_below_one_another_and_none_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    made = dashboard()
    for panel in made["panels"]:
        at: dict[str, Any] = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)


def test_each_target_has_a_letter_and_asks_the_source_that_was_chosen() -> None:
    for panel in dashboard()["panels"]:
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(letters)) == len(letters)
        assert all(target["datasource"]["uid"] == "${source}" for target in panel.get("targets", ()))


def test_it_is_json_and_always_the_same() -> None:
    assert json.loads(json.dumps(dashboard())) == dashboard()
