"""What others make of our OpenAPI: two generators whose clients predict, and schemathesis, which looks for server errors on every operation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard.serve.openapi import describe
from modelyard.types import Schema, TensorSpec
from serving import Running, home_with, running

pytestmark = pytest.mark.system

PYTHON_CLIENT = """
import json, sys
from made.client import Client
from made.api.default import infer_line, predict_line, regress_line, score, score_by_query
from made.models import InferLineBody, PredictLineBody, RegressLineBody, ScoreBody

client = Client(base_url=sys.argv[1])
row = {"a": 1.0, "b": 2, "c": None}
values = (("a", "FP64", 1), ("b", "INT64", 2), ("c", "FP32", None))
tensors = [{"name": name, "shape": [1, 1], "datatype": kind, "data": [value]} for name, kind, value in values]
said = {"v1": predict_line.sync(client=client, body=PredictLineBody.from_dict({"instances": [row]})).to_dict()}
said["v2"] = infer_line.sync(client=client, body=InferLineBody.from_dict({"inputs": tensors})).to_dict()["outputs"][0]["data"]
said["regress"] = regress_line.sync(client=client, body=RegressLineBody.from_dict({"examples": [row]})).to_dict()
said["score"] = score.sync(client=client, body=ScoreBody.from_dict({"data": [row]}))
said["query"] = score_by_query.sync(client=client, a="1", b="2", c="")
refused = predict_line.sync(client=client, body=PredictLineBody.from_dict({"instances": []}))
said["refused"] = refused.to_dict()["rule"]
print(json.dumps(said))
"""

GENERATOR_CLI = """
import json, sys
import openapi_client as made

api = made.DefaultApi(made.ApiClient(made.Configuration(host=sys.argv[1])))
row = {"a": 1.0, "b": 2, "c": None}
values = (("a", "FP64", 1), ("b", "INT64", 2), ("c", "FP32", None))
tensors = [{"name": name, "shape": [1, 1], "datatype": kind, "data": [value]} for name, kind, value in values]
said = {"v1": api.predict_line(made.PredictLineRequest.from_dict({"instances": [row]})).to_dict()}
said["v2"] = api.infer_line(made.InferLineRequest.from_dict({"inputs": tensors})).to_dict()["outputs"][0]["data"]
said["regress"] = api.regress_line(made.RegressLineRequest.from_dict({"examples": [row]})).to_dict()
said["score"] = api.score(made.ScoreRequest.from_dict({"data": [row]}))
said["query"] = api.score_by_query(a="1", b="2", c="")
try:
    api.predict_line(made.PredictLineRequest.from_dict({"instances": []}))
except made.ApiException as error:
    said["refused"] = json.loads(error.body)["rule"]
except ValueError:
    said["refused"] = "size"  # the client itself holds to the least number of rows
print(json.dumps(said))
"""

SAID: dict[str, Any] = {
    "v1": {"predictions": [21.0]}, "v2": [21.0], "regress": {"results": [21.0]}, "score": [21.0], "query": [21.0], "refused": "size",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line")) as server:
        yield server


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid")) as server:
        yield server


def run(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, **variables})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def ask(python: Path, script: str, server: Running, folder: Path) -> Any:
    return json.loads(run([str(python), "-c", script, server.url], folder).splitlines()[-1])


def test_openapi_python_client(server: Running, openapi_python: Path, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_bytes(server.ask("GET", "/openapi.json").body)
    tool = openapi_python.parent / "openapi-python-client"
    command = [str(tool), "generate", "--path", "openapi.json", "--meta", "none", "--output-path", "made", "--fail-on-warning"]
    run(command, tmp_path, PATH=f"{openapi_python.parent}:{os.environ['PATH']}")
    assert ask(openapi_python, PYTHON_CLIENT, server, tmp_path) == SAID


def test_openapi_generator(server: Running, openapi_python: Path, component: Callable[[str], str], tmp_path: Path) -> None:
    component("java")
    (tmp_path / "openapi.json").write_bytes(server.ask("GET", "/openapi.json").body)
    run([str(openapi_python.parent / "openapi-generator-cli"), "generate", "-i", "openapi.json", "-g", "python", "-o", "."], tmp_path)
    assert ask(openapi_python, GENERATOR_CLI, server, tmp_path) == SAID


def test_both_read_a_description_of_several_models_and_of_one_among_them(several: Running, openapi_python: Path, tmp_path: Path) -> None:
    for name, path in (("all", "/openapi.json"), ("shop", "/v2/models/shop/openapi.json")):
        (tmp_path / f"{name}.json").write_bytes(several.ask("GET", path).body)
        tool = str(openapi_python.parent / "openapi-python-client")
        command = [tool, "generate", "--path", f"{name}.json", "--meta", "none", "--output-path", name, "--fail-on-warning"]
        run(command, tmp_path, PATH=f"{openapi_python.parent}:{os.environ['PATH']}")
        assert (tmp_path / name / "api" / "default" / "infer_shop.py").exists()
        assert (tmp_path / name / "api" / "default" / "infer_line.py").exists() == (name == "all")


ODD = Schema(
    inputs=(
        TensorSpec(name="hours-per-week", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="work class", datatype="BYTES", shape=(-1, 1), categories=("Private", "?"), unknown_allowed=False, is_nullable=True),
        TensorSpec(name="marital.status", datatype="BYTES", shape=(-1, 1), categories=("Never-married", "Never married"), unknown_allowed=False),
        TensorSpec(name="class", datatype="BOOL", shape=(-1, 1)),
        TensorSpec(name="größe", datatype="FP64", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="1st", datatype="FP32", shape=(-1, 1)),
    ),
    outputs=(TensorSpec(name="label", datatype="BYTES", shape=(-1,)), TensorSpec(name="probability", datatype="FP32", shape=(-1, 2))),
    layout="frame",
    task="classification",
    classes=("<=50K", ">50K"),
)
IMAGE = Schema(
    inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 3, 224, 224)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 10)),),
    layout="tensors",
    task="other",
)


def test_names_that_are_no_names_of_a_language_are_read_too(openapi_python: Path, tmp_path: Path) -> None:
    document = describe([("adult-income", ODD, {}), ("adult.income", ODD, {}), ("image", IMAGE, {})], release="1")
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    tool = str(openapi_python.parent / "openapi-python-client")
    command = [tool, "generate", "--path", "openapi.json", "--meta", "none", "--output-path", "made", "--fail-on-warning"]
    run(command, tmp_path, PATH=f"{openapi_python.parent}:{os.environ['PATH']}")
    row = {"hours-per-week": 1, "work class": None, "marital.status": "Never-married", "class": True, "größe": None, "1st": 1.0}
    script = "import json, sys; import made.models as m; print(json.dumps(m.PredictAdultIncomeBody.from_dict(json.loads(sys.argv[1])).to_dict()))"
    body = {"instances": [row]}
    assert json.loads(run([str(openapi_python), "-c", script, json.dumps(body)], tmp_path)) == body


@pytest.mark.parametrize("which", ["server", "several"])
def test_schemathesis_finds_no_server_error(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    asked: Running = request.getfixturevalue(which)
    tool = str(Path(sys.executable).parent / "schemathesis")
    bounds = ["--max-examples", "15", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color"]
    said = run([tool, "run", f"{asked.url}/openapi.json", "--checks", "not_a_server_error", *bounds], tmp_path)
    assert "Test cases:" in said, said[-500:]
    assert asked.is_well()


class Broken(BaseHTTPRequestHandler):
    """Fails on everything."""

    def do_GET(self) -> None:
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def test_schemathesis_would_find_one(server: Running, tmp_path: Path) -> None:
    """The negative control: the same description over a server that fails."""
    document = server.ask("GET", "/openapi.json").json()
    document["paths"] = {"/v2": document["paths"]["/v2"]}
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    broken = HTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=broken.serve_forever)
    thread.start()
    try:
        tool = str(Path(sys.executable).parent / "schemathesis")
        url = f"http://127.0.0.1:{broken.server_port}"
        command = [tool, "run", "openapi.json", "--url", url, "--checks", "not_a_server_error", "--max-examples", "1", "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    finally:
        broken.shutdown()
        thread.join()
        broken.server_close()
    assert done.returncode == 1
    assert "Server error" in done.stdout
