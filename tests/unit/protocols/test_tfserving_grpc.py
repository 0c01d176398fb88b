"""TensorFlow Serving's messages: where a tensor's values may stand, what is refused, and what an answer says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, MalformedPayload, SchemaMismatch
from modelyard.protocols.messages import kind
from modelyard.protocols.tfserving_grpc import ClassifyGrpc, RegressGrpc, TFServingGrpc, address, signature
from modelyard.types import Digest, InferenceRequest, InferenceResponse, Schema, TensorSpec
from serving import GRID, LINE, SHOP

FLOAT, DOUBLE, INT32, INT8, STRING, INT64, HALF = 1, 2, 3, 6, 7, 9, 19


def tensor(dtype: int, shape: list[int], **values: Any) -> dict[str, Any]:
    return {"dtype": dtype, "tensor_shape": {"dim": [{"size": size} for size in shape]}, **values}


def predict(spec: dict[str, Any] | None = None, *, output_filter: tuple[str, ...] = (), **inputs: dict[str, Any]) -> bytes:
    message = kind("tensorflow.serving.PredictRequest")(model_spec=spec or {"name": "m"}, inputs=inputs, output_filter=output_filter)
    return bytes(message.SerializeToString())


ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


@pytest.mark.parametrize(
    "given",
    [
        tensor(FLOAT, [2, 4], tensor_content=ROWS.tobytes()),
        tensor(FLOAT, [2, 4], float_val=ROWS.ravel()),
        tensor(DOUBLE, [2, 4], double_val=ROWS.ravel()),
        tensor(INT32, [2, 4], int_val=range(1, 9)),
        tensor(INT64, [2, 4], tensor_content=np.arange(1, 9).tobytes()),
        tensor(HALF, [2, 4], half_val=ROWS.astype(np.float16).ravel().view(np.uint16).tolist()),
        tensor(HALF, [2, 4], tensor_content=ROWS.astype(np.float16).tobytes()),
    ],
)
def test_values_stand_raw_or_in_the_field_of_their_type(given: dict[str, Any]) -> None:
    request = TFServingGrpc("m", GRID).decode(predict(X=given))
    np.testing.assert_array_equal(request.inputs["X"], ROWS)
    assert request.inputs["X"].dtype == np.float32


def test_the_last_value_is_repeated_within_bounds() -> None:
    request = TFServingGrpc("m", GRID).decode(predict(X=tensor(FLOAT, [3, 4], float_val=[1, 2])))
    assert request.inputs["X"].ravel().tolist() == [1.0] + [2.0] * 11
    with pytest.raises(SchemaMismatch) as caught:
        TFServingGrpc("m", GRID).decode(predict(X=tensor(FLOAT, [10**9, 4], float_val=[1])))
    assert caught.value.rule == "size"


def test_a_frame_by_name_and_as_one_matrix() -> None:
    codec = TFServingGrpc("m", LINE)
    columns = {
        "a": tensor(DOUBLE, [2], double_val=[1, 4]),
        "b": tensor(INT64, [2, 1], int64_val=[2, 5]),
        "c": tensor(FLOAT, [2, 1], float_val=[3, np.nan]),
    }
    for inputs in (columns, {"X": tensor(DOUBLE, [2, 3], double_val=[1, 2, 3, 4, 5, np.nan])}):
        request = codec.decode(predict(**inputs))
        assert [request.inputs[name].ravel()[0] for name in "abc"] == [1, 2, 3]
        assert np.isnan(request.inputs["c"][1, 0])


def test_an_integer_in_a_matrix_keeps_its_last_digit() -> None:
    request = TFServingGrpc("m", LINE).decode(predict(X=tensor(INT64, [1, 3], int64_val=[1, 2**53 + 1, 3])))
    assert request.inputs["b"].tolist() == [[2**53 + 1]]


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (tensor(FLOAT, [2, 4], float_val=range(9)), "size"),
        (tensor(FLOAT, [2, 4]), "size"),
        (tensor(FLOAT, [2, 4], tensor_content=bytes(31)), "size"),
        (tensor(FLOAT, [2, 3], float_val=range(6)), "shape"),
        (tensor(FLOAT, [-1, 4], float_val=range(4)), "shape"),
        ({"dtype": FLOAT, "tensor_shape": {"unknown_rank": True}, "float_val": [1]}, "shape"),
        (tensor(0, [2, 4], float_val=range(8)), "datatype"),
        (tensor(8, [2, 4], float_val=range(8)), "datatype"),
        (tensor(STRING, [2, 4], string_val=[b"a"] * 8), "datatype"),
        (tensor(HALF, [2, 4], half_val=range(65_530, 65_538)), "datatype"),
        (tensor(INT8, [2, 4], int_val=range(200, 208)), "datatype"),
    ],
)
def test_a_misfit_is_named(given: dict[str, Any], rule: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        TFServingGrpc("m", GRID).decode(predict(X=given))
    assert (caught.value.field, caught.value.rule) == ("X", rule)


def test_unknown_missing_and_uneven_inputs() -> None:
    one = tensor(FLOAT, [1, 4], float_val=range(4))
    for inputs, rule in (({}, "required"), ({"Y": one}, "required"), ({"X": one, "Y": one}, "unknown_input")):
        with pytest.raises(SchemaMismatch) as caught:
            TFServingGrpc("m", GRID).decode(predict(**inputs))
        assert caught.value.rule == rule
    with pytest.raises(SchemaMismatch) as caught:
        uneven = {"city": tensor(STRING, [2], string_val=[b"paris", b"paris"]), "size": tensor(DOUBLE, [3], double_val=[1, 2, 3])}
        TFServingGrpc("m", SHOP).decode(predict(**uneven))
    assert caught.value.rule == "rows"


def test_signature_outputs_and_strings() -> None:
    one = tensor(FLOAT, [1, 4], float_val=range(4))
    codec = TFServingGrpc("m", GRID)
    assert codec.decode(predict({"name": "m", "signature_name": "serving_default"}, X=one, output_filter=("label",))).outputs == ("label",)
    with pytest.raises(InvalidInput):
        codec.decode(predict({"name": "m", "signature_name": "other"}, X=one))
    with pytest.raises(SchemaMismatch):
        codec.decode(predict(X=one, output_filter=("none",)))
    sizes = tensor(DOUBLE, [1], double_val=[1])
    for city, error in (
        (tensor(STRING, [1], string_val=[b"\xff"]), MalformedPayload),
        (tensor(STRING, [1], tensor_content=b"\5paris"), SchemaMismatch),
    ):
        with pytest.raises(error):
            TFServingGrpc("m", SHOP).decode(predict(city=city, size=sizes))


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"name": "m"}, ("m", None, "")),
        ({"name": "m", "version": {"value": 3}}, ("m", 3, "")),
        ({"name": "m", "version_label": "stable"}, ("m", None, "stable")),
        ({"name": "m", "version": {}}, ("m", 0, "")),
    ],
)
def test_the_address_of_a_request(spec: dict[str, Any], wanted: tuple[str, int | None, str]) -> None:
    assert address(predict(spec)) == wanted


def test_an_address_that_is_none() -> None:
    assert address(b"") == ("", None, "")
    with pytest.raises(MalformedPayload):
        address(b"\x0a\x04\x0a\x02\xff\xfe")


def answer(outputs: dict[str, Any], rows: int = 1) -> InferenceResponse:
    return InferenceResponse(outputs, rows, name="m", version=3, digest=Digest("sha256:0"), id="p")


EVERY = {
    "BOOL": ("bool_val", np.array([True])), "INT8": ("int_val", np.array([-1], np.int8)), "UINT8": ("int_val", np.array([255], np.uint8)),
    "INT64": ("int64_val", np.array([-(2**40)])), "UINT32": ("uint32_val", np.array([2**32 - 1], np.uint32)),
    "UINT64": ("uint64_val", np.array([2**63], np.uint64)), "FP16": ("half_val", np.array([1.5], np.float16)),
    "FP32": ("float_val", np.array([1.5], np.float32)), "FP64": ("double_val", np.array([1e300])), "BYTES": ("string_val", np.array(["ä"], object)),
}  # fmt: skip


@pytest.mark.parametrize("datatype", EVERY)
def test_an_answer_has_its_values_in_the_field_of_their_type(datatype: Any) -> None:
    field, values = EVERY[datatype]
    schema = Schema(inputs=GRID.inputs, outputs=(TensorSpec(name="y", datatype=datatype, shape=(-1,)),), layout="tensors", task="other")
    said = kind("tensorflow.serving.PredictResponse").FromString(TFServingGrpc("m", schema).encode(InferenceRequest({}, 1), answer({"y": values}))[1])
    assert (said.model_spec.name, said.model_spec.version.value, said.model_spec.signature_name) == ("m", 3, "serving_default")
    (found,) = getattr(said.outputs["y"], field)
    assert [dim.size for dim in said.outputs["y"].tensor_shape.dim] == [1]
    assert found == ("ä".encode() if datatype == "BYTES" else values.view(np.uint16)[0] if datatype == "FP16" else values[0])


def examples(*given: dict[str, Any], context: dict[str, Any] | None = None) -> bytes:
    made = [{"features": {"feature": features}} for features in given]
    where = "example_list_with_context" if context else "example_list"
    listed = {"examples": made} | ({"context": {"features": {"feature": context}}} if context else {})
    return bytes(kind("tensorflow.serving.ClassificationRequest")(model_spec={"name": "m"}, input={where: listed}).SerializeToString())


def test_examples_are_records_and_share_their_context() -> None:
    body = examples(
        {"size": {"float_list": {"value": [1.5]}}}, {"size": {"int64_list": {"value": [2]}}}, context={"city": {"bytes_list": {"value": [b"paris"]}}}
    )
    request = RegressGrpc("m", SHOP).decode(body)
    assert request.inputs["city"].ravel().tolist() == ["paris", "paris"]
    assert request.inputs["size"].ravel().tolist() == [1.5, 2.0]
    missing = {"a": {"float_list": {"value": [1]}}, "b": {"int64_list": {"value": [1]}}, "c": {"float_list": {}}}
    assert np.isnan(RegressGrpc("m", LINE).decode(examples(missing)).inputs["c"]).all()


def test_examples_that_are_none() -> None:
    empty = kind("tensorflow.serving.RegressionRequest")(model_spec={"name": "m"}).SerializeToString()
    for body, error in (
        (empty, MalformedPayload),
        (examples(), SchemaMismatch),
        (examples({"city": {"bytes_list": {"value": [b"\xff"]}}}), MalformedPayload),
    ):
        with pytest.raises(error):
            RegressGrpc("m", SHOP).decode(body)
    with pytest.raises(InvalidInput):
        RegressGrpc("m", GRID).decode(examples({}))
    with pytest.raises(InvalidInput):
        ClassifyGrpc("m", SHOP).decode(examples({}))


def test_classes_and_regressions() -> None:
    outputs = {"label": np.array([1]), "probability": np.array([[0.25, 0.75]], np.float32)}
    said = kind("tensorflow.serving.ClassificationResponse").FromString(ClassifyGrpc("m", GRID).encode(InferenceRequest({}, 1), answer(outputs))[1])
    assert [(each.label, each.score) for each in said.result.classifications[0].classes] == [("0", 0.25), ("1", 0.75)]
    bare = kind("tensorflow.serving.ClassificationResponse").FromString(
        ClassifyGrpc("m", GRID).encode(InferenceRequest({}, 1), answer({"label": np.array([1])}))[1]
    )
    assert [(each.label, each.score) for each in bare.result.classifications[0].classes] == [("1", 0.0)]
    numbers = RegressGrpc("m", SHOP).encode(InferenceRequest({}, 2), answer({"prediction": np.array([1.0, 2.0])}, 2))[1]
    assert [each.value for each in kind("tensorflow.serving.RegressionResponse").FromString(numbers).result.regressions] == [1.0, 2.0]


def test_the_signature_names_every_input_and_output() -> None:
    told = kind("tensorflow.serving.SignatureDefMap").FromString(signature(GRID)).signature_def["serving_default"]
    assert {name: info.dtype for name, info in told.inputs.items()} == {"X": FLOAT}
    assert {name: [dim.size for dim in info.tensor_shape.dim] for name, info in told.outputs.items()} == {"label": [-1], "probability": [-1, 2]}
