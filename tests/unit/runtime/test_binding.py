"""From the schema's arrays to a graph's few wide inputs."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from modelyard.runtime.binding import MISSING, Binding, GraphInput, GraphOutput, feeder
from modelyard.types import Schema, TensorSpec


def schema(*nullable: str) -> Schema:
    specs = tuple(TensorSpec(name=name, datatype="BYTES" if name in "st" else "FP64", shape=(-1, 1), is_nullable=name in nullable) for name in "abst")
    return Schema(inputs=specs, outputs=(), layout="frame", task="other")


def column(*values: object, dtype: object = float) -> np.ndarray:
    return np.array(values, dtype).reshape(-1, 1)  # type: ignore[arg-type]


def test_numbers_of_several_types_stand_side_by_side_in_their_order() -> None:
    feed = feeder(GraphInput(graph="numbers", inputs=("b", "a"), dtype="float64"), schema())
    found = feed({"a": column(1, 2, dtype=np.int64), "b": column(True, False, dtype=bool)})
    assert found.dtype == np.float64
    assert found.tolist() == [[1, 1], [0, 2]]


def test_one_array_of_the_right_type_is_handed_on_without_a_copy() -> None:
    feed = feeder(GraphInput(graph="X", inputs=("a",), dtype="float64"), schema())
    array = column(1.0, np.nan)
    assert feed({"a": array}) is array
    assert feed({"a": array.astype(np.float32)}).dtype == np.float64


@pytest.mark.parametrize("names", [("s",), ("s", "t")])
def test_missing_text_travels_as_the_marker_where_it_may_be_missing(names: tuple[str, ...]) -> None:
    texts = {"s": column("x", None, dtype=object), "t": column("", "é", dtype=object)}
    nullable = feeder(GraphInput(graph="strings", inputs=names, dtype="string"), schema("s"))(texts)
    assert nullable[:, 0].tolist() == ["x", MISSING]
    strict = feeder(GraphInput(graph="strings", inputs=names, dtype="string"), schema())(texts)
    assert strict[:, 0].tolist() == ["x", None]  # the check before the runtime refuses it
    assert texts["s"][1, 0] is None


def test_a_binding_survives_its_file() -> None:
    binding = Binding(
        kind="onnx",
        inputs=(GraphInput(graph="numbers", inputs=("a", "b"), dtype="float64"),),
        outputs=(GraphOutput(name="label", graph="l"),),
        max_batch_rows=7,
    )
    assert msgspec.json.decode(msgspec.json.encode(binding), type=Binding) == binding
