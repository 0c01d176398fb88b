"""What the platforms themselves send, by curl and by the bytes of their clients: TensorFlow Serving, SageMaker, Vertex AI, Azure ML."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import Running, home_with, running

pytestmark = pytest.mark.system
HEALTH = "/v1/endpoints/1/deployedModels/2"


class Curl:
    """curl against one server."""

    def __init__(self, command: str, server: Running) -> None:
        self.command = command
        self.server = server

    def __call__(self, path: str, *arguments: str, data: Any = None) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body (JSON where it is) of `path`; `data` is sent as curl sends it when its user names no type."""
        given = [] if data is None else ["-d", data if isinstance(data, str) else json.dumps(data)]
        command = [self.command, "-sS", "-i", "--max-time", "20", f"{self.server.url}{path}", *arguments, *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.splitlines()
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(first.split()[1]), headers, json.loads(body) if headers.get("content-type") == "application/json" else body


@pytest.fixture(scope="module")
def several(component: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Curl]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid")) as server:
        yield Curl(component("curl"), server)


@pytest.fixture(scope="module")
def platform(component: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Curl]:
    """As Vertex AI starts it, which says so in variables of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("AIP_MODE", "PREDICTION"), ("AIP_HEALTH_ROUTE", HEALTH), ("AIP_PREDICT_ROUTE", f"{HEALTH}:predict")):
            patch.setenv(name, value)
        with running(home_with(tmp_path_factory.mktemp("home") / "h", "line")) as server:
            yield Curl(component("curl"), server)


def test_tensorflow_serving(several: Curl) -> None:
    """The calls of its RESTful API page."""
    status, _, said = several("/v1/models/line")
    assert (status, said["model_version_status"][0]["version"], said["model_version_status"][0]["state"]) == (200, "1", "AVAILABLE")
    assert several("/v1/models/line/metadata")[2]["model_spec"] == {"name": "line", "signature_name": "", "version": "1"}
    assert several("/v1/models/grid:predict", data={"instances": [[1.0, 2.0, 3.0, 4.0]]})[2] == {"predictions": [0]}
    row = {"signature_name": "serving_default", "instances": [{"a": 1.0, "b": 2, "c": 3.0}]}
    assert several("/v1/models/line/versions/1:predict", data=row)[2] == {"predictions": [321.0]}
    column = {"inputs": {"a": [1.0, 2.0], "b": [2, 3], "c": [3.0, 4.0]}}
    assert several("/v1/models/line/labels/stable:predict", data=column)[2] == {"outputs": [321.0, 432.0]}
    said = several("/v1/models/grid:classify", data={"examples": [{"X": [9.0, 9.0, 9.0, 9.0]}]})[2]["results"]
    assert [label for label, _ in said[0]] == ["0", "1"]
    assert several("/v1/models/line:regress", data={"examples": [{"a": 1, "b": 2, "c": 3}]})[2] == {"results": [321.0]}
    paris = {"instances": [{"city": {"b64": "cGFyaXM="}, "size": 4.0}]}
    assert several("/v1/models/shop:predict", data=paris)[2] == {"predictions": [8.0]}
    assert several("/v1/models/line:predict", data='{"instances": [{"a": 1.0, "b": 2, "c": NaN}]}')[2] == {"predictions": [21.0]}
    status, _, said = several("/v1/models/nothing:predict", data={"instances": [1.0]})
    assert (status, set(said) >= {"error"}) == (404, True)


def test_kserve_v1(several: Curl) -> None:
    assert several("/")[2] == {"status": "alive"}
    assert several("/v1/models")[2] == {"models": ["grid", "line", "shop"]}
    assert several("/v1/models/grid")[2]["ready"] is True
    status, _, said = several("/v1/models/grid:predict", data="{")
    assert (status, "error" in said) == (400, True)


def test_sagemaker(platform: Curl) -> None:
    for arguments in ((), ("-X", "POST")):
        status, headers, body = platform("/ping", *arguments)
        assert (status, headers["content-length"], body) == (200, "0", "")
    assert platform("/execution-parameters")[2]["BatchStrategy"] == "MULTI_RECORD"
    csv = ("-H", "Content-Type: text/csv", "-H", "Accept: text/csv", "--data-binary", "a,b,c\n1,2,3\n")
    assert platform("/invocations", *csv)[2] == "prediction\n321.0\n"
    lines = ("-H", "Content-Type: application/jsonlines", "-H", "Accept: application/jsonlines", "--data-binary", "[1,2,3]\n[4,5,6]\n")
    assert platform("/invocations", *lines)[2] == '{"prediction":321.0}\n{"prediction":654.0}\n'


def test_sagemaker_sdk_bytes(several: Curl) -> None:
    """What the platform forwards of an InvokeEndpoint call with a target model."""
    body = b"a,b,c\n1,2,3\n"
    head = (
        b"POST /models/line/invoke HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: text/csv\r\nAccept: application/json\r\n"
        b"X-Amzn-SageMaker-Custom-Attributes: c000b4f9-df62-4c85-a0bf-7c525f9104a4\r\nX-Amzn-SageMaker-Target-Model: line.tar.gz\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    (answer,) = several.server.send(head + body)
    assert answer.json() == {"predictions": [321.0]}
    assert several("/models")[2]["models"][0]["modelName"] == "grid"
    assert several("/models/nothing/invoke", data={"instances": [[1]]})[0] == 404


def test_vertex_ai(platform: Curl) -> None:
    assert platform(HEALTH)[0] == 200
    asked = {"instances": [[1.0, 2, 3.0], [4.0, 5, 6.0]], "parameters": {}}
    assert platform(f"{HEALTH}:predict", "-H", "Content-Type: application/json", data=asked)[2] == {"predictions": [321.0, 654.0]}


def test_azure_ml(platform: Curl) -> None:
    status, headers, said = platform("/score", "-H", "x-ms-client-request-id: mine", data={"data": [[1.0, 2, 3.0]]})
    assert (status, said, headers["x-ms-client-request-id"]) == (200, [321.0], "mine")
    assert headers["x-ms-request-id"] == headers["x-request-id"]
    assert platform("/score?a=1&b=2&c=3")[2] == [321.0]
    assert platform("/score", "-H", f"x-request-id: {'x' * 101}", data={"data": [[1.0, 2, 3.0]]})[0] == 431
    assert platform("/swagger.json")[2]["swagger"] == "2.0"


def test_bulk_by_curl(several: Curl, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,c\n" + "1,2,3\n" * 1000)
    arrow = tmp_path / "answer.arrow"
    several(
        "/v2/models/line/infer", "-H", "Content-Type: text/csv", "-H", "Accept: application/vnd.apache.arrow.stream", "--data-binary",
        f"@{tmp_path / 'rows.csv'}", "-o", str(arrow), "-D", str(tmp_path / "head"), "-w", "HTTP/1.1 200 OK\r\nx: y\r\n\r\n",
    )  # fmt: skip
    import pyarrow as pa

    content = arrow.read_bytes()
    assert pa.ipc.open_stream(content[content.index(b"\xff\xff\xff\xff") :]).read_all()["prediction"].to_pylist() == [321.0] * 1000
