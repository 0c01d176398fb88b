from __future__ import annotations

import json

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.protocols.json_lines import JsonLines
from modelyard.types import Digest, InferenceRequest, InferenceResponse
from serving import LINE

CODEC = JsonLines("line", LINE)


@pytest.mark.parametrize("body", [b"[1, 2, 3]\n[4, 5, 6]\n", b"[1,2,3]\r\n\r\n[4,5,6]", b'{"a":1,"b":2,"c":3}\n{"c":6,"b":5,"a":4}'])
def test_rows_and_records(body: bytes) -> None:
    for media in ("application/jsonlines", "application/x-ndjson"):
        assert CODEC.decode(body, media).inputs["b"].tolist() == [[2], [5]]


@pytest.mark.parametrize("body", [b"", b"\n", b"[1,2,3]\n{", b"[1,2,3]\n4", b'[1,2,3]\n{"a":1,"b":2,"c":3}', b"[1,2,3,\n4]", b"[1,2,3]\n\xff"])
def test_lines_that_do_not_fit(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        CODEC.decode(body, "application/jsonlines")


def test_an_answer_is_an_object_a_line() -> None:
    outputs = {"label": np.array(["a", "b"], object), "p": np.array([[0.5, 0.5], [np.nan, 1]])}
    response = InferenceResponse(outputs, 2, name="m", version=1, digest=Digest("sha256:0"), id="i")
    lines, body = CODEC.encode(InferenceRequest({}, 2), response)
    assert lines == b"content-type: application/jsonlines\r\n"
    assert [json.loads(line) for line in body.splitlines()] == [{"label": "a", "p": [0.5, 0.5]}, {"label": "b", "p": [None, 1.0]}]
