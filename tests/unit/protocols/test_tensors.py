from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard.errors import MalformedPayload, SchemaMismatch
from modelyard.protocols.tensors import LARGE_BYTES, Column, from_field, from_raw, kind_of, to_raw
from modelyard.types import TensorSpec


def column(datatype: Any = "FP64", shape: tuple[int, ...] = (-1, 1), *, nullable: bool = False) -> Column:
    return Column(TensorSpec(name="x", datatype=datatype, shape=shape, is_nullable=nullable))


@pytest.mark.parametrize(
    ("datatype", "kind"), [("BOOL", "b"), ("UINT8", "i"), ("FP16", "f"), ("BYTES", "s"), ("BF16", "?"), ("fp32", "?"), ("", "?")]
)
def test_kinds(datatype: str, kind: str) -> None:
    assert kind_of(datatype) == kind


@pytest.mark.parametrize(
    ("datatype", "nullable", "values", "dtype"),
    [
        ("FP64", False, [1, 2.5], np.float64),
        ("FP32", False, [1, 2.5], np.float32),
        ("INT8", False, [1, 2.0], np.int8),
        ("UINT64", False, [0, 2**64 - 1], np.uint64),
        ("BOOL", False, [True, False], np.bool_),
        ("BOOL", True, [True, None], np.float64),
        ("INT64", True, [3, None], np.float64),
        ("FP32", True, [3, None], np.float32),
        ("BYTES", True, ["a", None], object),
    ],
)
def test_values_become_what_travels_inside(datatype: Any, nullable: bool, values: list[Any], dtype: Any) -> None:
    array = column(datatype, nullable=nullable).from_flat(values, (2, 1))
    assert array.dtype == dtype
    assert array.shape == (2, 1)
    back = [None if value is None or value != value else value for value in array.ravel().tolist()]
    assert back == values


@pytest.mark.parametrize(
    ("datatype", "values", "rule"),
    [
        ("INT8", [128], "range"),
        ("UINT8", [-1], "range"),
        ("UINT64", [2**64], "range"),
        ("INT64", [1e30], "range"),
        ("INT64", [1.5], "integral"),
        ("INT64", [True], "type"),
        ("BOOL", [1], "type"),
        ("BYTES", [1], "type"),
        ("FP64", [None], "nullable"),
        ("FP64", ["1"], "type"),
        ("FP64", [[1]], "type"),
        ("FP64", [{}], "type"),
    ],
)
def test_no_other_cast(datatype: Any, values: list[Any], rule: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        column(datatype).from_flat(values, (1, 1))
    assert (caught.value.field, caught.value.rule) == ("x", rule)


@pytest.mark.parametrize(("given", "full"), [([3, 1], (3, 1)), ([3], (3, 1))])
def test_fit(given: list[int], full: tuple[int, ...]) -> None:
    assert column().fit(given) == full


@pytest.mark.parametrize("given", [[], [0, 1], [-1, 1], [3, 2], [3, 1, 1], [2**62, 2]])
def test_shapes_that_do_not_fit(given: list[int]) -> None:
    with pytest.raises(SchemaMismatch):
        column().fit(given)


def test_open_dimensions_fit_any_size() -> None:
    assert column(shape=(-1, -1, 3)).fit([2, 7, 3]) == (2, 7, 3)


@pytest.mark.parametrize(
    ("given", "wanted", "taken"),
    [
        ("FP32", "FP64", True),
        ("FP64", "FP32", True),
        ("INT8", "FP32", True),
        ("FP64", "INT8", True),
        ("UINT8", "INT64", True),
        ("FP16", "FP32", False),
        ("BOOL", "INT8", False),
        ("INT8", "BOOL", False),
        ("BYTES", "FP32", False),
        ("FP32", "BYTES", False),
        ("NONSENSE", "FP32", False),
    ],
)
def test_datatypes_that_may_stand_for_others(given: str, wanted: Any, taken: bool) -> None:
    if taken:
        column(wanted).accept(given)
    else:
        with pytest.raises(SchemaMismatch):
            column(wanted).accept(given)


@pytest.mark.parametrize(
    ("data", "shape"),
    [([[1.0], [2.0]], (2, 1)), ([1.0, 2.0], (2, 1)), ([[[1.0, 2.0]], [[3.0, 4.0]]], (2, 1, 2)), ([1.0, 2.0, 3.0, 4.0], (2, 1, 2))],
)
def test_flat_and_nested(data: list[Any], shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(column(shape=(-1, *shape[1:])).from_nested(data, shape), np.array(data).reshape(shape))


@pytest.mark.parametrize("data", [[[1.0, 2.0]], [[1.0], 2.0], [[[1.0]], [[2.0]]], [[1.0], []], [[1.0]], [], [1.0, [2.0]]])
def test_nesting_that_is_not_the_shape(data: list[Any]) -> None:
    with pytest.raises(SchemaMismatch):
        column().from_nested(data, (2, 1))


@pytest.mark.parametrize(
    ("values", "rule"), [([np.nan], "nullable"), ([1.5], "integral"), ([np.inf], "integral"), ([2.0**60], "integral"), ([300.0], "range")]
)
def test_floats_for_integers_by_binary(values: list[float], rule: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        column("INT8").from_array(np.array(values), "FP64")
    assert caught.value.rule == rule


def test_missing_integers_by_binary() -> None:
    array = column("INT8", nullable=True).from_array(np.array([np.nan, 3.0], np.float32), "FP32")
    assert array.dtype == np.float64
    assert np.isnan(array[0])


def test_raw_bytes_must_be_as_many_as_said() -> None:
    with pytest.raises(SchemaMismatch):
        from_raw(column(), memoryview(b"\0" * 9), "FP64", (1, 1))
    with pytest.raises(SchemaMismatch):
        from_raw(column("BOOL"), memoryview(b"\2"), "BOOL", (1, 1))


@pytest.mark.parametrize("askew", [0, 1, 4, 7])
def test_a_large_tensor_lies_straight_wherever_it_stood(askew: int) -> None:
    many = np.arange(LARGE_BYTES // 8, dtype="<f8")
    raw = memoryview(b"\0" * askew + many.tobytes())[askew:]
    assert np.frombuffer(raw, "<f8").flags.aligned == (askew % 8 == 0)
    array = from_raw(column(), raw, "FP64", (len(many), 1))
    assert array.flags.aligned
    assert array[:, 0].tolist() == many.tolist()
    few = from_raw(column(), raw[:8], "FP64", (1, 1))
    assert not few.flags.owndata
    assert array.flags.owndata == (askew % 8 != 0)


@pytest.mark.parametrize("raw", [b"", b"\4\0\0\0abc", b"\xff\xff\xff\xff", b"\1\0\0\0ab", b"\1\0\0\0"])
def test_raw_strings_that_lie_about_their_length(raw: bytes) -> None:
    with pytest.raises(SchemaMismatch):
        from_raw(column("BYTES"), memoryview(raw), "BYTES", (1, 1))


def test_raw_strings_are_utf8() -> None:
    with pytest.raises(MalformedPayload):
        from_raw(column("BYTES"), memoryview(b"\1\0\0\0\xff"), "BYTES", (1, 1))
    many = from_raw(column("BYTES", (-1, 2)), memoryview(to_raw(np.array([["a", "é"]], object), "BYTES")), "BYTES", (1, 2))
    assert many.tolist() == [["a", "é"]]


def test_a_count_of_strings_is_believed_only_as_far_as_the_bytes_go() -> None:
    with pytest.raises(SchemaMismatch):
        from_raw(column("BYTES"), memoryview(b"\0" * 8), "BYTES", (10**9, 1))


@pytest.mark.parametrize(
    ("datatype", "values", "wanted"),
    [
        ("INT8", [-128, 127], np.array([-128, 127], np.int8)),
        ("UINT64", [0, 2**64 - 1], np.array([0, 2**64 - 1], np.uint64)),
        ("INT64", [-(2**63), 2**63 - 1], np.array([-(2**63), 2**63 - 1])),
        ("BOOL", [True, False], np.array([True, False])),
        ("FP32", [1.5, float("nan")], np.array([1.5, np.nan], np.float32)),
        ("FP16", [0x3E00, 0xFFFF], np.array([0x3E00, 0xFFFF], np.uint16).view(np.float16)),
        ("BYTES", ["größe".encode(), b""], np.array(["größe", ""], object)),
        ("INT32", [], np.array([], np.int32)),
    ],
)
def test_a_field_becomes_a_row_of_its_datatype(datatype: str, values: list[Any], wanted: Any) -> None:
    for times in (1, 1000):
        made = from_field(column(), values * times, datatype)
        assert made.dtype == wanted.dtype
        np.testing.assert_array_equal(made, np.tile(wanted, times))


@pytest.mark.parametrize(("datatype", "values"), [("INT8", [128]), ("UINT16", [-1]), ("UINT32", [2**32]), ("FP16", [0x10000]), ("FP16", [-1])])
def test_a_number_that_is_not_of_the_datatype_is_refused(datatype: str, values: list[int]) -> None:
    for given in (values, values * 1000):
        with pytest.raises(SchemaMismatch) as caught:
            from_field(column(), given, datatype)
        assert caught.value.rule == "datatype"


def test_a_field_that_is_no_text_is_malformed() -> None:
    with pytest.raises(MalformedPayload) as caught:
        from_field(column("BYTES"), [b"a", b"\xff"], "BYTES")
    assert caught.value.rule == "utf8"
