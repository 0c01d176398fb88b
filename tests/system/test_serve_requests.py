"""Every route of every wire, asked over a real socket of a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import Running, home_with, line_row, running, tensor

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid"), workers=2) as server:
        yield server


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line")) as server:
        yield server


def test_v2_infer_answers_and_echoes_the_id(server: Running) -> None:
    answer = server.infer("line", line_row(), id="my-own")
    assert answer.status == 200
    assert answer.headers["x-prediction-id"] == "my-own"
    assert answer.json() == {
        "model_name": "line", "model_version": "1", "id": "my-own",
        "outputs": [{"name": "prediction", "datatype": "FP64", "shape": [1], "data": [321.0]}],
    }  # fmt: skip


def test_every_answer_has_a_prediction_id_of_its_own(server: Running) -> None:
    ids = {(answer := server.infer("line", line_row())).headers["x-prediction-id"] for _ in range(5)}
    assert len(ids) == 5
    assert answer.json()["id"] in ids


def test_v2_metadata_names_tensors_versions_and_the_order_of_classes(server: Running) -> None:
    meta = server.ask("GET", "/v2/models/grid").json()
    assert meta["versions"] == ["1"]
    assert meta["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
    assert meta["outputs"][1] == {"name": "probability", "datatype": "FP32", "shape": [-1, 2], "parameters": {"classes": [0, 1]}}
    assert server.ask("GET", "/v2/models/grid/versions/1").json() == meta
    assert server.ask("GET", "/v2").json()["extensions"] == ["binary_tensor_data", "model_repository"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", {"status": "alive"}),
        ("GET", "/v2/health/live", {"live": True}),
        ("GET", "/v2/health/ready", {"ready": True}),
        ("GET", "/healthz/live", {"live": True}),
        ("GET", "/healthz/ready", {"ready": True}),
        ("GET", "/v2/models", {"models": ["grid", "line", "shop"]}),
        ("GET", "/v1/models", {"models": ["grid", "line", "shop"]}),
        ("GET", "/v2/models/line/ready", {"name": "line", "ready": True}),
        ("GET", "/v2/models/line/versions/1/ready", {"name": "line", "ready": True}),
    ],
)
def test_what_is_served_and_how_it_stands(server: Running, method: str, path: str, expected: Any) -> None:
    answer = server.ask(method, path)
    assert (answer.status, answer.json()) == (200, expected)


def test_v1_model_answers_the_union_of_kserve_and_tensorflow_serving(server: Running) -> None:
    answer = server.ask("GET", "/v1/models/line").json()
    assert answer["ready"] is True
    assert answer["model_version_status"][0]["state"] == "AVAILABLE"


def test_repository_index(server: Running) -> None:
    states = server.ask("POST", "/v2/repository/index", {"ready": True}).json()
    assert {(each["name"], each["version"], each["state"]) for each in states} == {(name, "1", "READY") for name in ("grid", "line", "shop")}


def test_ping_is_empty_by_get_and_post(server: Running) -> None:
    for method in ("GET", "POST"):
        answer = server.ask(method, "/ping")
        assert (answer.status, answer.body) == (200, b"")


def test_head_is_get_without_a_body(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"HEAD /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b"".join(iter(lambda: connection.recv(4096), b""))
    assert data.startswith(b"HTTP/1.1 200 ")
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("instances", [[[1.0, 2, 3.0], [0, 0, None]], [{"c": 3.0, "a": 1, "b": 2.0}, {"a": 0, "b": 0, "c": None}]])
def test_v1_takes_rows_in_schema_order_and_records_by_name(server: Running, instances: Any) -> None:
    assert server.predict("line", instances).json() == {"predictions": [321.0, 0.0]}


def test_v1_gives_labels_of_a_classifier(server: Running) -> None:
    assert server.predict("grid", [[1, 2, 3, 4], [9, 9, 9, 9]]).json() == {"predictions": [0, 1]}


def test_strings_go_by_value(server: Running) -> None:
    assert server.predict("shop", [["paris", 4], ["berlin", 4]]).json() == {"predictions": [8.0, 4.0]}
    inputs = [tensor("city", ["paris"], "BYTES"), tensor("size", [4])]
    assert server.infer("shop", inputs).json()["outputs"][0]["data"] == [8.0]


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/json", {"dataframe_split": {"columns": ["c", "b", "a"], "data": [[3.0, 2, 1.0]]}}),
        ("application/json", {"dataframe_records": [{"a": 1.0, "b": 2, "c": 3.0}]}),
        ("application/json", {"instances": [[1.0, 2, 3.0]]}),
        ("application/json", {"inputs": {"a": [1.0], "b": [2], "c": [3.0]}}),
        ("application/json", [[1.0, 2, 3.0]]),
        ("application/jsonlines", b'{"a": 1.0, "b": 2, "c": 3.0}\n'),
        ("text/csv", b"b,a,c\r\n2,1.0,3\r\n"),
        ("text/csv; charset=utf-8", b"\xef\xbb\xbfb,a,c\n2,1.0,3\n\n"),
    ],
)
def test_invocations(single: Running, media: str, body: Any) -> None:
    answer = single.ask("POST", "/invocations", body, headers={"Content-Type": media})
    assert (answer.status, answer.json()) == (200, {"predictions": [321.0]})


def test_invocations_with_several_models_say_where_to_ask(server: Running) -> None:
    answer = server.ask("POST", "/invocations", {"instances": [[1.0, 2, 3.0]]})
    assert answer.status == 404
    assert "/v2/models" in answer.json()["error"]


def test_the_curl_line_of_the_card_works_as_printed(server: Running) -> None:
    assert [each["name"] for each in server.card["models"]] == ["grid", "line", "shop"]
    for each in server.card["models"]:
        done = subprocess.run(["sh", "-c", each["curl"]], capture_output=True, text=True, check=True)
        assert len(json.loads(done.stdout)["predictions"]) == 1


def test_the_openapi_description_is_valid_and_its_examples_are_answered(server: Running) -> None:
    from openapi_spec_validator import validate

    document = server.ask("GET", "/openapi.json").json()
    validate(document)
    asked = []
    for path, operations in document["paths"].items():
        example = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        if example is not None:
            assert server.ask("POST", path, example).status == 200
            asked.append(path)
    assert {"/v2/models/line/infer", "/v1/models/line:predict"} <= set(asked) and len(asked) >= 6


def test_outputs_asked_for(server: Running) -> None:
    inputs = [tensor("X", [1.0, 2.0, 3.0, 4.0], "FP32", [1, 4])]
    answer = server.infer("grid", inputs, outputs=[{"name": "probability"}]).json()
    assert [each["name"] for each in answer["outputs"]] == ["probability"]


def test_request_ids_and_trace_context_come_back(server: Running) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = server.ask("GET", "/v2", headers={"X-Request-Id": "r-1", "traceparent": trace})
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.headers["traceparent"] == trace


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    def request(a: int) -> bytes:
        body = json.dumps({"id": str(a), "inputs": line_row(a)}).encode()
        return b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    health = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers = server.send(b"".join(request(i) + health for i in range(100)) + last)
    assert [answer.json()["id"] for answer in answers[:-1:2]] == [str(i) for i in range(100)]
    assert all(answer.json() == {"live": True} for answer in answers[1:-1:2])
    assert answers[-1].json() == {"ready": True}


def test_chunked_and_gzip_bodies(server: Running) -> None:
    import gzip

    body = gzip.compress(json.dumps({"inputs": line_row()}).encode())
    chunks = b"".join(b"%x;note=1\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))
    head = (
        b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    (answer,) = server.send(head + chunks + b"0\r\nTrailer: x\r\n\r\n")
    assert answer.json()["outputs"][0]["data"] == [321.0]


def test_expectation_is_met_before_the_body_is_sent(server: Running) -> None:
    body = json.dumps({"inputs": line_row()}).encode()
    with server.connect() as connection:
        connection.sendall(
            b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_a_request_cut_into_single_bytes_is_the_same_request(server: Running) -> None:
    body = json.dumps({"inputs": line_row()}).encode()
    data = b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with server.connect() as connection:
        for at in range(len(data)):
            connection.send(data[at : at + 1])
        assert b"[321.0]" in connection.recv(4096)
        connection.sendall(data)  # and the connection goes on
        assert b"[321.0]" in connection.recv(4096)


def test_metrics_sum_over_workers(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), workers=2) as server:
        for _ in range(20):
            assert server.infer("line", line_row()).status == 200
        server.infer("line", line_row(a="x"))
        text = server.ask("GET", "/metrics").body.decode()
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    label = '{model_name="line",model_version="1"}'
    assert samples[f"modelyard_requests_total{label}"] == "20"
    assert samples['modelyard_errors_total{model_name="line",model_version="1",code="schema_mismatch"}'] == "1"
    assert samples[f"modelyard_request_duration_seconds_count{label}"] == "20"
    assert samples['modelyard_stage_duration_seconds_count{model_name="line",model_version="1",stage="predict"}'] == "20"
    assert float(samples['modelyard_connections_accepted_total{protocol="http"}']) > 0
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
