"""ModelInfer: where values may stand, what is refused, and that a form that was read before is read alike and without a copy."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.errors import MalformedPayload, ModelyardError, SchemaMismatch
from modelyard.protocols.messages import kind
from modelyard.protocols.oip_v2_grpc import OipV2Grpc, OipV2GrpcStream, address
from modelyard.types import Digest, InferenceRequest, InferenceResponse, Schema, TensorSpec
from serving import GRID, LINE, SHOP

REQUEST = kind("inference.ModelInferRequest")
RESPONSE = kind("inference.ModelInferResponse")
ROW = np.array([[1, 2, 3, 4]], np.float32)


def ask(*tensors: tuple[str, str, list[int], Any], raw: bool = False, **more: Any) -> bytes:
    """A request; a tensor's values are raw bytes, or (field, values)."""
    message = REQUEST(**({"model_name": "m"} | more))
    for name, datatype, shape, values in tensors:
        made = message.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw:
            message.raw_input_contents.append(values)
        elif values is not None:
            getattr(made.contents, values[0]).extend(values[1])
    return bytes(message.SerializeToString())


GRID_RAW = ask(("X", "FP32", [1, 4], ROW.tobytes()), raw=True)
GRID_CONTENTS = ask(("X", "FP32", [1, 4], ("fp32_contents", [1, 2, 3, 4])))
LINE_RAW = ask(
    ("a", "FP64", [2, 1], np.array([1.0, 2.0]).tobytes()),
    ("b", "INT64", [2, 1], np.array([3, 4]).tobytes()),
    ("c", "FP32", [2, 1], np.array([5, np.nan], np.float32).tobytes()),
    raw=True,
)


@pytest.mark.parametrize("body", [GRID_RAW, GRID_CONTENTS], ids=["raw", "contents"])
def test_a_form_read_before_is_read_where_it_lies(body: bytes) -> None:
    codec = OipV2Grpc("m", GRID)
    first, second = codec.decode(body), codec.decode(body)
    for request in (first, second):
        np.testing.assert_array_equal(request.inputs["X"], ROW)
        assert (request.rows, request.outputs, request.id) == (1, (), "")
        assert request.inputs["X"].base is not None
        assert np.shares_memory(
            np.frombuffer(body, np.uint8), request.inputs["X"].view(np.uint8) if request.inputs["X"].flags.aligned else request.inputs["X"]
        )
    other = bytearray(body)
    other[-4:] = np.float32(9).tobytes()
    assert codec.decode(bytes(other)).inputs["X"][0, 3] == 9


@pytest.mark.parametrize("at", range(len(GRID_RAW) - 16))
def test_a_message_of_the_same_length_that_differs_elsewhere_is_read_for_itself(at: int) -> None:
    kept, fresh = OipV2Grpc("m", GRID), OipV2Grpc("m", GRID)
    kept.decode(GRID_RAW)
    for change in (0, 1, 0x20, 0x7F):
        changed = bytes((*GRID_RAW[:at], GRID_RAW[at] ^ change, *GRID_RAW[at + 1 :]))
        said = []
        for codec in (kept, fresh):
            try:
                request = codec.decode(changed)
                said.append((request.inputs["X"].tobytes(), request.id, request.outputs))
            except ModelyardError as error:
                said.append((type(error).__name__, error.message, error.rule))
        assert said[0] == said[1]


def test_half_floats_come_raw_for_every_float_input() -> None:
    half = ROW.astype(np.float16)
    for model, dtype in (("FP16", np.float16), ("FP32", np.float32), ("FP64", np.float64)):
        schema = msgspec.structs.replace(GRID, inputs=(TensorSpec(name="X", datatype=model, shape=(-1, 4)),))
        codec = OipV2Grpc("m", schema)
        for _ in range(2):
            read = codec.decode(ask(("X", "FP16", [1, 4], half.tobytes()), raw=True)).inputs["X"]
            assert read.dtype == dtype and read.tolist() == ROW.tolist()
    with pytest.raises(SchemaMismatch, match="raw_input_contents"):
        codec.decode(ask(("X", "FP16", [1, 4], ("fp32_contents", [1, 2, 3, 4]))))


@pytest.mark.parametrize("is_raw", [True, False])
def test_an_integer_in_a_matrix_keeps_its_last_digit(is_raw: bool) -> None:
    row = [1, 2**53 + 1, 3]
    values = np.array(row, np.int64).tobytes() if is_raw else ("int64_contents", row)
    request = OipV2Grpc("m", LINE).decode(ask(("X", "INT64", [1, 3], values), raw=is_raw))
    assert request.inputs["b"].tolist() == [[2**53 + 1]]


def test_several_inputs_raw() -> None:
    codec = OipV2Grpc("m", LINE)
    for _ in range(2):
        request = codec.decode(LINE_RAW)
        assert request.inputs["a"].tolist() == [[1.0], [2.0]]
        assert request.inputs["b"].tolist() == [[3], [4]]
        assert np.isnan(request.inputs["c"][1, 0])


def test_strings_and_a_frame_as_one_matrix() -> None:
    raw = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in ("paris", "łódź"))
    sizes = np.array([1.0, 2.0]).tobytes()
    request = OipV2Grpc("m", SHOP).decode(ask(("city", "BYTES", [2, 1], raw), ("size", "FP64", [2], sizes), raw=True))
    assert request.inputs["city"].tolist() == [["paris"], ["łódź"]]
    for body in (
        ask(("X", "FP32", [2, 3], np.arange(6, dtype=np.float32).tobytes()), raw=True),
        ask(("X", "FP64", [2, 3], ("fp64_contents", range(6)))),
        ask(("X", "INT32", [2, 3], ("int_contents", range(6)))),
    ):
        request = OipV2Grpc("m", LINE).decode(body)
        assert request.inputs["b"].tolist() == [[1], [4]]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (ask(("X", "FP32", [1, 4], ("fp32_contents", [1, 2, 3]))), "size"),
        (ask(("X", "FP32", [1, 4], bytes(12)), raw=True), "size"),
        (ask(("X", "FP32", [1, 5], bytes(20)), raw=True), "shape"),
        (ask(("X", "FP32", [0, 4], b""), raw=True), "shape"),
        (ask(("X", "FP32", [-1, 4], bytes(16)), raw=True), "shape"),
        (ask(("X", "FP32", [2**62, 4], bytes(16)), raw=True), "size"),
        (ask(("X", "BYTES", [1, 4], ("bytes_contents", [b"a"] * 4))), "datatype"),
        (ask(("X", "FP17", [1, 4], bytes(16)), raw=True), "datatype"),
        (ask(("X", "FP32", [1, 4], ("fp64_contents", [1, 2, 3, 4]))), "form"),
        (ask(("X", "FP32", [1, 4], None)), "form"),
        (ask(("Y", "FP32", [1, 4], bytes(16)), raw=True), "unknown_input"),
        (ask(("X", "FP32", [1, 4], bytes(16)), ("X", "FP32", [1, 4], bytes(16)), raw=True), "unique"),
        (ask(), "required"),
        (ask(("X", "INT8", [1, 4], ("int_contents", [1, 2, 3, 400]))), "datatype"),
    ],
)
def test_a_misfit_is_named(body: bytes, rule: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        OipV2Grpc("m", GRID).decode(body)
    assert caught.value.rule == rule


def test_values_stand_in_one_place() -> None:
    message = REQUEST.FromString(GRID_CONTENTS)
    message.raw_input_contents.append(ROW.tobytes())
    with pytest.raises(SchemaMismatch) as caught:
        OipV2Grpc("m", GRID).decode(message.SerializeToString())
    assert caught.value.rule == "form"
    message.raw_input_contents.append(b"")
    with pytest.raises(MalformedPayload):
        OipV2Grpc("m", GRID).decode(message.SerializeToString())


def test_missing_and_integral_values() -> None:
    body = ask(
        ("a", "INT32", [1, 1], ("int_contents", [7])),
        ("b", "FP64", [1, 1], ("fp64_contents", [2.0])),
        ("c", "FP32", [1, 1], ("fp32_contents", [np.nan])),
    )
    request = OipV2Grpc("m", LINE).decode(body)
    assert (request.inputs["a"].item(), request.inputs["b"].item()) == (7.0, 2)
    with pytest.raises(SchemaMismatch) as caught:
        OipV2Grpc("m", LINE).decode(body.replace(np.float64(2).tobytes(), np.float64(2.5).tobytes()))
    assert (caught.value.field, caught.value.rule) == ("b", "integral")


def test_outputs_and_id() -> None:
    codec = OipV2Grpc("m", GRID)
    body = ask(("X", "FP32", [1, 4], ROW.tobytes()), raw=True, id="mine", outputs=[{"name": "probability"}])
    request = codec.decode(body)
    assert (request.id, request.outputs) == ("mine", ("probability",))
    for more, kind_of_error in (({"outputs": [{"name": "x"}]}, SchemaMismatch), ({"id": "x" * 300}, MalformedPayload)):
        with pytest.raises(kind_of_error):
            codec.decode(ask(("X", "FP32", [1, 4], ROW.tobytes()), raw=True, **more))


def test_another_models_message_is_not_read() -> None:
    with pytest.raises(MalformedPayload):
        OipV2Grpc("other", GRID).decode(GRID_RAW)
    with pytest.raises(MalformedPayload):
        OipV2Grpc("m", GRID).decode(GRID_RAW + b"\x0a\x01n")  # it says another name behind the first


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (ask(), ("m", "")),
        (ask(model_version="12"), ("m", "12")),
        (ask(model_name="n" * 200, model_version="1"), ("n" * 200, "1")),
        (b"\x12\x011\x0a\x01m", ("m", "1")),
        (b"", ("", "")),
        (b"\x0a\x01m" + b"\x1a\x01i", ("m", "")),
    ],
)
def test_the_address_of_a_message(body: bytes, wanted: tuple[str, str]) -> None:
    assert address(body) == wanted


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x02\xff\xfe", b"\x0a\x7f", b"\xff"])
def test_what_has_no_address_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        address(body)


def answer(codec: OipV2Grpc, request: InferenceRequest, outputs: dict[str, Any]) -> Any:
    rows = len(next(iter(outputs.values())))
    lines, data = codec.encode(request, InferenceResponse(outputs, rows, name="m", version=3, digest=Digest("sha256:0"), id="p"))
    assert lines == b""
    return RESPONSE.FromString(data)


EVERY = {
    "BOOL": np.array([True, False]), "INT8": np.array([-1, 2], np.int8), "INT64": np.array([-(2**40), 2**40]), "UINT8": np.array([1, 255], np.uint8),
    "UINT64": np.array([1, 2**63], np.uint64), "FP32": np.array([1.5, np.nan], np.float32), "FP64": np.array([1e300, -1.0]),
    "BYTES": np.array(["a", None], object),
}  # fmt: skip


@pytest.mark.parametrize("datatype", EVERY)
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_an_answer_is_read_by_protobuf(datatype: Any, rows: int) -> None:
    schema = Schema(inputs=GRID.inputs, outputs=(TensorSpec(name="y", datatype=datatype, shape=(-1,)),), layout="tensors", task="other")
    values = np.resize(EVERY[datatype], rows)
    codec = OipV2Grpc("m", schema)
    request = InferenceRequest({}, rows)
    said = answer(codec, request, {"y": values})
    assert (said.model_name, said.model_version, said.id) == ("m", "3", "p")
    (tensor,) = said.outputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("y", datatype, [rows])
    ((_, found),) = tensor.contents.ListFields()
    if datatype == "BYTES":
        assert [value.decode() for value in found] == [value or "" for value in values]
    else:
        np.testing.assert_array_equal(np.array(found, values.dtype), values)
    request.parameters = {"raw": True}
    said = answer(codec, request, {"y": values})
    assert not said.outputs[0].HasField("contents")
    if datatype != "BYTES":
        np.testing.assert_array_equal(np.frombuffer(said.raw_output_contents[0], values.dtype), values)


def test_an_answer_goes_back_as_the_question_came() -> None:
    codec = OipV2Grpc("m", GRID)
    outputs = {"label": np.array([1]), "probability": np.array([[0.25, 0.75]], np.float32)}
    assert answer(codec, codec.decode(GRID_RAW), outputs).raw_output_contents
    assert not answer(codec, codec.decode(GRID_CONTENTS), outputs).raw_output_contents
    asked = codec.decode(ask(("X", "FP32", [1, 4], ROW.tobytes()), raw=True, outputs=[{"name": "probability"}]))
    assert [each.name for each in answer(codec, asked, outputs).outputs] == ["probability"]
    half = Schema(inputs=GRID.inputs, outputs=(TensorSpec(name="y", datatype="FP16", shape=(-1,)),), layout="tensors", task="other")
    said = answer(OipV2Grpc("m", half), OipV2Grpc("m", half).decode(GRID_CONTENTS), {"y": np.array([1.5], np.float16)})
    assert said.raw_output_contents[0] == np.float16(1.5).tobytes()


def test_a_stream_has_the_same_answers_in_its_envelope() -> None:
    codec = OipV2GrpcStream("m", GRID)
    response = InferenceResponse({"label": np.array([1]), "probability": ROW[:, :2]}, 1, name="m", version=1, digest=Digest("sha256:0"), id="p")
    data = codec.encode(codec.decode(GRID_RAW), response)[1]
    assert kind("inference.ModelStreamInferResponse").FromString(data).infer_response.id == "p"
