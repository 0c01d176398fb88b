from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard.protocols.rows import Layout, Rows
from modelyard.protocols.tensors import Column
from modelyard.serve.sticky import WRITTEN, first_value
from modelyard.types import Datatype, TensorSpec


def column(datatype: Datatype, *, is_nullable: bool = False) -> Column:
    return Column(TensorSpec(name="x", datatype=datatype, shape=(-1, 1), is_nullable=is_nullable))


@pytest.mark.parametrize(
    ("datatype", "is_nullable", "value", "written"),
    [
        ("INT64", False, 7, b"7"),
        ("INT64", True, 7, b"7"),
        ("INT64", False, 2**60 + 1, b"%d" % (2**60 + 1)),
        ("FP64", False, 7.0, b"7"),
        ("FP64", False, 0.1, b"0.1"),
        ("FP32", False, 0.1, b"0.10000000149011612"),
        ("BOOL", False, True, b"1"),
        ("BOOL", True, False, b"0"),
        ("BYTES", False, "zoë", "zoë".encode()),
        ("BYTES", True, None, None),
        ("FP64", True, None, None),
    ],
)
def test_a_value_is_written_alike_however_it_travelled(datatype: Datatype, is_nullable: bool, value: Any, written: bytes | None) -> None:
    layout = Layout([column(datatype, is_nullable=is_nullable)])
    rows = Rows(layout, [(value,), (value,)])
    assert first_value(rows, "x") == written
    assert first_value(layout.columns([(value,)]), "x") == written, "as an array"


def test_only_the_first_row_counts() -> None:
    assert first_value({"x": np.array([[1.0], [2.0]])}, "x") == first_value({"x": np.array([1.0, 9.0])}, "x") == b"1"


def test_rows_of_several_elements_are_taken_whole() -> None:
    assert first_value({"x": np.array([[1.5, np.nan], [0, 0]])}, "x") == b"1.5\0"
    assert first_value({"x": np.array([[np.nan, np.nan]])}, "x") is None
    image = np.zeros((2, WRITTEN + 1))
    assert first_value({"x": image}, "x") == image[0].tobytes()


def test_no_such_input_is_no_value() -> None:
    assert first_value({"x": np.array([1.0])}, "y") is None
    assert first_value(Rows(Layout([column("FP64")]), [(1.0,)]), "y") is None
