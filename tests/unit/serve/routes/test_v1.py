from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from edging import Asking, asking

from serving import Home


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    home = Home(tmp_path_factory.mktemp("home") / "h")
    home.deploy("line", {home.add("line"): 90, home.add("line", offset=1000.0): 10})
    home.deploy("grid", {home.add("grid"): 100})
    yield from asking(home)


ROW = {"instances": [[1.0, 2, 3.0]]}
AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_status_is_the_union_and_of_a_version_tensorflows(asks: Asking) -> None:
    said = asks.ask("GET", "/v1/models/line").json()
    assert said == {"name": "line", "ready": True, "model_version_status": [{"version": "2", **AVAILABLE}, {"version": "1", **AVAILABLE}]}
    for path in ("/v1/models/line/versions/2", "/v1/models/line/labels/canary", "/V1/Models/line/Labels/CHALLENGER"):
        assert asks.ask("GET", path).json() == {"model_version_status": [{"version": "2", **AVAILABLE}]}
    assert asks.ask("GET", "/v1/models").json() == {"models": ["grid", "line"]}


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/models/line/versions/1:predict", 321.0),
        ("/v1/models/line/versions/2:predict", 1321.0),
        ("/v1/models/line/labels/stable:predict", 321.0),
        ("/v1/models/line/labels/champion:predict", 321.0),
        ("/v1/models/line/labels/canary:predict", 1321.0),
        ("/V1/MODELS/l%69ne/VERSIONS/2:PREDICT", 1321.0),
    ],
)
def test_versions_and_labels_answer(asks: Asking, path: str, answer: float) -> None:
    assert asks.ask("POST", path, ROW).json() == {"predictions": [answer]}


def test_classify_and_regress(asks: Asking) -> None:
    said = asks.ask("POST", "/v1/models/grid:classify", {"examples": [{"X": [9.0, 9.0, 9.0, 9.0]}]}).json()["results"]
    assert [[label for label, _ in each] for each in said] == [["0", "1"]]
    assert said[0][1][1] > 0.99
    assert asks.ask("POST", "/v1/models/line/versions/1:regress", {"examples": [{"a": 1, "b": [2], "c": 3}]}).json() == {"results": [321.0]}


def test_metadata(asks: Asking) -> None:
    for path, version in (
        ("/v1/models/line/metadata", "1"),
        ("/v1/models/line/versions/2/metadata", "2"),
        ("/v1/models/line/labels/canary/metadata", "2"),
    ):
        said = asks.ask("GET", path).json()
        assert said["model_spec"]["version"] == version
        assert "serving_default" in said["metadata"]["signature_def"]["signature_def"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/models/nothing", None, 404),
        ("GET", "/v1/models/LINE", None, 404),
        ("GET", "/v1/models/line/versions/9", None, 404),
        ("GET", "/v1/models/line/versions/17000000001", None, 404),
        ("GET", "/v1/models/line/versions/x", None, 404),
        ("GET", "/v1/models/line/labels/nothing", None, 400),
        ("GET", "/v1/models/grid/labels/canary", None, 400),
        ("GET", "/v1/models/line:predict", None, 405),
        ("POST", "/v1/models/line:guess", ROW, 404),
        ("POST", "/v1/models/nothing:predict", ROW, 404),
        ("POST", "/v1/models/line/versions/9:predict", ROW, 404),
        ("POST", "/v1/models/line:classify", {"examples": [{}]}, 400),
        ("POST", "/v1/models/grid:regress", {"examples": [{}]}, 400),
        ("POST", "/v1/models/line", ROW, 405),
    ],
)
def test_what_is_not_there(asks: Asking, method: str, path: str, body: Any, status: int) -> None:
    answer = asks.ask(method, path, body)
    assert answer.status == status, answer
    assert answer.json()["error"]
