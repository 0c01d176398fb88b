from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, MalformedPayload, PayloadTooLarge, SchemaMismatch
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


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(("datatype", "first"), [("FP32", -1), ("FP64", -1), ("FP32", 1), ("FP32", 2)])
def test_numbers_become_what_numpy_makes_of_them_and_are_as_many_as_the_shape_says(rows: int, datatype: str, first: int) -> None:
    spec = TensorSpec(name="X", datatype=datatype, shape=(first, 2, 3))
    codec = OipV2("m", Schema(inputs=(spec,), outputs=GRID.outputs, layout="array", task="classification"))
    values = [0.1, -1e-46, 3.4028235e38, 1 / 3, 16777217.0, -0.0] * rows
    said = {"name": "X", "shape": [rows, 2, 3], "datatype": datatype, "data": values}
    if first not in {-1, rows}:
        with pytest.raises(SchemaMismatch) as caught:
            codec.decode(json.dumps({"inputs": [said]}).encode(), "application/json")
        assert caught.value.rule == "shape"
        return
    array = codec.decode(json.dumps({"inputs": [said]}).encode(), "application/json").inputs["X"]
    assert array.tobytes() == np.array(values, {"FP32": "<f4", "FP64": "<f8"}[datatype]).tobytes()
    assert array.shape == (rows, 2, 3)
    for wrong in (values[:-1], [*values, 1.0]):
        with pytest.raises(SchemaMismatch) as caught:
            codec.decode(json.dumps({"inputs": [said | {"data": wrong}]}).encode(), "application/json")
        assert caught.value.rule == "size"


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


@pytest.mark.parametrize("size", [len(grid()) + 1, 10**6])
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


RAW = np.arange(8, dtype="<f4")


@pytest.mark.parametrize(
    ("spec", "body", "values"),
    [
        (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)), RAW.tobytes(), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (TensorSpec(name="x", datatype="FP32", shape=(-1,)), RAW.tobytes(), RAW.tolist()),
        (TensorSpec(name="x", datatype="FP32", shape=(-1, -1)), RAW.tobytes(), [RAW.tolist()]),
        (TensorSpec(name="x", datatype="FP32", shape=(-1, 2, -1)), RAW.tobytes(), [[[0, 1, 2, 3], [4, 5, 6, 7]]]),
        (TensorSpec(name="x", datatype="FP16", shape=(-1, 2)), np.array([1.5, 2.5], "<f2").tobytes(), [[1.5, 2.5]]),
        (TensorSpec(name="x", datatype="BYTES", shape=(-1,)), "größe, 427".encode(), ["größe, 427"]),
        (TensorSpec(name="x", datatype="BYTES", shape=(-1, 1)), b"", [[""]]),
    ],
)
def test_a_raw_request_is_the_only_inputs_bytes(spec: TensorSpec, body: bytes, values: Any) -> None:
    codec = OipV2("m", Schema(inputs=(spec,), outputs=GRID.outputs, layout="tensors", task="other"))
    request = codec.decode(body, "application/octet-stream", 0)
    assert request.inputs["x"].tolist() == values
    assert request.rows == len(values)
    lines, answer = codec.encode(request, response(request.rows))
    size = int(lines.split(b"content-length: ")[1])
    assert all("binary_data_size" in each["parameters"] for each in json.loads(answer[:size])["outputs"])


@pytest.mark.parametrize(
    ("spec", "body", "rule"),
    [
        (TensorSpec(name="x", datatype="FP32", shape=(-1, 3)), RAW.tobytes(), "size"),
        (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)), b"", "size"),
        (TensorSpec(name="x", datatype="FP32", shape=(-1, -1, -1)), RAW.tobytes(), "raw"),
        (TensorSpec(name="x", datatype="BYTES", shape=(-1, 2)), b"x", "raw"),
        (TensorSpec(name="x", datatype="BYTES", shape=(-1,)), b"\xff", "utf8"),
    ],
)
def test_a_raw_request_that_does_not_fit(spec: TensorSpec, body: bytes, rule: str) -> None:
    codec = OipV2("m", Schema(inputs=(spec,), outputs=GRID.outputs, layout="tensors", task="other"))
    with pytest.raises(InvalidInput) as caught:
        codec.decode(body, "application/octet-stream", 0)
    assert caught.value.rule == rule


def test_a_raw_request_is_for_one_input() -> None:
    with pytest.raises(SchemaMismatch) as caught:
        OipV2("line", LINE).decode(RAW.tobytes(), "", 0)
    assert caught.value.rule == "raw"


def test_half_floats_travel_in_binary_and_not_as_json() -> None:
    half = np.array([[1, 2, 3, 4]], "<f2")
    head = json.dumps({"inputs": [{**X, "datatype": "FP16", "parameters": {"binary_data_size": 8}}]}).encode()
    assert CODEC.decode(head + half.tobytes(), "", len(head)).inputs["X"].tolist() == half.tolist()
    whole = json.dumps({"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP16", "parameters": {"binary_data_size": 6}}]}).encode()
    assert OipV2("line", LINE).decode(whole + half[:, :3].tobytes(), "", len(whole)).inputs["b"].tolist() == [[2]]
    own = OipV2("m", Schema(inputs=(TensorSpec(name="X", datatype="FP16", shape=(-1, 4)),), outputs=GRID.outputs, layout="array", task="other"))
    for codec in (CODEC, own, OipV2("line", LINE)):
        with pytest.raises(SchemaMismatch, match="binary data") as caught:
            codec.decode(grid(datatype="FP16", **({"shape": [1, 3], "data": [1, 2, 3]} if codec not in (CODEC, own) else {})), "")
        assert caught.value.rule == "datatype"


def test_an_output_of_half_floats_is_binary_or_fp32() -> None:
    schema = Schema(inputs=GRID.inputs, outputs=(TensorSpec(name="y", datatype="FP16", shape=(-1, 2)),), layout="array", task="other")
    codec = OipV2("m", schema)
    half = InferenceResponse({"y": np.array([[1.5, 2.5]], np.float16)}, 1, name="m", version=1, digest=Digest("sha256:0"), id="i")
    for asked in ({}, {"outputs": [{"name": "y", "parameters": {"binary_data": False}}], "parameters": {"binary_data_output": True}}):
        request = codec.decode(json.dumps(json.loads(grid()) | asked).encode(), "")
        output = json.loads(codec.encode(request, half)[1])["outputs"][0]
        assert (output["datatype"], output["data"]) == ("FP32", [1.5, 2.5])
    request = codec.decode(json.dumps(json.loads(grid()) | {"parameters": {"binary_data_output": True}}).encode(), "")
    lines, body = codec.encode(request, half)
    assert np.frombuffer(body[int(lines.split(b"content-length: ")[1]) :], "<f2").tolist() == [1.5, 2.5]


def test_a_body_of_very_many_strings_is_too_large() -> None:
    raw = (b"\x01\0\0\0x") * 200_000
    head = json.dumps(
        {"inputs": [{"name": name, "shape": [200_000, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}} for name in "ab"]}
    )
    text = Schema(
        inputs=tuple(TensorSpec(name=name, datatype="BYTES", shape=(-1, 1)) for name in "ab"), outputs=LINE.outputs, layout="frame", task="other"
    )
    with pytest.raises(PayloadTooLarge):
        OipV2("m", text).decode(head.encode() + raw + raw, "", len(head))
