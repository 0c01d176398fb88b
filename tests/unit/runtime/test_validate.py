from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from modelyard.errors import SchemaMismatch
from modelyard.runtime.validate import Checker, check, row_bytes
from modelyard.types import Schema, TensorSpec

if TYPE_CHECKING:
    from modelyard.types import Array

SCHEMA = Schema(
    inputs=(
        TensorSpec(name="a", datatype="FP64", shape=(-1, 1)),
        TensorSpec(name="b", datatype="FP64", shape=(-1, 1)),
        TensorSpec(name="half", datatype="FP16", shape=(-1, 1)),
        TensorSpec(name="maybe", datatype="FP32", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="n", datatype="INT32", shape=(-1, 1)),
        TensorSpec(name="maybe_n", datatype="INT8", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="flag", datatype="BOOL", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="closed", datatype="BYTES", shape=(-1, 1), categories=("x", "y"), unknown_allowed=False),
        TensorSpec(name="open", datatype="BYTES", shape=(-1, 1), categories=("x",), is_nullable=True),
        TensorSpec(name="code", datatype="INT64", shape=(-1, 1), categories=(1, 2), unknown_allowed=False, is_nullable=True),
        TensorSpec(name="image", datatype="FP64", shape=(-1, -1, 2)),
    ),
    outputs=(),
    layout="frame",
    task="other",
)


def good(rows: int = 2) -> dict[str, Array]:
    def column(value: object, dtype: object) -> Array:
        return np.full((rows, 1), value, dtype=dtype)  # type: ignore[call-overload, no-any-return]

    return {
        "a": column(1.5, float),
        "b": column(1e308, float),
        "half": column(6e4, np.float16),
        "maybe": column(np.nan, np.float32),
        "n": column(3, np.int32),
        "maybe_n": column(np.nan, float),
        "flag": column(1, float),
        "closed": column("x", object),
        "open": column(None, object),
        "code": column(np.nan, float),
        "image": np.zeros((rows, 3, 2)),
    }


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_what_fits_passes(rows: int) -> None:
    check(SCHEMA, good(rows))
    check(SCHEMA, {**good(rows), "open": np.full((rows, 1), "new", dtype=object), "code": np.full((rows, 1), 2.0)})


def test_a_sum_that_overflows_is_not_an_infinity() -> None:
    check(SCHEMA, {**good(), "a": np.full((2, 1), 1.7e308), "b": np.full((2, 1), 1.7e308)})


SECRET = "s3cret"


def changed(name: str, value: object, *, dtype: object = float, rows: int = 2) -> dict[str, Array]:
    array = good(rows)[name].astype(dtype)  # type: ignore[call-overload]
    array.reshape(-1)[-1] = value
    return {**good(rows), name: array}


LARGE = 5000
"""More values than are summed as a product with zeros."""


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16"])
@pytest.mark.parametrize("shape", [(-1, LARGE), (-1, LARGE // 2, 2)])
@pytest.mark.parametrize("at", [0, LARGE // 2 + 1, LARGE - 1])
def test_one_value_of_many_that_is_not_finite_is_found_wherever_it_stands(datatype: Any, shape: tuple[int, ...], at: int) -> None:
    schema = Schema(inputs=(TensorSpec(name="X", datatype=datatype, shape=shape),), outputs=(), layout="array", task="other")
    dtype = {"FP64": np.float64, "FP32": np.float32, "FP16": np.float16}[datatype]
    limits = np.finfo(dtype)
    for value in (0.0, limits.max, limits.min, limits.tiny, limits.smallest_subnormal):  # squares overflow, or vanish
        check(schema, {"X": np.full((1, *shape[1:]), value, dtype)})
        for bad, rule in ((np.nan, "nullable"), (np.inf, "finite"), (-np.inf, "finite")):
            values = np.full((1, *shape[1:]), value, dtype)
            values.reshape(-1)[at] = bad
            with pytest.raises(SchemaMismatch) as refused:
                check(schema, {"X": values})
            assert refused.value.rule == rule


@pytest.mark.parametrize(
    ("inputs", "field", "rule"),
    [
        (changed("a", np.nan), "a", "nullable"),
        (changed("b", np.inf), "b", "finite"),
        (changed("b", -np.inf, rows=1), "b", "finite"),
        (changed("half", np.inf, dtype=np.float16), "half", "finite"),
        (changed("maybe", -np.inf, dtype=np.float32), "maybe", "finite"),
        (changed("maybe_n", np.inf), "maybe_n", "finite"),
        (changed("maybe_n", 1.5), "maybe_n", "type"),
        (changed("maybe_n", 128), "maybe_n", "type"),
        (changed("flag", 2), "flag", "type"),
        (changed("n", 1), "n", "type"),
        (changed("closed", SECRET, dtype=object), "closed", "category"),
        (changed("closed", None, dtype=object), "closed", "nullable"),
        (changed("open", b"x", dtype=object), "open", "type"),
        (changed("open", 1, dtype=object), "open", "type"),
        (changed("code", 3), "code", "category"),
        (changed("image", np.nan), "image", "nullable"),
        ({**good(), "image": np.zeros((2, 3, 3))}, "image", "shape"),
        ({**good(), "a": np.zeros(2)}, "a", "shape"),
        ({**good(), "b": np.zeros((3, 1))}, "b", "rows"),
        ({name: value for name, value in good().items() if name != "n"}, "n", "missing"),
        ({**{name: value for name, value in good().items() if name != "n"}, SECRET: np.zeros(1)}, "n", "missing"),
        ({**good(), SECRET: np.zeros((2, 1))}, "inputs", "unexpected"),
        ({}, "a", "rows"),
        (good(0), "a", "rows"),
    ],
)
def test_what_does_not_fit_is_refused_by_field_and_rule_without_echo(inputs: dict[str, Array], field: str, rule: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        check(SCHEMA, inputs)
    assert (caught.value.field, caught.value.rule) == (field, rule)
    assert SECRET not in str(caught.value)


def test_one_checker_serves_many_requests() -> None:
    checker = Checker(SCHEMA)
    with pytest.raises(SchemaMismatch):
        checker.check(changed("a", np.nan), 2)
    checker.check(good(), 2)
    checker.check(good(1), 1)


@pytest.mark.parametrize("tag", ["drop", "hash", "mask"])
def test_a_closed_tagged_column_is_checked_and_its_values_are_not_told(tag: str) -> None:
    inputs = tuple(msgspec.structs.replace(spec, tag=tag) if spec.name in ("closed", "code") else spec for spec in SCHEMA.inputs)
    checker = Checker(msgspec.structs.replace(SCHEMA, inputs=inputs))
    checker.check(good(), 2)
    for name, value in (("closed", np.full((2, 1), "secret", dtype=object)), ("code", np.full((2, 1), 7.0))):
        with pytest.raises(SchemaMismatch) as caught:
            checker.check({**good(), name: value}, 2)
        assert (caught.value.field, caught.value.rule) == (name, "category")
        assert caught.value.message == f"{name!r} takes only the values that the model knows"


def test_the_size_of_a_row_counts_an_open_dimension_as_one_element() -> None:
    assert row_bytes(SCHEMA) == 8 + 8 + 2 + 4 + 4 + 8 + 8 + 8 + 8 + 8 + 2 * 8
