"""What every wire codec must do, alike: round trips, strictness, and refusals that hold no data."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from msgspec import structs

from modelyard.errors import InvalidInput, MalformedPayload, ModelFailed, SchemaMismatch, UnsupportedMedia
from modelyard.protocols import CODECS, bind
from modelyard.protocols.base import Codec
from modelyard.protocols.messages import kind
from modelyard.types import Digest, InferenceRequest, InferenceResponse, Schema
from serving import GRID, LINE, SHOP

WIRES = tuple(wire for wire in CODECS if wire != "azureml_query")  # its body is a query of one row, with tests of its own
MEDIA = {
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv",
    "json_lines": "application/jsonlines",
    **{wire: "application/grpc" for wire in CODECS if "grpc" in wire},
}
"""What a wire's clients call their body, where it is not JSON."""
JSON_WIRES = tuple(wire for wire in WIRES if wire not in MEDIA)
GRPC_WIRES = tuple(wire for wire in WIRES if "grpc" in wire)
"""Their values have types of their own, their media type was read before, and their refusals travel beside the message."""
HTTP_WIRES = tuple(wire for wire in WIRES if wire not in GRPC_WIRES)
CANARY = "canary4711"


def codec(wire: str, schema: Schema) -> Codec:
    if wire.startswith("tf_classify"):
        schema = structs.replace(schema, outputs=GRID.outputs, task="classification", classes=GRID.classes)
    elif wire.startswith("tf_regress"):
        schema = structs.replace(schema, outputs=LINE.outputs, task="regression", classes=None)
    return bind("m", schema)[wire]


def decode(wire: str, schema: Schema, body: bytes) -> InferenceRequest:
    return codec(wire, schema).decode(body, MEDIA.get(wire, "application/json"))


def write_message(schema: Schema, rows: list[dict[str, Any]]) -> bytes:
    """`rows` as a ModelInferRequest."""
    message = kind("inference.ModelInferRequest")(model_name="m")
    for spec in schema.inputs:
        values = [row[spec.name] for row in rows]
        flat = [item for value in values for item in value] if spec.shape[1:] not in {(), (1,)} else values
        tensor = message.inputs.add(name=spec.name, datatype=spec.datatype, shape=[len(rows), *spec.shape[1:]])
        if spec.datatype == "BYTES":
            tensor.contents.bytes_contents.extend(value.encode() for value in flat)
        elif spec.datatype == "INT64":
            tensor.contents.int64_contents.extend(flat)
        else:
            values = [np.nan if value is None else value for value in flat]
            getattr(tensor.contents, spec.datatype.lower() + "_contents").extend(values)
    return bytes(message.SerializeToString())


def write_tensorflow(wire: str, schema: Schema, rows: list[dict[str, Any]]) -> bytes:
    """`rows` as a PredictRequest, or as examples."""
    specs = {spec.name: spec for spec in schema.inputs}
    if wire == "tfserving_grpc":
        fields = {"FP64": ("double_val", 2), "FP32": ("float_val", 1), "INT64": ("int64_val", 9), "BYTES": ("string_val", 7)}
        message = kind("tensorflow.serving.PredictRequest")(model_spec={"name": "m"})
        for name, spec in specs.items():
            values = np.array([row[name] if row[name] is not None else np.nan for row in rows], object).ravel().tolist()
            field, dtype = fields[spec.datatype]
            tensor = message.inputs[name]
            tensor.dtype = dtype
            for size in (len(rows), *spec.shape[1:]):
                tensor.tensor_shape.dim.add(size=size)
            getattr(tensor, field).extend(value.encode() if spec.datatype == "BYTES" else value for value in values)
        return bytes(message.SerializeToString())
    message = kind("tensorflow.serving.ClassificationRequest")(model_spec={"name": "m"})  # a RegressionRequest has the same fields
    for row in rows:
        features = message.input.example_list.examples.add().features.feature
        for name, spec in specs.items():
            values = row[name] if isinstance(row[name], list) else [row[name]]
            if row[name] is None:
                features[name].SetInParent()
            elif spec.datatype == "BYTES":
                features[name].bytes_list.value.extend(value.encode() for value in values)
            elif spec.datatype == "INT64":
                features[name].int64_list.value.extend(values)
            else:
                features[name].float_list.value.extend(values)
    return bytes(message.SerializeToString())


def arrow_column(values: list[Any]) -> Any:
    """`values` as pyarrow has them; integers beyond its largest are its largest."""
    if any(isinstance(value, int) and value >= 2**63 for value in values):
        return pa.array([min(value, 2**64 - 1) for value in values], pa.uint64())
    return pa.array(values)


def write(wire: str, schema: Schema, rows: list[dict[str, Any]]) -> bytes:
    """`rows` as the wire's own clients would send them."""
    if wire in GRPC_WIRES:
        return write_message(schema, rows) if wire.startswith("oip") else write_tensorflow(wire, schema, rows)
    if wire == "oip_v2":
        tensors = []
        for spec in schema.inputs:
            data = [row[spec.name] for row in rows]
            flat = [item for value in data for item in value] if spec.shape[1:] not in {(), (1,)} else data
            tensors.append({"name": spec.name, "shape": [len(rows), *spec.shape[1:]], "datatype": spec.datatype, "data": flat})
        return json.dumps({"inputs": tensors}).encode()
    if wire == "azureml":
        return json.dumps({"data": [row["X"] for row in rows] if schema.layout == "array" else rows}).encode()
    if wire == "arrow":
        table = pa.table({spec.name: arrow_column([row[spec.name] for row in rows]) for spec in schema.inputs})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()
    if wire in {"tf_classify", "tf_regress"}:
        return json.dumps({"examples": rows}).encode()
    if wire == "json_lines":
        return b"\n".join(json.dumps(row["X"] if schema.layout == "array" else row).encode() for row in rows)
    if wire == "csv":
        names = [f"X{at}" for at in range(4)] if schema.layout == "array" else [spec.name for spec in schema.inputs]
        cells = [row["X"] if schema.layout == "array" else list(row.values()) for row in rows]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([names, *cells])
        return text.getvalue().encode()
    if schema.layout == "array":
        return json.dumps({"instances": [row["X"] for row in rows]}).encode()
    return json.dumps({"instances": rows}).encode()


ROWS: dict[str, tuple[Schema, list[dict[str, Any]]]] = {
    "numbers": (LINE, [{"a": 1.5, "b": 2, "c": 3.5}, {"a": 0, "b": -7, "c": None}]),
    "strings": (SHOP, [{"city": "paris", "size": 1.0}, {"city": "ünï \x00 code", "size": 2.0}]),
    "an array": (GRID, [{"X": [1.0, 2.0, 3.0, 4.0]}]),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("schema", "rows"), ROWS.values(), ids=ROWS)
def test_what_is_sent_arrives_in_the_one_internal_form(wire: str, schema: Schema, rows: list[dict[str, Any]]) -> None:
    request = decode(wire, schema, write(wire, schema, rows))
    assert request.rows == len(rows)
    assert set(request.inputs) == {spec.name for spec in schema.inputs}
    for spec in schema.inputs:
        array = request.inputs[spec.name]
        assert array.shape == (len(rows), *spec.shape[1:])
        wanted = [row[spec.name] for row in rows]
        if spec.datatype == "BYTES":
            assert array.ravel().tolist() == wanted
        else:
            assert array.dtype == {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64}[spec.datatype]
            np.testing.assert_array_equal(array, np.array(wanted, array.dtype).reshape(array.shape))


@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_holds_one_value_per_row_and_missing_numbers_are_null(wire: str) -> None:
    outputs = {"prediction": np.array([1.5, np.nan])}
    if wire.startswith("tf_classify"):
        outputs = {"label": np.array([0, 1]), "probability": np.array([[1.5, 0.0], [np.nan, 0.0]])}
    response = InferenceResponse(outputs, 2, name="m", version=3, digest=Digest("sha256:0"), id="p")
    lines, body = codec(wire, LINE).encode(InferenceRequest({}, 2), response)
    assert lines.startswith(b"content-type: " + MEDIA.get(wire, "application/json").encode()) or wire in GRPC_WIRES
    first, second = read(wire, body)
    assert first == 1.5
    assert np.isnan(second) if wire in NAN_WIRES else second is None


NAN_WIRES = {"tfserving", "tf_classify", "tf_regress", *GRPC_WIRES}
"""They have a token for it."""


def read(wire: str, body: bytes) -> list[Any]:
    """The predictions in an answer, by the wire's own rules."""
    if wire == "csv":
        return [float(cell) if cell else None for (cell,) in list(csv.reader(io.StringIO(body.decode())))[1:]]
    if wire == "arrow":
        return [None if value != value else value for value in pa.ipc.open_stream(body).read_all()["prediction"].to_pylist()]
    if wire == "json_lines":
        return [json.loads(line)["prediction"] for line in body.splitlines()]
    if wire == "tfserving_grpc":
        return list(kind("tensorflow.serving.PredictResponse").FromString(body).outputs["prediction"].double_val)
    if wire == "tf_classify_grpc":
        return [each.classes[0].score for each in kind("tensorflow.serving.ClassificationResponse").FromString(body).result.classifications]
    if wire == "tf_regress_grpc":
        return [each.value for each in kind("tensorflow.serving.RegressionResponse").FromString(body).result.regressions]
    if wire in GRPC_WIRES:
        message = kind("inference.ModelInferResponse" if wire == "oip_v2_grpc" else "inference.ModelStreamInferResponse").FromString(body)
        return list((message if wire == "oip_v2_grpc" else message.infer_response).outputs[0].contents.fp64_contents)
    said = json.loads(body)
    if wire == "azureml":
        return said
    if "results" in said:
        return [each[0][1] if wire == "tf_classify" else each for each in said["results"]]
    return said["outputs"][0]["data"] if wire == "oip_v2" else said["predictions"]


@pytest.mark.parametrize("wire", JSON_WIRES)
@pytest.mark.parametrize("media", ["", "application/json"])
def test_json_and_no_media_type_are_read_as_json(wire: str, media: str) -> None:
    assert codec(wire, LINE).decode(write(wire, LINE, ROWS["numbers"][1]), media).rows == 2


@pytest.mark.parametrize("wire", HTTP_WIRES)
def test_another_media_type_is_refused(wire: str) -> None:
    with pytest.raises(UnsupportedMedia, match=MEDIA.get(wire, "application/json")):
        codec(wire, LINE).decode(b"", "text/xml")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[" * 100_000, b'{"x": NaN}', b'{"x": 1e999}', b"\xff", b'"\\ud800"', b"9" * 5000, CANARY.encode()]
)
def test_what_is_no_message_is_malformed_and_not_echoed(wire: str, body: bytes) -> None:
    with pytest.raises(MalformedPayload if wire in JSON_WIRES else InvalidInput) as caught:
        decode(wire, LINE, body)
    assert CANARY not in caught.value.message


@pytest.mark.parametrize("wire", HTTP_WIRES)
@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"a": CANARY, "b": 2, "c": 3.0}, "a"),
        ({"a": True, "b": 2, "c": 3.0}, "a"),
        ({"a": None, "b": 2, "c": 3.0}, "a"),
        ({"a": [1.0, 2.0], "b": 2, "c": 3.0}, "a"),
        ({"a": {CANARY: 1}, "b": 2, "c": 3.0}, "a"),
        ({"a": 1.0, "b": 2.5, "c": 3.0}, "b"),
        ({"a": 1.0, "b": 2**70, "c": 3.0}, "b"),
        ({"a": 1.0, "b": None, "c": 3.0}, "b"),
        ({"a": 1.0, "b": 2, "c": CANARY}, "c"),
    ],
)
def test_a_misfit_is_named_and_not_echoed(wire: str, row: dict[str, Any], field: str) -> None:
    if wire == "arrow" and isinstance(row["a"], dict):
        field = "body"  # a type that is read nowhere
    with pytest.raises(InvalidInput if field == "body" else SchemaMismatch) as caught:
        decode(wire, LINE, write(wire, LINE, [row]))
    assert caught.value.field == field
    assert caught.value.rule
    assert CANARY not in caught.value.message


@pytest.mark.parametrize("wire", HTTP_WIRES)
def test_a_refusal_says_what_happened_in_the_wires_form(wire: str) -> None:
    said = json.loads(codec(wire, LINE).refuse(SchemaMismatch("input 'a' is missing", field="a", rule="required"))[1])
    assert said["field"] == "a"
    assert said["rule"] == "required"
    assert "input 'a' is missing" in said.values()


@pytest.mark.parametrize("wire", WIRES)
def test_the_models_own_words_are_withheld(wire: str) -> None:
    try:
        raise ModelFailed("the model failed on an input that its schema accepts") from ValueError(CANARY)
    except ModelFailed as error:
        assert CANARY not in codec(wire, LINE).refuse(error)[1].decode()


@pytest.mark.parametrize("wire", WIRES)
def test_a_codec_raises_nothing_but_its_own_kinds(wire: str) -> None:
    bound = codec(wire, LINE)
    good = write(wire, LINE, ROWS["numbers"][1])
    for at in range(0, len(good), 3):
        for change in (b"", b"[", b"9", b'"', b"\x00", b"null", b"-", b"{}"):
            try:
                bound.decode(good[:at] + change + good[at + 1 :], MEDIA.get(wire, "application/json"))
            except InvalidInput:
                continue
