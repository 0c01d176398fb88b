"""Recorded bytes of real clients (tritonclient 2.73, KServe 0.21) and of our answers: both stay readable, and ours stay the same, for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard.protocols import bind
from modelyard.types import Digest, InferenceResponse
from serving import GRID, SHOP

WIRES = Path(__file__).parent / "wires"
CASES = sorted(path.name.removesuffix(".request.http") for path in WIRES.glob("*.request.http"))
ROWS = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.float32)
PROBABILITY = np.array([[0.9999545812606812, 0.00004538893699645996], [5.960464477539063e-8, 0.9999999403953552]], np.float32)


def read(path: Path) -> tuple[str, dict[str, str], bytes]:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    return first, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


@pytest.mark.parametrize("case", CASES)
def test_recorded_bytes(case: str) -> None:
    first, headers, body = read(WIRES / f"{case}.request.http")
    _, said, answer = read(WIRES / f"{case}.response.http")
    name, schema = ("shop", SHOP) if "/shop/" in first else ("grid", GRID)
    codec = bind(name, schema)["kserve_v1" if ":predict" in first else "oip_v2"]
    size = headers.get("inference-header-content-length")
    request = codec.decode(body, headers.get("content-type", ""), None if size is None else int(size))
    if schema is GRID:
        np.testing.assert_array_equal(request.inputs["X"], ROWS)
        outputs = {"label": np.array([0, 1]), "probability": PROBABILITY}
    else:
        assert request.inputs["city"].tolist() == [["paris"], ["berlin"]]
        assert request.inputs["size"].tolist() == [[4.0], [4.0]]
        outputs = {"prediction": np.array([8.0, 4.0])}
    response = InferenceResponse(outputs, 2, name=name, version=1, digest=Digest("sha256:0"), id=request.id or said["x-prediction-id"])
    lines, ours = codec.encode(request, response)
    assert ours == answer
    for line in lines.decode().splitlines():
        header, value = line.split(": ")
        assert said[header] == value


def test_there_is_a_recording_of_each_kind() -> None:
    assert len(CASES) == 7
