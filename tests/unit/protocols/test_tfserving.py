from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from modelyard.errors import InvalidInput, MalformedPayload, SchemaMismatch
from modelyard.protocols.tfserving import Classify, Regress, TFServing, metadata
from modelyard.types import Digest, InferenceRequest, InferenceResponse, Schema, TensorSpec
from serving import GRID, LINE, SHOP

NAN = float("nan")


def decode(schema: Schema, body: Any, kind: Any = TFServing) -> InferenceRequest:
    return kind("m", schema).decode(body if isinstance(body, bytes) else json.dumps(body).encode(), "application/json")


def answer(schema: Schema, outputs: dict[str, Any], form: str = "row", kind: Any = TFServing) -> Any:
    request = InferenceRequest({}, 2)
    request.parameters = {"form": form}
    response = InferenceResponse(outputs, 2, name="m", version=1, digest=Digest("sha256:0"), id="i")
    lines, body = kind("m", schema).encode(request, response)
    assert lines == b"content-type: application/json\r\n"
    return json.loads(body)


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ({"instances": [{"a": 1.5, "b": 2, "c": None}, {"a": [2.5], "b": [3], "c": [4.0]}][:1] * 2}, "plain"),
        ({"instances": [[1.5, 2, None], [1.5, 2, None]]}, "plain"),
        ({"signature_name": "serving_default", "instances": [{"a": [1.5], "b": [2], "c": [None]}] * 2}, "row"),
        ({"signature_name": "", "inputs": {"c": [None, None], "a": [1.5, 1.5], "b": [[2], [2]]}}, "column"),
    ],
)
def test_rows_and_columns_ask_the_same(body: Any, form: str) -> None:
    request = decode(LINE, body)
    assert request.parameters == {"form": form}
    assert (request.inputs["a"].tolist(), request.inputs["b"].tolist()) == ([[1.5]] * 2, [[2]] * 2)
    assert np.isnan(request.inputs["c"]).all()


def test_the_only_input_needs_no_name() -> None:
    rows = [[1, 2, 3, 4], [5, 6, 7, 8]]
    for body in ({"instances": rows}, {"inputs": rows}, {"inputs": {"X": rows}}, {"instances": [{"X": row} for row in rows]}):
        assert decode(GRID, body).inputs["X"].tolist() == rows


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({}, "form"),
        ({"instances": [[1, 2, 3]], "inputs": {"a": [1]}}, "form"),
        ({"signature_name": "canary4711", "instances": [[1, 2, 3]]}, "known"),
        ({"signature_name": 1, "instances": [[1, 2, 3]]}, "form"),
        ({"inputs": [1, 2]}, "type"),
        ({"inputs": {"a": [1], "b": [2]}}, "required"),
        ({"inputs": {"a": [1], "b": [2], "c": [3], "canary4711": [4]}}, "unknown_input"),
        ({"inputs": {"a": [1], "b": [2, 3], "c": [3]}}, "rows"),
        ({"instances": []}, "size"),
        (b'{"instances": [[1, 2, 3], "\\ud800", NaN]}', "json"),
        (b'{"instances": NaN}', "form"),
        (b'{"instances": [[NaN, 2, 3]', "json"),
        (b'{"instances": \xff[NaN]}', "json"),
        (b'{"instances": ' + b"[" * 5000 + b"NaN" + b"]" * 5000 + b"}", "depth"),
    ],
)
def test_a_misfit_is_refused_by_rule_without_echo(body: Any, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(LINE, body)
    assert caught.value.rule == rule
    assert caught.value.field
    assert "4711" not in caught.value.message


def test_bare_tokens_are_read_and_written() -> None:
    asked = decode(LINE, b'{"instances": [{"a": 1.0, "b": 2, "c": NaN}, {"a": -Infinity, "b": 2, "c": 3}], "signature_name": "serving_default"}')
    assert np.isnan(asked.inputs["c"][0, 0])
    assert asked.inputs["a"][1, 0] == -np.inf  # which the schema check refuses
    body = TFServing("m", LINE).encode(
        asked, InferenceResponse({"prediction": np.array([NAN, -np.inf])}, 2, name="m", version=1, digest=Digest("sha256:0"), id="i")
    )[1]
    assert body == b'{"predictions": [NaN, -Infinity]}'


def test_base64_stands_wherever_a_value_may() -> None:
    paris = {"b64": base64.b64encode("pärîs".encode()).decode()}
    for body in (
        {"instances": [{"city": paris, "size": 1.0}]},
        {"instances": [[paris, 1.0]]},
        {"inputs": {"city": [paris], "size": [1.0]}},
        {"inputs": {"city": [[paris]], "size": [1.0]}},
    ):
        assert decode(SHOP, body).inputs["city"].tolist() == [["pärîs"]]
    words = structs.replace(SHOP, inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,)),))
    assert decode(words, {"instances": [paris, paris]}).inputs["text"].tolist() == ["pärîs"] * 2
    for wrong in ("%", "a", base64.b64encode(b"\xff").decode()):
        with pytest.raises(MalformedPayload) as caught:
            decode(SHOP, {"instances": [[{"b64": wrong}, 1.0]]})
        assert caught.value.rule == "base64"
    with pytest.raises(SchemaMismatch):
        decode(SHOP, {"instances": [[{"b64": 1}, 1.0]]})


def test_an_answer_drops_the_name_of_an_only_output() -> None:
    one = {"prediction": np.array([1.5, 2.5])}
    assert answer(LINE, one) == {"predictions": [1.5, 2.5]}
    assert answer(LINE, one, "column") == {"outputs": [1.5, 2.5]}
    two = {"label": np.array([0, 1]), "probability": np.array([[1.0, 0.0], [0.0, 1.0]])}
    assert answer(GRID, two) == {"predictions": [{"label": 0, "probability": [1.0, 0.0]}, {"label": 1, "probability": [0.0, 1.0]}]}
    assert answer(GRID, two, "column") == {"outputs": {"label": [0, 1], "probability": [[1.0, 0.0], [0.0, 1.0]]}}


def test_outputs_called_bytes_are_base64() -> None:
    schema = structs.replace(SHOP, outputs=(TensorSpec(name="png_bytes", datatype="BYTES", shape=(-1, 2)),))
    said = answer(schema, {"png_bytes": np.array([["a", "b"], ["c", "d"]], object)})
    assert said["predictions"][0] == [{"b64": "YQ=="}, {"b64": "Yg=="}]


def test_classify_pairs_classes_with_scores() -> None:
    request = decode(GRID, {"context": {}, "examples": [{"X": [1, 2, 3, 4]}]}, Classify)
    assert request.inputs["X"].tolist() == [[1, 2, 3, 4]]
    outputs = {"label": np.array([0, 1]), "probability": np.array([[0.75, 0.25], [0.5, 0.5]])}
    assert answer(GRID, outputs, kind=Classify) == {"results": [[["0", 0.75], ["1", 0.25]], [["0", 0.5], ["1", 0.5]]]}
    bare = structs.replace(GRID, outputs=GRID.outputs[:1], classes=("a", "b"))
    assert answer(bare, {"label": np.array(["a", "b"], object)}, kind=Classify) == {"results": [[["a", 0.0]], [["b", 0.0]]]}
    with pytest.raises(InvalidInput) as caught:
        decode(LINE, {"examples": [{"a": 1, "b": 2, "c": 3}]}, Classify)
    assert caught.value.rule == "task"


def test_regress_gives_a_number_per_example() -> None:
    request = decode(LINE, {"context": {"b": 7}, "examples": [{"a": [1.5], "c": 2}, {"a": 2.5, "c": [3], "b": 8}]}, Regress)
    assert (request.inputs["a"].tolist(), request.inputs["b"].tolist()) == ([[1.5], [2.5]], [[7], [8]])
    assert answer(LINE, {"prediction": np.array([1.5, 2.5])}, kind=Regress) == {"results": [1.5, 2.5]}
    with pytest.raises(InvalidInput):
        decode(GRID, {"examples": [{"X": [1, 2, 3, 4]}]}, Regress)
    with pytest.raises(SchemaMismatch):
        decode(LINE, {"examples": []}, Regress)


def test_metadata_tells_the_one_signature() -> None:
    told = metadata("line", 3, LINE)
    assert told["model_spec"] == {"name": "line", "signature_name": "", "version": "3"}
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    assert signature["inputs"]["a"] == {"dtype": "DT_DOUBLE", "tensor_shape": shape, "name": "a:0"}
    assert set(signature["outputs"]) == {"prediction"}
