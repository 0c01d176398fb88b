"""`:explain` on the wire: what may be asked, and how contributions are named."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.protocols.v1_explain import V1Explain
from modelyard.types import Digest, Explanation, InferenceResponse, Schema, TensorSpec
from serving import GRID, LINE


def explanation(size: int, **explained: Any) -> Explanation:
    values = tuple(float(each) for each in range(size))
    return Explanation(
        explained=explained,
        value=1.0,
        base=0.5,
        contributions=values,
        standard_errors=(0.0,) * size,
        method="exact",
        background_rows=64,
        evaluations=8,
    )


def shown(schema: Schema, outputs: dict[str, np.ndarray], *explanations: Explanation) -> Any:
    response = InferenceResponse(outputs, len(explanations), name="m", version=1, digest=Digest("sha256:x"), id="i")
    lines, body = V1Explain("m", schema).encode_explained(response, explanations)
    assert lines == b"content-type: application/json\r\n"
    return json.loads(body)


def test_a_question_is_that_of_predict_with_what_is_wanted() -> None:
    codec = V1Explain("m", GRID)
    request = codec.decode(b'{"instances":[[1,2,3,4]],"parameters":{"class":1}}', "application/json")
    assert request.rows == 1 and request.parameters == {"class": 1}
    assert codec.decode(b'{"instances":[[1,2,3,4]]}', "").parameters is None
    request = codec.decode(b'{"instances":[[1,2,3,4]],"parameters":{"output":"y","element":2}}', "")
    assert request.parameters == {"output": "y", "element": 2}


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"inputs":[[1,2,3,4]]}',
        b'{"instances":[[1,2,3,4]],"parameters":{"klass":"canary4711"}}',
        b'{"instances":[[1,2,3,4]],"parameters":{"class":["canary4711"]}}',
        b'{"instances":[[1,2,3,4]],"parameters":{"element":"canary4711"}}',
        b'{"instances":[["canary4711",2,3,4]]}',
        b"[",
    ],
)
def test_other_questions_are_refused_without_their_data(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        V1Explain("m", GRID).decode(body, "application/json")
    assert "canary" not in caught.value.message


def test_columns_are_named_and_arrays_keep_their_shape() -> None:
    said = shown(LINE, {"prediction": np.array([2.5])}, explanation(3, output="prediction"))
    assert said["predictions"] == [2.5]
    (one,) = said["explanations"]
    assert one["contributions"] == {"a": 0.0, "b": 1.0, "c": 2.0}
    assert one["standard_errors"] == {"a": 0.0, "b": 0.0, "c": 0.0}
    rest = {"output": "prediction", "value": 1.0, "base": 0.5, "method": "exact", "background_rows": 64, "evaluations": 8}
    assert {name: one[name] for name in rest} == rest
    label = {"label": np.array([1, 0])}
    said = shown(GRID, label, *(explanation(4, output="probability", **{"class": which}) for which in (1, 0)))
    assert said["predictions"] == [1, 0] and [each["class"] for each in said["explanations"]] == [1, 0]
    assert said["explanations"][0]["contributions"] == {"X": [0.0, 1.0, 2.0, 3.0]}
    deep = msgspec.structs.replace(GRID, inputs=(TensorSpec(name="i", datatype="FP32", shape=(-1, 2, 2)),))
    assert shown(deep, {"label": np.array([1])}, explanation(4))["explanations"][0]["contributions"] == {"i": [[0.0, 1.0], [2.0, 3.0]]}
