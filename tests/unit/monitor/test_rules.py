"""Rules for Prometheus: made from the table, taken by promtool, and right about burn rates by promtool's own tests."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus import named

from modelyard.errors import InvalidInput
from modelyard.metrics import METRICS
from modelyard.monitor import rules
from modelyard.serve.metrics import CODES


def test_every_metric_that_a_rule_names_is_in_the_table() -> None:
    expressions = [*(expr for _, expr in rules.records()), *(rule.expr for rule in rules.alerts())]
    assert set().union(*map(named, expressions)) <= set(METRICS)
    recorded = {name for name, _ in rules.records()}
    assert set(re.findall(r"\bmodelyard:[a-z0-9_:]+", " ".join(expressions))) == recorded, "and each recording is used and there"


def test_what_the_table_lacks_cannot_be_named() -> None:
    with pytest.raises(KeyError):
        rules.series("modelyard_nothing")
    with pytest.raises(KeyError):
        rules.series("modelyard_requests_total", colour='="red"')


def test_our_faults_are_error_codes() -> None:
    assert set(rules.OUR_FAULT) <= set(CODES)
    assert not {"invalid_input", "schema_mismatch", "not_found", "unauthenticated", "cancelled"} & set(rules.OUR_FAULT)


@pytest.mark.parametrize("objective", [0.5, 0.99, 0.999, 0.99999])
def test_promtool_takes_the_file(objective: float, tmp_path: Path, component: Callable[[str], str]) -> None:
    path = tmp_path / "modelyard.rules.yml"
    path.write_text(rules.written(objective))
    done = subprocess.run([component("promtool"), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules.records()) + len(rules.alerts())} rules found" in done.stdout


def test_promtool_does_find_faults(tmp_path: Path, component: Callable[[str], str]) -> None:
    path = tmp_path / "wrong.yml"
    path.write_text(rules.written().replace("sum by", "sum bye"))
    assert subprocess.run([component("promtool"), "check", "rules", str(path)], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("objective", [0.0, 0.4, 1.0, 1.5, float("nan")])
def test_an_objective_that_is_none_is_refused(objective: float) -> None:
    with pytest.raises(InvalidInput):
        rules.alerts(objective)


def test_the_file_is_its_document() -> None:
    assert [rule["alert"] for rule in rules.document()["groups"][1]["rules"]] == [rule.name for rule in rules.alerts()]
    assert len({rule.name for rule in rules.alerts()}) == len(rules.alerts())
    assert all(json.dumps(expr) in rules.written() for _, expr in rules.records())


def test_what_burns_is_told_in_words() -> None:
    told = [rule.summary.replace("{{ $labels.model_name }}", "churn") for rule in rules.alerts(0.999)[:3]]
    assert told[0] == "churn fails 14.4 times as many requests as an objective of 99.9% allows"
    assert told[2] == "churn fails all the requests that an objective of 99.9% allows, and goes on"


def scene(errors: str, requests: str, at: str, burning: list[str]) -> dict[str, Any]:
    """A test of promtool's: series by the minute, and which burn alerts fire then."""
    labels = 'model_name="churn",model_version="1"'
    series = [{"series": f"modelyard_requests_total{{{labels}}}", "values": requests}]
    if errors:
        series.append({"series": f'modelyard_errors_total{{{labels},code="internal"}}', "values": errors})
    expected = []
    for burn in rules.BURNS:
        name = f"ModelyardErrorBudgetBurn{burn.long}"
        (rule,) = (each for each in rules.alerts() if each.name == name)
        alert = {
            "exp_labels": {"severity": burn.severity, "model_name": "churn"},
            "exp_annotations": {"summary": rule.summary.replace("{{ $labels.model_name }}", "churn"), "description": rule.description},
        }
        expected.append({"eval_time": at, "alertname": name, "exp_alerts": [alert] if burn.long in burning else []})
    return {"interval": "1m", "input_series": series, "alert_rule_test": expected}


@pytest.mark.parametrize(
    ("errors", "requests", "at", "burning"),
    [
        ("", "0+1000x120", "2h", []),
        ("0+0x120", "0+1000x120", "2h", []),
        ("0+1x120", "0+2000x120", "2h", []),  # 0.05 %: within the objective
        ("0+20x120", "0+1000x120", "2h", ["1h", "6h", "3d"]),  # 2 %: 20 times too fast
        ("0+8x400", "0+1000x400", "6h", ["6h", "3d"]),  # 0.8 %: 8 times
        ("0+2x400", "0+1000x400", "6h", ["3d"]),  # 0.2 %: twice, nobody is woken
        ("0+20x60 1200+0x60", "0+1000x120", "2h", ["3d"]),  # it has ended: nobody is woken
        ("0+1x5 5+0x55", "0+2x60", "1h", ["3d"]),  # five failures of a hundred and twenty: too few for a page
    ],
)
def test_burn_rates_page_when_they_should(
    errors: str, requests: str, at: str, burning: list[str], tmp_path: Path, component: Callable[[str], str]
) -> None:
    (tmp_path / "modelyard.rules.yml").write_text(rules.written())
    test = {"rule_files": ["modelyard.rules.yml"], "evaluation_interval": "1m", "tests": [scene(errors, requests, at, burning)]}
    (tmp_path / "test.yml").write_text(json.dumps(test))
    done = subprocess.run([component("promtool"), "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
