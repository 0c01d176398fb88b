from __future__ import annotations

import numpy as np
import pytest

from modelyard.errors import InvalidInput, PayloadTooLarge, SchemaMismatch
from modelyard.protocols.csv_table import CELLS, CsvTable
from modelyard.protocols.records import ROWS
from modelyard.types import Digest, InferenceRequest, InferenceResponse, Schema, TensorSpec
from serving import GRID, LINE, SHOP

CODEC = CsvTable("line", LINE)


@pytest.mark.parametrize("text", ["1_0", "0x10", "1e99999", "--1", "\u0661", "1 2", "1,5"])
def test_csv_cells_that_are_no_numbers(text: str) -> None:
    with pytest.raises(InvalidInput):
        CODEC.decode(f'a,b,c\n"{text}",2,3\n'.encode(), "text/csv")


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), (" 1.5 ", 1.5), ("-.5e1", -5.0), ("+2.", 2.0)])
def test_csv_cells_that_are(text: str, value: float) -> None:
    assert CODEC.decode(f"a,b,c\n{text},2,3\n".encode(), "text/csv").inputs["a"].tolist() == [[value]]


def test_csv_by_kind() -> None:
    flag = Schema(inputs=(TensorSpec(name="f", datatype="BOOL", shape=(-1, 1)),), outputs=LINE.outputs, layout="frame", task="regression")
    assert CsvTable("m", flag).decode(b"f\nTrue\nfalse\n", "text/csv").inputs["f"].tolist() == [[True], [False]]
    assert CsvTable("m", SHOP).decode(b'city,size\n"a,b",1\n', "text/csv").inputs["city"].tolist() == [["a,b"]]
    assert CsvTable("m", GRID).decode(b"p,q,r,s\n1,2,3,4\n", "text/csv").inputs["X"].tolist() == [[1, 2, 3, 4]]


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


def test_quotes_lines_and_a_byte_order_mark() -> None:
    body = '\ufeffcity,size\r\n"a ""b"",\nc",1\r\n\r\nd,2'.encode()
    assert CsvTable("m", SHOP).decode(body, "text/csv").inputs["city"].tolist() == [['a "b",\nc'], ["d"]]


def test_an_answer_has_a_column_per_element() -> None:
    outputs = {"label": np.array([True, False]), "p": np.array([[0.5, np.nan], [1e-9, 2]]), "who": np.array(["a,b", None], object)}
    response = InferenceResponse(outputs, 2, name="m", version=1, digest=Digest("sha256:0"), id="i")
    lines, body = CODEC.encode(InferenceRequest({}, 2), response)
    assert lines == b"content-type: text/csv; charset=utf-8\r\n"
    assert body.decode() == 'label,p_0,p_1,who\ntrue,0.5,,"a,b"\nfalse,1e-09,2.0,\n'


def test_very_many_rows_or_cells_are_too_many() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        CODEC.decode(b"a,b,c\n" + b"1,2,3\n" * (ROWS + 1), "text/csv")
    assert caught.value.rule == "rows"
    with pytest.raises(PayloadTooLarge) as caught:
        CsvTable("grid", GRID).decode(b"x\n" + (b"1," * 999 + b"1\n") * (CELLS // 1000 + 1), "text/csv")
    assert caught.value.rule == "cells"
    assert CODEC.decode(b"a,b,c\n" + b"1,2,3\n" * 3000, "text/csv").rows == 3000


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_empty_lines_are_passed_over_and_count(end: bytes) -> None:
    """Sixteen million of them took three seconds of everybody's."""
    assert CODEC.decode(end * 3 + b"a,b,c" + end * 2 + b"1,2,3" + end * 4, "text/csv").rows == 1
    with pytest.raises(PayloadTooLarge) as caught:
        CODEC.decode(b"a,b,c" + end + b"1,2,3" + end * 70_000, "text/csv")
    assert caught.value.rule == "rows"
    with pytest.raises(SchemaMismatch) as missed:
        CODEC.decode(end * 70_000 + b"a,b,c" + end + b"1,2,3", "text/csv")
    assert missed.value.rule == "size"


def test_a_block_of_plain_numbers_and_one_with_others_mean_the_same() -> None:
    plain, mixed = b"1,2,3\n" * 5, b" 1 ,2.0,\n1,2,nan\n"
    assert CODEC.decode(b"a,b,c\n" + plain + mixed, "text/csv").inputs["b"].tolist() == [[2]] * 7
    for wrong in ("1_0", "\u0661", "x"):
        with pytest.raises(SchemaMismatch):
            CODEC.decode(b"a,b,c\n" + plain + f"{wrong},2,3\n".encode(), "text/csv")
