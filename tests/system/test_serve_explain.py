"""`:explain` of a real server: by curl as by KServe's clients, in time, and at no prediction's cost."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving import Running, home_with, line_row, running

pytestmark = pytest.mark.system

JSON = "content-type: application/json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid", "slow")) as server:
        yield server


def test_curl_gets_predictions_and_explanations(server: Running, component: Callable[[str], str]) -> None:
    body = json.dumps({"instances": [{"a": 1.0, "b": 2, "c": 3.0}, {"a": 0.0, "b": 0, "c": None}]})
    command = [
        component("curl"),
        "-sS",
        "--fail-with-body",
        f"{server.url}/v1/models/line:explain",
        "-H",
        "content-type: application/json",
        "-d",
        body,
    ]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert said["predictions"] == [321.0, 0.0]
    for prediction, each in zip(said["predictions"], said["explanations"], strict=True):
        assert each["output"] == "prediction" and each["value"] == prediction and each["method"] == "exact"
        assert sum(each["contributions"].values()) == pytest.approx(each["value"] - each["base"], rel=1e-9)
    first, second = (each["contributions"] for each in said["explanations"])
    assert {name: first[name] - second[name] for name in "abc"} == pytest.approx({"a": 1.0, "b": 20.0, "c": 300.0})


def test_a_class_is_explained_and_one_that_is_not_refused(server: Running) -> None:
    asked = {"instances": [[9, 9, 9, 9]], "parameters": {"class": 0}}
    answer = server.ask("POST", "/v1/models/grid:explain", asked)
    (one,) = answer.json()["explanations"]
    assert answer.json()["predictions"] == [1] and (one["output"], one["class"]) == ("probability", 0) and one["value"] < 0.5
    refused = server.ask("POST", "/v1/models/grid:explain", {**asked, "parameters": {"class": "canary4711"}})
    assert (refused.status, refused.json()["field"]) == (400, "class") and b"canary" not in refused.body
    assert server.ask("POST", "/v1/models/shop:explain", {"instances": [{"city": "oslo", "size": 1.0}]}).status == 400
    assert server.ask("GET", "/v1/models/grid:explain").status == 405
    assert server.ask("POST", "/v1/models/none:explain", asked).status == 404


def test_an_explanation_keeps_its_deadline_and_holds_up_no_prediction(server: Running) -> None:
    slow = {"instances": [{"turns": 4000.0}]}
    late = server.ask("POST", "/v1/models/slow:explain", slow, headers={"X-Request-Timeout": "0.3"})
    assert late.status == 504
    answers = []
    patient = {"instances": [{"turns": 300.0}]}
    asking = threading.Thread(target=lambda: answers.append(server.ask("POST", "/v1/models/slow:explain", patient, timeout=60)))
    asking.start()
    served = 0
    while asking.is_alive():
        assert server.infer("line", line_row()).status == 200
        served += 1
    asking.join()
    assert answers[0].status in (200, 504) and served > 1


def test_explanations_are_counted_apart(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), settings={"metrics_dialect": "kserve"}) as server:
        assert server.ask("POST", "/v1/models/line:explain", {"instances": [[1, 2, 3]]}).status == 200
        said = server.ask("GET", "/metrics").body.decode()
    label = '{model_name="line",model_version="1"}'
    assert f"modelyard_explain_duration_seconds_count{label} 1\n" in said and f"modelyard_requests_total{label} 0\n" in said
    assert 'request_explain_seconds_count{model_name="line"} 1\n' in said
