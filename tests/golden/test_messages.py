"""Recorded messages of real clients (tritonclient 2.73, KServe 0.21, tensorflow-serving-api 2.21) and our answers: both stay readable, for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard.protocols import bind
from modelyard.types import Digest, InferenceResponse
from serving import GRID, SHOP

MESSAGES = Path(__file__).parent / "messages"
CASES = sorted(path.name.removesuffix(".request.pb") for path in MESSAGES.glob("*.request.pb"))
ROWS = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.float32)
PROBABILITY = np.array([[0.9999545812606812, 0.00004538893699645996], [5.960464477539063e-8, 0.9999999403953552]], np.float32)
CODECS = {"triton": "oip_v2_grpc", "kserve": "oip_v2_grpc", "tensorflow-predict": "tfserving_grpc", "tensorflow-classify": "tf_classify_grpc"}


@pytest.mark.parametrize("case", CASES)
def test_recorded_bytes(case: str) -> None:
    name, schema = ("shop", SHOP) if case.endswith("shop") else ("grid", GRID)
    codec = bind(name, schema)[next(wire for client, wire in CODECS.items() if case.startswith(client))]
    request = codec.decode((MESSAGES / f"{case}.request.pb").read_bytes(), "application/grpc")
    if schema is GRID:
        np.testing.assert_array_equal(request.inputs["X"], ROWS)
        outputs = {"label": np.array([0, 1]), "probability": PROBABILITY}
    else:
        assert request.inputs["city"].tolist() == [["paris"], ["berlin"]]
        assert request.inputs["size"].tolist() == [[4.0], [4.0]]
        outputs = {"prediction": np.array([8.0, 4.0])}
    response = InferenceResponse(outputs, 2, name=name, version=1, digest=Digest("sha256:0"), id=request.id or "p1")
    assert codec.encode(request, response)[1] == (MESSAGES / f"{case}.response.pb").read_bytes()


def test_there_is_a_recording_of_each_kind() -> None:
    assert len(CASES) == 7
