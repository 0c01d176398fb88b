from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.errors import MalformedPayload, SchemaMismatch
from modelyard.protocols.oip_v2 import OipV2
from modelyard.types import Digest, InferenceRequest, InferenceResponse, Schema, TensorSpec
from serving import GRID, LINE, SHOP, line_row, tensor

CODEC = OipV2("grid", GRID)
X = {"name": "X", "shape": [1, 4], "datatype": "FP32"}


def grid(**changes: Any) -> bytes:
    return json.dumps({"inputs": [{**X, "data": [1, 2, 3, 4], **changes}]}).encode()


def response(rows: int = 1) -> InferenceResponse:
    outputs = {"label": np.arange(rows), "probability": np.full((rows, 2), 0.5, np.float32)}
    return InferenceResponse(outputs, rows, name="grid", version=7, digest=Digest("sha256:0"), id='a"b')


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [1.0, 2, 3.0, 4], [[1, 2, 3, 4]]])
def test_both_readings_of_the_json_agree(data: Any) -> None:
    array = CODEC.decode(grid(data=data), "").inputs["X"]
    assert array.dtype == np.float32
    assert array.tolist() == [[1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize("data", [[1.5, 2, 3, 4], [[1.5, 2, 3, 4]]])
def test_both_readings_hold_a_tensor_to_its_datatype(data: Any) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        CODEC.decode(grid(data=data, datatype="INT32"), "")
    assert caught.value.rule == "datatype"


def test_what_exceeds_fp32_becomes_infinite_without_a_warning_and_is_left_to_the_schema_check() -> None:
    for data in ([1e39, 0, 0, 0], [[1e39, 0, 0, 0]]):
        assert np.isinf(CODEC.decode(grid(data=data), "").inputs["X"][0, 0])


def test_a_frame_whose_own_column_is_called_x_is_asked_by_name() -> None:
    spec = TensorSpec(name="X", datatype="FP64", shape=(-1, 1))
    codec = OipV2("m", Schema(inputs=(spec,), outputs=LINE.outputs, layout="frame", task="regression"))
    assert codec.decode(json.dumps({"inputs": [tensor("X", [1.0])]}).encode(), "").inputs["X"].tolist() == [[1.0]]


def test_outputs_stand_in_the_order_asked_for() -> None:
    body = json.loads(grid())
    body["outputs"] = [{"name": "probability"}, {"name": "label"}]
    request = CODEC.decode(json.dumps(body).encode(), "")
    assert [each["name"] for each in json.loads(CODEC.encode(request, response())[1])["outputs"]] == ["probability", "label"]


@pytest.mark.parametrize("rows", [1, 3])
def test_encode(rows: int) -> None:
    said = json.loads(CODEC.encode(InferenceRequest({}, rows), response(rows))[1])
    assert said == {
        "model_name": "grid", "model_version": "7", "id": 'a"b',
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [rows], "data": list(range(rows))},
            {"name": "probability", "datatype": "FP32", "shape": [rows, 2], "data": [0.5] * 2 * rows},
        ],
    }  # fmt: skip


def test_binary_tensors_in_any_order_beside_json_ones() -> None:
    codec = OipV2("shop", SHOP)
    size = {"name": "size", "shape": [2, 1], "datatype": "FP64", "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [size, tensor("city", ["paris", "berlin"], "BYTES")]}).encode()
    request = codec.decode(head + np.array([1.0, 2.0]).tobytes(), "application/octet-stream", len(head))
    assert request.inputs["size"].tolist() == [[1.0], [2.0]]
    assert request.inputs["city"].tolist() == [["paris"], ["berlin"]]


@pytest.mark.parametrize(
    ("parameters", "raw"),
    [
        ({"binary_data_size": 16}, b"\0" * 15),
        ({"binary_data_size": -1}, b"\0" * 16),
        ({"binary_data_size": True}, b"\0" * 16),
        ({"binary_data_size": 2**62}, b"\0" * 16),
        ({"binary_data_size": 12}, b"\0" * 12),
        ({}, b"\0" * 16),
    ],
)
def test_binary_sizes_that_lie(parameters: dict[str, Any], raw: bytes) -> None:
    head = json.dumps({"inputs": [{**X, "parameters": parameters}]}).encode()
    with pytest.raises(SchemaMismatch):
        CODEC.decode(head + raw, "", len(head))


def test_bytes_that_no_tensor_claims_are_refused() -> None:
    head = json.dumps({"inputs": [{**X, "parameters": {"binary_data_size": 16}}]}).encode()
    with pytest.raises(MalformedPayload):
        CODEC.decode(head + b"\0" * 17, "", len(head))


@pytest.mark.parametrize("size", [0, 10**6])
def test_a_json_length_outside_the_body(size: int) -> None:
    with pytest.raises(MalformedPayload):
        CODEC.decode(grid(), "", size)


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT64"])
def test_a_numeric_frame_comes_whole_in_binary_as_in_json(datatype: str) -> None:
    codec = OipV2("line", LINE)
    rows = np.arange(6).reshape(2, 3).astype({"FP64": "<f8", "FP32": "<f4", "INT64": "<i8"}[datatype])
    whole = {"name": "X", "shape": [2, 3], "datatype": datatype}
    head = json.dumps({"inputs": [{**whole, "parameters": {"binary_data_size": rows.nbytes}}]}).encode()
    plain = json.dumps({"inputs": [{**whole, "data": rows.ravel().tolist()}]}).encode()
    binary, given = codec.decode(head + rows.tobytes(), "", len(head)), codec.decode(plain, "")
    assert {name: (each.dtype, each.tolist()) for name, each in binary.inputs.items()} == {
        name: (each.dtype, each.tolist()) for name, each in given.inputs.items()
    }
    assert codec.decode(plain, "", len(plain)).rows == 2
    for changes in ({"shape": [3, 2]}, {"datatype": "BYTES"}, {"parameters": {}}, {"parameters": {"binary_data_size": 8}}):
        bad = json.dumps({"inputs": [{**whole, "parameters": {"binary_data_size": rows.nbytes}, **changes}]}).encode()
        with pytest.raises(SchemaMismatch):
            codec.decode(bad + rows.tobytes(), "", len(bad))


def test_binary_answers_for_one_output_or_all() -> None:
    for asked, count in (
        ({"parameters": {"binary_data_output": True}}, 2),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": True}}]}, 1),
    ):
        body = json.loads(grid()) | asked
        request = CODEC.decode(json.dumps(body).encode(), "")
        lines, data = CODEC.encode(request, response())
        size = int(lines.split(b"content-length: ")[1])
        outputs = json.loads(data[:size])["outputs"]
        assert len(outputs) == count
        assert sum(each["parameters"]["binary_data_size"] for each in outputs) == len(data) - size


def test_parameters_must_be_flags_where_they_are_flags() -> None:
    with pytest.raises(MalformedPayload):
        CODEC.decode(json.dumps(json.loads(grid()) | {"parameters": {"binary_data_output": "yes"}}).encode(), "")


def test_what_clients_add_is_let_be() -> None:
    body = {"model_name": "line", "model_version": "1", "inputs": line_row(), "parameters": {"sequence_id": 0}}
    assert OipV2("line", LINE).decode(json.dumps(body).encode(), "").rows == 1
