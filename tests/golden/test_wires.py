"""Recorded bytes of real clients (tritonclient 2.73, KServe 0.21, curl with bodies as the wires' own pages have them) and of our answers: both stay
readable, and ours stay the same, for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.protocols import CODECS, bind
from modelyard.serve.routes import ROUTES
from modelyard.serve.routes.base import Route
from modelyard.types import Digest, InferenceResponse, Schema, TensorSpec
from serving import GRID, HALF, LINE, SHOP

WIRES = Path(__file__).parent / "wires"
CASES = sorted(path.name.removesuffix(".request.http") for path in WIRES.glob("*.request.http"))
ROWS = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.float32)
PROBABILITY = np.array([[0.9999545812606812, 0.00004538893699645996], [5.960464477539063e-8, 0.9999999403953552]], np.float32)
PAGE = Schema(
    inputs=(TensorSpec(name="input0", datatype="UINT32", shape=(-1, 2)), TensorSpec(name="input1", datatype="BOOL", shape=(-1,))),
    outputs=(TensorSpec(name="output0", datatype="FP32", shape=(-1, 2)),),
    layout="tensors",
    task="other",
)
"""The model of Triton's page on binary tensors, whose inputs have one number of rows here."""
MODELS: dict[str, tuple[Schema, dict[str, Any], dict[str, Any]]] = {
    "grid": (GRID, {"X": ROWS.tolist()}, {"label": np.array([0, 1]), "probability": PROBABILITY}),
    "shop": (SHOP, {"city": [["paris"], ["berlin"]], "size": [[4.0], [4.0]]}, {"prediction": np.array([8.0, 4.0])}),
    "line": (LINE, {"a": [[1.0], [2.0]], "b": [[2], [3]], "c": [[3.0], [4.0]]}, {"prediction": np.array([321.0, np.nan])}),
    "half": (HALF, {"X": [[1.5, 2.5], [0.25, 4.0]]}, {"y": np.array([[3.0, 5.0], [0.5, 8.0]], np.float16)}),
    "mymodel": (PAGE, {"input0": [[1, 2], [3, 4]], "input1": [True, False]}, {"output0": np.array([[1, 2], [3, 4]], np.float32)}),
}


class Edge:
    """What routes need to be told apart."""

    class settings:
        vertex_health_route = "/v1/endpoints/1/deployedModels/2"
        vertex_predict_route = "/v1/endpoints/1/deployedModels/2:predict"

    def __getattr__(self, name: str) -> Any:
        return lambda exchange, route: None


def read(path: Path) -> tuple[str, dict[str, str], bytes]:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    return first, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


def route_of(first: str, headers: dict[str, str]) -> Route:
    """The route that the edge would find for a recorded head."""
    method, target, _ = first.split(" ")
    path = target.partition("?")[0]
    for kind in reversed(ROUTES):
        family = kind(Edge())  # type: ignore[arg-type]
        methods = family.fixed.get(path) or family.find(path.split("/"))
        if methods is not None:
            route = methods[method.encode()]
            return route.settled(headers.get("content-type", ""), headers.get("accept", "")) if route.has_forms else route
    raise AssertionError(f"no route for {first}")


def answer(case: str) -> tuple[Route, bytes, bytes, dict[str, Any], dict[str, Any]]:
    """Route, header lines and body of our answer to a recorded request; and the inputs that were read and meant."""
    first, headers, body = read(WIRES / f"{case}.request.http")
    target = first.split(" ")[1]
    route = route_of(first, headers)
    name = route.model or "line"
    schema, meant, outputs = MODELS[name]
    codec = bind(name, schema)[route.wire]
    size = headers.get("inference-header-content-length")
    given = target.partition("?")[2].encode() if first.startswith("GET") else body
    request = codec.decode(given, headers.get("content-type", ""), None if size is None else int(size))
    rows = request.rows
    recorded = WIRES / f"{case}.response.http"
    said = read(recorded)[1] if recorded.exists() else {}
    given_id = request.id or said.get("x-prediction-id", "0-0")
    outputs = {key: array[:rows] for key, array in outputs.items()}
    response = InferenceResponse(outputs, rows, name=name, version=1, digest=Digest("sha256:0"), id=given_id)
    found = {key: array.tolist() for key, array in request.inputs.items()}
    return route, *codec.encode(request, response), found, {key: values[:rows] for key, values in meant.items()}


@pytest.mark.parametrize("case", CASES)
def test_recorded_bytes(case: str) -> None:
    _, lines, ours, found, meant = answer(case)
    assert found == meant
    _, said, recorded = read(WIRES / f"{case}.response.http")
    assert ours == recorded
    for line in lines.decode().splitlines():
        header, value = line.split(": ")
        assert said[header] == value


def test_there_is_a_recording_of_each_wire() -> None:
    recorded = {part for case in CASES for part in answer(case)[0].wire.split(":") if part}
    shared = ("kserve_v1", "tfserving", "v1_explain")  # by `v1_predict`, or beside it
    assert recorded >= {wire for wire in CODECS if "_grpc" not in wire and wire not in shared}
    assert len(CASES) == 32
