from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelyard.errors import InvalidInput
from modelyard.protocols.arrow import MEDIA, Arrow
from modelyard.types import Digest, InferenceRequest, InferenceResponse, Schema, TensorSpec
from serving import GRID, LINE, SHOP

NULLABLE = Schema(
    inputs=tuple(TensorSpec(name=kind, datatype=kind, shape=(-1, 1), is_nullable=True) for kind in ("BOOL", "INT64", "FP64", "BYTES")),
    outputs=LINE.outputs,
    layout="frame",
    task="regression",
)


def stream(columns: dict[str, Any]) -> bytes:
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decode(schema: Schema, **columns: Any) -> InferenceRequest:
    return Arrow("m", schema).decode(stream(columns), MEDIA)


def test_columns_go_by_name_with_the_casts_of_every_wire() -> None:
    request = decode(LINE, c=pa.array([3, None], pa.int8()), a=pa.array([1, 2], pa.float16()), b=pa.array([2.0, 3.0]))
    assert request.rows == 2
    assert [request.inputs[name].dtype for name in "abc"] == [np.float64, np.int64, np.float32]
    assert request.inputs["b"].tolist() == [[2], [3]]
    assert request.inputs["c"][0, 0] == 3
    assert np.isnan(request.inputs["c"][1, 0])


def test_strings_and_dictionaries() -> None:
    for city in (pa.array(["paris", "berlin"]), pa.array(["paris", "berlin"]).dictionary_encode()):
        assert decode(SHOP, city=city, size=[1.0, 2.0]).inputs["city"].tolist() == [["paris"], ["berlin"]]


def test_missing_values_where_the_schema_allows_them() -> None:
    request = decode(NULLABLE, BOOL=[True, None], INT64=[7, None], FP64=[1.5, None], BYTES=["x", None])
    assert [request.inputs[name][0, 0] for name in ("BOOL", "INT64", "FP64", "BYTES")] == [1.0, 7.0, 1.5, "x"]
    assert all(np.isnan(request.inputs[name][1, 0]) for name in ("BOOL", "INT64", "FP64"))
    assert request.inputs["BYTES"][1, 0] is None
    nothing = pa.nulls(2)
    request = decode(NULLABLE, BOOL=nothing, INT64=nothing, FP64=nothing, BYTES=nothing)
    assert np.isnan(request.inputs["INT64"]).all()
    assert request.inputs["BYTES"].tolist() == [[None], [None]]


def test_an_array_comes_as_lists_or_as_columns_and_a_frame_as_one_matrix() -> None:
    rows = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    lists = decode(GRID, X=pa.array(rows, pa.list_(pa.float32(), 4)))
    columns = decode(GRID, **{f"c{at}": [row[at] for row in rows] for at in range(4)})
    assert lists.inputs["X"].tolist() == columns.inputs["X"].tolist() == rows
    assert decode(LINE, X=pa.array([[1.0, 2.0, 3.0]])).inputs["b"].tolist() == [[2]]


@pytest.mark.parametrize(
    ("schema", "columns", "field", "rule"),
    [
        (LINE, {"a": [1.0], "b": [2]}, "c", "required"),
        (LINE, {"a": [1.0], "b": [2], "c": [3.0], "canary4711": [4]}, "body", "unknown_input"),
        (LINE, {"a": ["canary4711"], "b": [2], "c": [3.0]}, "a", "datatype"),
        (LINE, {"a": [True], "b": [2], "c": [3.0]}, "a", "datatype"),
        (LINE, {"a": [None, 1.0], "b": [2, 2], "c": [3.0, 3.0]}, "a", "nullable"),
        (LINE, {"a": [1.0], "b": [2.5], "c": [3.0]}, "b", "integral"),
        (LINE, {"a": [1.0], "b": pa.array([2**64 - 1], pa.uint64()), "c": [3.0]}, "b", "range"),
        (LINE, {"a": [[1.0, 2.0]], "b": [2], "c": [3.0]}, "a", "shape"),
        (LINE, {"a": pa.array([], pa.float64()), "b": pa.array([], pa.int64()), "c": pa.array([], pa.float32())}, "body", "size"),
        (LINE, {"X": [[1.0, 2.0]]}, "X", "shape"),
        (SHOP, {"city": [4711], "size": [1.0]}, "city", "datatype"),
        (GRID, {"c0": [1.0], "c1": [2.0]}, "X", "shape"),
        (GRID, {"c0": ["x"], "c1": ["y"], "c2": ["z"], "c3": ["canary4711"]}, "X", "type"),
        (GRID, {"X": [[1.0, 2.0]]}, "X", "shape"),
    ],
)
def test_a_misfit_is_named_and_not_echoed(schema: Schema, columns: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(schema, **columns)
    assert (caught.value.field, caught.value.rule) == (field, rule)
    assert "4711" not in caught.value.message


def test_an_answer_is_a_stream_of_every_output() -> None:
    outputs = {"label": np.array([0, 1]), "probability": np.array([[0.75, 0.25], [0.5, 0.5]], np.float32)}
    response = InferenceResponse(outputs, 2, name="m", version=1, digest=Digest("sha256:0"), id="i")
    lines, body = Arrow("m", GRID).encode(InferenceRequest({}, 2), response)
    assert lines == f"content-type: {MEDIA}\r\n".encode()
    table = pa.ipc.open_stream(body).read_all()
    assert table.to_pydict() == {"label": [0, 1], "probability": [[0.75, 0.25], [0.5, 0.5]]}
    assert table.schema.field("probability").type == pa.list_(pa.float32(), 2)
