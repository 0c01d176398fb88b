from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.errors import InvalidInput, MalformedPayload, ModelFailed, SchemaMismatch
from modelyard.protocols.mlflow import MLflow
from modelyard.types import Schema, TensorSpec
from serving import GRID, LINE, SHOP

CODEC = MLflow("line", LINE)


@pytest.mark.parametrize("text", ["1_0", "0x10", "1e99999", "--1", "\u0661", "1 2", "1,5"])
def test_csv_cells_that_are_no_numbers(text: str) -> None:
    with pytest.raises(InvalidInput):
        CODEC.decode(f'a,b,c\n"{text}",2,3\n'.encode(), "text/csv")


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), (" 1.5 ", 1.5), ("-.5e1", -5.0), ("+2.", 2.0)])
def test_csv_cells_that_are(text: str, value: float) -> None:
    assert CODEC.decode(f"a,b,c\n{text},2,3\n".encode(), "text/csv").inputs["a"].tolist() == [[value]]


def test_csv_by_kind() -> None:
    flag = Schema(inputs=(TensorSpec(name="f", datatype="BOOL", shape=(-1, 1)),), outputs=LINE.outputs, layout="frame", task="regression")
    assert MLflow("m", flag).decode(b"f\nTrue\nfalse\n", "text/csv").inputs["f"].tolist() == [[True], [False]]
    assert MLflow("m", SHOP).decode(b'city,size\n"a,b",1\n', "text/csv").inputs["city"].tolist() == [["a,b"]]
    assert MLflow("m", GRID).decode(b"p,q,r,s\n1,2,3,4\n", "text/csv").inputs["X"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    "body", [b"", b"a,b,c\n", b"a,b,c\n1,2\n", b"a,b,c\n1,2,3,4\n", b"a,a,c\n1,2,3\n", b"a,b,d\n1,2,3\n", b"a,b,c,d\n1,2,3,4\n", b'a,b,c\n"1\n']
)
def test_csv_that_does_not_fit(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        CODEC.decode(body, "text/csv")


def test_an_empty_cell_is_missing() -> None:
    assert CODEC.decode(b"a,b,c\n1,2,\n", "text/csv").inputs["c"].tolist() != [[0.0]]
    with pytest.raises(SchemaMismatch):
        CODEC.decode(b"a,b,c\n,2,3\n", "text/csv")


@pytest.mark.parametrize("body", [{}, {"instances": [[1, 2, 3]], "dataframe_records": []}, {"x": 1}, {"instances": [[1, 2, 3]], "params": {"p": 1}}])
def test_exactly_one_form_and_no_parameters(body: Any) -> None:
    with pytest.raises(MalformedPayload):
        CODEC.decode(json.dumps(body).encode(), "")


def test_a_split_frame_goes_by_its_columns_and_without_them_by_order() -> None:
    for split in ({"columns": ["c", "a", "b"], "data": [[3, 1, 2]], "index": [7]}, {"data": [[1, 2, 3]]}):
        assert CODEC.decode(json.dumps({"dataframe_split": split}).encode(), "").inputs["b"].tolist() == [[2]]


def test_errors_of_the_caller_and_of_the_model() -> None:
    assert json.loads(CODEC.refuse(SchemaMismatch("m", field="a", rule="r")))["error_code"] == "BAD_REQUEST"
    assert json.loads(CODEC.refuse(ModelFailed("m")))["error_code"] == "MODEL_FAILED"
