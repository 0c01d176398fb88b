from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard.errors import PayloadTooLarge, SchemaMismatch
from modelyard.protocols.records import ROWS, Records, main_output, matrix_of, per_row
from modelyard.types import Schema, TensorSpec
from serving import GRID, LINE, SHOP

LINES = Records(LINE)
PAIR = Schema(
    inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 2, 2)), TensorSpec(name="k", datatype="INT64", shape=(-1,))),
    outputs=(TensorSpec(name="out", datatype="FP32", shape=(-1, 3)),),
    layout="tensors",
    task="other",
)


def test_tensors_by_record_and_by_row() -> None:
    image = [[1, 2], [3, 4]]
    for instances in ([{"image": image, "k": 5}], [[image, 5]]):
        request = Records(PAIR).from_instances(instances, "instances")
        assert request.inputs["image"].tolist() == [image]
        assert request.inputs["k"].tolist() == [5]


def test_a_single_input_takes_bare_rows_records_and_rows_of_one() -> None:
    assert Records(GRID).from_instances([[1, 2, 3, 4]], "i").inputs["X"].tolist() == [[1, 2, 3, 4]]
    assert Records(GRID).from_instances([{"X": [1, 2, 3, 4]}], "i").inputs["X"].tolist() == [[1, 2, 3, 4]]
    single = Records(Schema(inputs=SHOP.inputs[1:], outputs=SHOP.outputs, layout="frame", task="regression"))
    for instances in ([1.0, 2.0], [[1.0], [2.0]], [{"size": 1.0}, {"size": 2.0}]):
        assert single.from_instances(instances, "i").inputs["size"].tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("instances", "rule"),
    [
        ([], "size"),
        ([[1, 2]], "size"),
        ([{"a": 1, "b": 2}], "required"),
        ([{"a": 1, "b": 2, "c": 3, "d": 4}], "unknown_input"),
        ([{"a": 1, "b": 2, "c": 3}, [1, 2, 3]], "type"),
        ([1.0], "type"),
        ([None], "type"),
        ([[1, 2, 3], [1, 2]], "size"),
    ],
)
def test_rows_that_are_none(instances: list[Any], rule: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        LINES.from_instances(instances, "instances")
    assert caught.value.rule == rule


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[1, 2, 3, 4, 5]], [[1, 2, 3, [4]]], [[[1, 2, 3, 4]]], [[]], [1], ["abcd"], [[1, 2, 3, 4], 5]])
def test_array_rows_that_are_none(rows: list[Any]) -> None:
    with pytest.raises(SchemaMismatch):
        Records(GRID).from_instances(rows, "instances")


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ({"a": [1], "b": [2]}, "required"),
        ({"a": [1], "b": [2], "c": [3], "d": [4]}, "unknown_input"),
        ({"a": [1], "b": [2, 3], "c": [3]}, "rows"),
        ({"a": 1, "b": [2], "c": [3]}, "type"),
        ({"a": [], "b": [], "c": []}, "type"),
    ],
)
def test_columns_that_are_none(columns: dict[str, Any], rule: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        LINES.from_columns(columns, "inputs")
    assert caught.value.rule == rule


def test_a_matrix_is_the_columns_side_by_side() -> None:
    request = LINES.from_matrix(np.array([[1.5, 2, np.nan], [3, 4, 5]]))
    assert request.inputs["a"].tolist() == [[1.5], [3.0]]
    assert request.inputs["b"].dtype == np.int64
    assert np.isnan(request.inputs["c"][0, 0])
    assert LINES.is_numeric
    assert not Records(SHOP).is_numeric
    assert not Records(GRID).is_numeric


def test_integers_that_a_float_cannot_hold_do_not_travel_in_a_matrix() -> None:
    assert matrix_of([1, None, 2.5], 1, 3).shape == (1, 3)
    for values in ([2**53 + 1], [True], ["1"], [[1]]):
        with pytest.raises(SchemaMismatch):
            matrix_of(values, 1, 1)


def test_main_output_and_rows() -> None:
    assert (main_output(LINE), main_output(GRID), main_output(PAIR)) == ("prediction", "label", "out")
    assert per_row(np.array([[1.0], [2.0]])) == [1.0, 2.0]
    assert per_row(np.array([[1.0, 2.0]])) == [[1.0, 2.0]]


def test_very_many_rows_are_too_many_row_by_row() -> None:
    records = Records(LINE)
    for ask in (
        lambda: records.from_instances([[1, 2, 3]] * (ROWS + 1), "instances"),
        lambda: records.from_split(None, [[1, 2, 3]] * (ROWS + 1), "dataframe_split"),
        lambda: records.from_records([{"a": 1, "b": 2, "c": 3}] * (ROWS + 1), "examples"),
    ):
        with pytest.raises(PayloadTooLarge) as caught:
            ask()
        assert caught.value.rule == "rows"
