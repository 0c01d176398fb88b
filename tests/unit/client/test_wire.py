"""Arrays on the wire: how each datatype is written, and what a caller may hand in."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas
import pytest

from modelyard.client.wire import array_of, columns, tensor
from modelyard.errors import SchemaMismatch
from modelyard.types import TensorSpec

A = TensorSpec(name="a", datatype="FP64", shape=(-1, 1))
B = TensorSpec(name="b", datatype="FP64", shape=(-1, 1))
X = TensorSpec(name="X", datatype="FP64", shape=(-1, 2))


@pytest.mark.parametrize(
    ("spec", "array", "data"),
    [
        (TensorSpec(name="x", datatype="FP64", shape=(-1, 1)), np.array([[1.5], [np.nan]]), [1.5, None]),
        (TensorSpec(name="x", datatype="BYTES", shape=(-1, 1)), np.array([["a"], [None]], object), ["a", None]),
        (TensorSpec(name="x", datatype="BOOL", shape=(-1, 1)), np.array([[1.0], [np.nan]]), [True, None]),
        (TensorSpec(name="x", datatype="INT64", shape=(-1, 2)), np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
    ],
)
def test_a_tensor_is_written_flat_with_null_for_missing(spec: TensorSpec, array: Any, data: list[Any]) -> None:
    written = msgspec.json.decode(msgspec.json.encode(tensor(spec, array)))
    assert written["data"] == data and written["shape"] == list(array.shape)


def test_an_answer_is_read_in_its_type() -> None:
    assert np.isnan(array_of({"datatype": "FP32", "shape": [2], "data": [None, 1.0]})[0])
    assert array_of({"datatype": "BYTES", "shape": [2], "data": ["a", "b"]}).dtype == object
    assert array_of({"datatype": "BOOL", "shape": [1, 1], "data": [True]}).shape == (1, 1)


def test_lists_frames_and_arrays_are_columns() -> None:
    for given in ({"a": [1.0, 2.0], "b": np.zeros(2)}, pandas.DataFrame({"b": [0.0, 0.0], "a": [1.0, 2.0]})):
        found = columns("m", (A, B), given)
        assert found["a"].tolist() == [[1.0], [2.0]] and found["b"].shape == (2, 1)
    assert columns("m", (X,), [[1.0, 2.0]])["X"].shape == (1, 2)
    assert columns("m", (X,), {"X": [[1.0, 2.0]]})["X"].shape == (1, 2)
    assert columns("m", (X,), pandas.DataFrame({"p": [1.0], "q": [2.0]}))["X"].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(("given", "rule"), [({"a": [1.0]}, "required"), ([[1.0]], "names"), ({"a": [1.0], "b": [1.0, 2.0]}, "rows")])
def test_what_is_no_batch_is_refused_before_it_is_sent(given: Any, rule: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        columns("m", (A, B), given)
    assert caught.value.rule == rule
