"""Laws of the codecs: what a client writes is what the model is asked, whatever the values, the form and the order."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import InvalidInput
from modelyard.protocols import bind
from modelyard.protocols.messages import kind
from modelyard.protocols.tensors import NUMPY, Column, from_raw, to_raw
from modelyard.types import Digest, InferenceRequest, InferenceResponse, Schema, TensorSpec
from serving import GRID, LINE, SHOP

V2, V1, MLFLOW = (bind("m", LINE)[wire] for wire in ("oip_v2", "kserve_v1", "mlflow"))
doubles = st.floats(allow_nan=False, allow_infinity=False, width=64)
floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
longs = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
line = st.lists(st.fixed_dictionaries({"a": doubles, "b": longs, "c": st.none() | floats}), min_size=1, max_size=6)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key], equal_nan=True) for key in first)


@given(line, st.permutations(["a", "b", "c"]), st.booleans())
def test_all_forms_of_a_frame_ask_the_same(rows: list[dict[str, Any]], order: list[str], nested: bool) -> None:
    kinds = {"a": "FP64", "b": "INT64", "c": "FP32"}
    tensors = [
        {"name": name, "shape": [len(rows), 1], "datatype": kinds[name], "data": [[row[name]] if nested else row[name] for row in rows]}
        for name in order
    ]
    asked = V2.decode(json.dumps({"inputs": tensors}).encode(), "").inputs
    records = [{name: row[name] for name in order} for row in rows]
    assert same(asked, V1.decode(json.dumps({"instances": records}).encode(), "").inputs)
    assert same(asked, V1.decode(json.dumps({"instances": [[row["a"], row["b"], row["c"]] for row in rows]}).encode(), "").inputs)
    split = {"columns": order, "data": [[row[name] for name in order] for row in rows]}
    assert same(asked, MLFLOW.decode(json.dumps({"dataframe_split": split}).encode(), "").inputs)
    columns = {name: [row[name] for row in rows] for name in order}
    assert same(asked, MLFLOW.decode(json.dumps({"inputs": columns}).encode(), "").inputs)
    assert asked["a"].ravel().tolist() == [row["a"] for row in rows]
    assert asked["b"].ravel().tolist() == [row["b"] for row in rows]


@given(line)
def test_every_other_wire_asks_the_same(rows: list[dict[str, Any]]) -> None:
    """Law: the forms of all wires, bulk ones included, mean one question."""
    asked = V1.decode(json.dumps({"instances": rows}).encode(), "").inputs
    columns = {name: [row[name] for row in rows] for name in "abc"}
    codecs = bind("m", LINE)
    for wire, body in (
        ("v1_predict", {"instances": rows}),
        ("v1_predict", {"inputs": columns}),
        ("tfserving", {"signature_name": "serving_default", "instances": rows}),
        ("tf_regress", {"examples": rows}),
        ("azureml", {"data": rows}),
        ("vertex", {"instances": rows}),
    ):
        assert same(asked, codecs[wire].decode(json.dumps(body).encode(), "").inputs), wire
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    assert same(asked, codecs["json_lines"].decode(lines, "application/jsonlines").inputs)
    cells = "".join(",".join("" if row[name] is None else repr(row[name]) for name in "abc") + "\n" for row in rows)
    assert same(asked, codecs["csv"].decode(b"a,b,c\n" + cells.encode(), "text/csv").inputs)
    table = pa.table({"a": pa.array(columns["a"], pa.float64()), "b": pa.array(columns["b"], pa.int64()), "c": pa.array(columns["c"], pa.float32())})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert same(asked, codecs["arrow"].decode(sink.getvalue(), "application/vnd.apache.arrow.stream").inputs)


@given(st.lists(st.tuples(texts, doubles, longs, st.booleans()), min_size=1, max_size=6))
def test_what_the_bulk_forms_write_they_read(rows: list[tuple[str, float, int, bool]]) -> None:
    """Law: an answer in a bulk form, sent back as a question in the same form, holds the same values."""
    kinds = {"s": "BYTES", "f": "FP64", "i": "INT64", "b": "BOOL"}
    specs = tuple(TensorSpec(name=name, datatype=kind, shape=(-1, 1)) for name, kind in kinds.items())  # type: ignore[arg-type]
    schema = Schema(inputs=specs, outputs=specs, layout="frame", task="other")
    arrays = {name: np.array(list(values), object if name == "s" else None) for name, values in zip(kinds, zip(*rows, strict=True), strict=True)}
    arrays["s"][:] = [text or "x" for text in arrays["s"]]  # an empty cell of CSV is missing
    response = InferenceResponse(arrays, len(rows), name="m", version=1, digest=Digest("sha256:0"), id="i")
    for form in ("arrow", "json_lines", "csv"):
        codec = bind("m", schema)[form]
        lines, body = codec.encode(InferenceRequest({}, len(rows)), response)
        media = lines.decode().split(": ")[1].split(";")[0].strip()
        asked = codec.decode(body, media).inputs
        assert all(asked[name].ravel().tolist() == arrays[name].tolist() for name in kinds), form


@given(st.lists(texts, min_size=1, max_size=6))
def test_strings_arrive_as_they_were_sent(cities: list[str]) -> None:
    codec = bind("m", SHOP)["kserve_v1"]
    body = json.dumps({"instances": [[city, 1.0] for city in cities]}).encode()
    assert codec.decode(body, "").inputs["city"].ravel().tolist() == cities


@given(st.lists(st.lists(floats, min_size=4, max_size=4), min_size=1, max_size=6), st.booleans())
def test_an_array_flat_or_nested_is_the_same_array(rows: list[list[float]], nested: bool) -> None:
    data: list[Any] = rows if nested else [value for row in rows for value in row]
    body = json.dumps({"inputs": [{"name": "X", "shape": [len(rows), 4], "datatype": "FP32", "data": data}]}).encode()
    array = bind("m", GRID)["oip_v2"].decode(body, "").inputs["X"]
    np.testing.assert_array_equal(array, np.array(rows, np.float32))


@given(st.sampled_from([name for name in NUMPY if name != "BYTES"]), st.data())
def test_raw_tensors_come_back_bit_for_bit(datatype: Any, data: st.DataObject) -> None:
    dtype = NUMPY[datatype]
    size = data.draw(st.integers(1, 20))
    raw = data.draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    if datatype == "BOOL":
        raw = bytes(byte & 1 for byte in raw)
    column = Column(TensorSpec(name="x", datatype=datatype, shape=(-1,)))
    assert to_raw(from_raw(column, memoryview(raw), datatype, (size,)), datatype) == raw


@given(st.lists(texts, min_size=1, max_size=8))
def test_raw_strings_come_back(strings: list[str]) -> None:
    column = Column(TensorSpec(name="x", datatype="BYTES", shape=(-1,)))
    made = np.empty(len(strings), object)
    made[:] = strings
    assert from_raw(column, memoryview(to_raw(made, "BYTES")), "BYTES", (len(strings),)).tolist() == strings


@given(st.lists(doubles, min_size=1, max_size=5), st.integers(1, 10**9), texts)
def test_an_answer_read_by_the_wires_own_rules_holds_the_same_values(values: list[float], version: int, given_id: str) -> None:
    response = InferenceResponse({"prediction": np.array(values)}, len(values), name="m", version=version, digest=Digest("sha256:0"), id=given_id)
    request = InferenceRequest({}, len(values))
    said = json.loads(V2.encode(request, response)[1])
    assert said == {
        "model_name": "m", "model_version": str(version), "id": given_id,
        "outputs": [{"name": "prediction", "datatype": "FP64", "shape": [len(values)], "data": values}],
    }  # fmt: skip
    assert json.loads(V1.encode(request, response)[1]) == {"predictions": values}
    request.parameters = {"binary:prediction": True}
    lines, body = V2.encode(request, response)
    size = int(lines.split(b"inference-header-content-length: ")[1])
    assert json.loads(body[:size])["outputs"][0]["parameters"] == {"binary_data_size": 8 * len(values)}
    assert np.frombuffer(body[size:], np.float64).tolist() == values


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | doubles | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c", "name", "shape", "data", "datatype", "inputs"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(json_values, st.sampled_from(["inputs", "instances", "dataframe_split", "dataframe_records", "examples", "data", "input_data"]))
def test_any_json_is_answered_or_refused_and_nothing_else(value: Any, key: str) -> None:
    for schema in (LINE, SHOP, GRID):
        codecs = bind("m", schema)
        for codec in (codecs[wire] for wire in ("oip_v2", "v1_predict", "tf_regress", "mlflow", "azureml")):
            for body in (json.dumps(value).encode(), json.dumps({key: value}).encode()):
                try:
                    codec.decode(body, "")
                except InvalidInput as error:
                    assert error.rule


grid_rows = st.lists(st.lists(floats, min_size=4, max_size=4), min_size=1, max_size=5)


@given(st.lists(grid_rows, min_size=1, max_size=4), st.booleans())
def test_grpc_asks_what_json_asks_however_often_the_form_was_seen(batches: list[list[list[float]]], is_raw: bool) -> None:
    """One codec reads them all: what it remembers of a form must not show."""
    codec, json_codec = bind("m", GRID)["oip_v2_grpc"], bind("m", GRID)["oip_v2"]
    for rows in [*batches, *batches]:
        message = kind("inference.ModelInferRequest")(model_name="m")
        tensor = message.inputs.add(name="X", datatype="FP32", shape=[len(rows), 4])
        if is_raw:
            message.raw_input_contents.append(np.array(rows, np.float32).tobytes())
        else:
            tensor.contents.fp32_contents.extend(value for row in rows for value in row)
        body = json.dumps({"inputs": [{"name": "X", "shape": [len(rows), 4], "datatype": "FP32", "data": rows}]}).encode()
        assert same(codec.decode(message.SerializeToString(), "").inputs, json_codec.decode(body, "").inputs)


@given(line)
def test_all_grpc_wires_ask_the_same_of_a_frame(rows: list[dict[str, Any]]) -> None:
    asked = kind("inference.ModelInferRequest")(model_name="m")
    predict = kind("tensorflow.serving.PredictRequest")(model_spec={"name": "m"})
    for name, datatype, field, dtype in (("a", "FP64", "double_val", 2), ("b", "INT64", "int64_val", 9), ("c", "FP32", "float_val", 1)):
        values = [np.nan if row[name] is None else row[name] for row in rows]
        tensor = asked.inputs.add(name=name, datatype=datatype, shape=[len(rows), 1])
        getattr(tensor.contents, {"a": "fp64_contents", "b": "int64_contents", "c": "fp32_contents"}[name]).extend(values)
        other = predict.inputs[name]
        other.dtype = dtype
        for size in (len(rows), 1):
            other.tensor_shape.dim.add(size=size)
        getattr(other, field).extend(values)
    codecs = bind("m", LINE)
    inputs = codecs["oip_v2_grpc"].decode(asked.SerializeToString(), "").inputs
    assert same(inputs, codecs["tfserving_grpc"].decode(predict.SerializeToString(), "").inputs)
    assert inputs["b"].ravel().tolist() == [row["b"] for row in rows]


@given(st.lists(st.tuples(longs, floats, floats), min_size=1, max_size=40), st.booleans())
def test_a_grpc_answer_holds_the_values(rows: list[tuple[int, float, float]], is_raw: bool) -> None:
    outputs: dict[str, Any] = {"label": np.array([row[0] for row in rows]), "probability": np.array([row[1:] for row in rows], np.float32)}
    request = InferenceRequest({}, len(rows))
    request.parameters = {"raw": True} if is_raw else None
    response = InferenceResponse(outputs, len(rows), name="m", version=1, digest=Digest("sha256:0"), id="p")
    said = kind("inference.ModelInferResponse").FromString(bind("m", GRID)["oip_v2_grpc"].encode(request, response)[1])
    for at, (name, field) in enumerate((("label", "int64_contents"), ("probability", "fp32_contents"))):
        values = outputs[name]
        found = (
            np.frombuffer(said.raw_output_contents[at], values.dtype) if is_raw else np.array(getattr(said.outputs[at].contents, field), values.dtype)
        )
        np.testing.assert_array_equal(found.reshape(list(said.outputs[at].shape)), values)


@given(st.binary(max_size=200))
def test_grpc_codecs_refuse_by_their_own_kinds(body: bytes) -> None:
    codecs = bind("m", GRID)
    for wire in ("oip_v2_grpc", "tfserving_grpc", "tf_classify_grpc"):
        try:
            codecs[wire].decode(body, "")
        except InvalidInput:
            continue
