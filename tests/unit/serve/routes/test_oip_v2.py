from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from edging import Asking, asking

from serving import Home, line_row


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    home = Home(tmp_path_factory.mktemp("home") / "h")
    home.deploy("line", {home.add("line"): 100}, hold=(home.add("line", offset=1000.0),))
    home.deploy("grid", {home.add("grid"): 100})
    yield from asking(home)


def test_server_and_model_metadata(asks: Asking) -> None:
    assert asks.ask("GET", "/v2").json()["extensions"] == ["binary_tensor_data", "model_repository"]
    told = asks.ask("GET", "/v2/models/line").json()
    assert (told["versions"], told["platform"]) == (["1", "2"], "onnxruntime_onnx")
    assert told["inputs"][2] == {"name": "c", "datatype": "FP32", "shape": [-1, 1], "parameters": {"nullable": True}}
    assert asks.ask("GET", "/v2/models/grid/versions/1").json()["outputs"][1]["parameters"] == {"classes": [0, 1]}
    assert asks.ask("GET", "/v2/models/line/versions/2/ready").json() == {"name": "line", "ready": True}


@pytest.mark.parametrize("body", [None, {}, {"ready": True}, {"ready": False}])
def test_the_index_lists_every_loaded_version(asks: Asking, body: dict[str, bool] | None) -> None:
    listed = asks.ask("POST", "/v2/repository/index", body).json()
    assert [(each["name"], each["version"]) for each in listed] == [("grid", "1"), ("line", "1"), ("line", "2")]
    assert {each["state"] for each in listed} == {"READY"}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": 1}', b"[" * 100_000])
def test_an_index_that_is_asked_wrongly(asks: Asking, body: bytes) -> None:
    assert asks.ask("POST", "/v2/repository/index", body).status == 400


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize("body", [b"{", b"[]", b'{"parameters": [1]}', b'{"parameters": {"\xff": 1}}', b'{"x": ' + b"[" * 100_000, b"null"])
def test_a_change_that_is_asked_wrongly(asks: Asking, verb: str, body: bytes) -> None:
    answer = asks.ask("POST", f"/v2/repository/models/line/{verb}", body)
    assert (answer.status, answer.json()["field"]) == (400, "body")


def test_a_version_answers_by_number(asks: Asking) -> None:
    for path, value in (("", 321.0), ("/versions/1", 321.0), ("/versions/2", 1321.0)):
        assert asks.ask("POST", f"/v2/models/line{path}/infer", {"inputs": line_row()}).json()["outputs"][0]["data"] == [value]


def test_a_raw_request_is_answered_in_binary(asks: Asking) -> None:
    rows = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], "<f4")
    answer = asks.ask("POST", "/v2/models/grid/infer", rows.tobytes(), {"inference-header-content-length": "0"})
    size = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.body[size : size + 16], "<i8").tolist() == [0, 1]


def test_bulk_forms_by_content_type_and_accept(asks: Asking) -> None:
    path = "/v2/models/line/infer"
    csv = asks.ask("POST", path, b"a,b,c\n1,2,3\n", {"content-type": "text/csv"})
    assert csv.body == b"prediction\n321.0\n"
    arrow = asks.ask(
        "POST", path, b'{"a":1,"b":2,"c":3}\n', {"content-type": "application/jsonlines", "accept": "application/vnd.apache.arrow.stream"}
    )
    again = asks.ask("POST", path, arrow.body, {"content-type": "application/vnd.apache.arrow.stream"})
    assert pa.ipc.open_stream(arrow.body).read_all().to_pydict() == {"prediction": [321.0]}
    assert (again.status, again.json()["field"]) == (400, "a")
    told = asks.ask("POST", path, b"a,b,c\n1,2,3\n", {"content-type": "text/csv", "accept": "application/json"}).json()
    assert (told["model_name"], told["outputs"][0]["data"]) == ("line", [321.0])
