"""Which schemas may take over from which."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelyard.gates.schema import compatible, widens
from modelyard.types import Schema, TensorSpec

AGE = TensorSpec(name="age", datatype="INT64", shape=(-1, 1))
CITY = TensorSpec(name="city", datatype="BYTES", shape=(-1, 1), categories=("Bonn", "Rome"), unknown_allowed=False)
LABEL = TensorSpec(name="label", datatype="INT64", shape=(-1,))
BASE = Schema(inputs=(AGE, CITY), outputs=(LABEL,), layout="frame", task="classification", classes=(0, 1))


def changed(column: str, **fields: Any) -> Schema:
    inputs = tuple(msgspec.structs.replace(spec, **fields) if spec.name == column else spec for spec in BASE.inputs)
    return msgspec.structs.replace(BASE, inputs=inputs)


@pytest.mark.parametrize(
    "after",
    [
        BASE,
        changed("age", datatype="FP64"),
        changed("age", is_nullable=True),
        changed("city", categories=("Bonn", "Oslo", "Rome")),
        changed("city", unknown_allowed=True),
        changed("age", minimum=(1.0,), maximum=(9.0,)),
    ],
)
def test_what_accepts_as_much_is_compatible(after: Schema) -> None:
    assert compatible(BASE, after).outcome == "pass"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (changed("age", name="years"), "input age is gone; input years is new"),
        (msgspec.structs.replace(BASE, inputs=(CITY, AGE)), "order"),
        (changed("age", datatype="INT32"), "took INT64 and takes INT32"),
        (changed("age", datatype="BYTES"), "takes BYTES"),
        (changed("age", shape=(-1, 2)), "shape"),
        (changed("city", categories=("Bonn",)), "1 categories fewer"),
        (msgspec.structs.replace(BASE, layout="array"), "layout"),
        (msgspec.structs.replace(BASE, classes=(1, 0)), "classes"),
        (msgspec.structs.replace(BASE, outputs=(msgspec.structs.replace(LABEL, name="y"),)), "outputs"),
        (msgspec.structs.replace(BASE, task="other"), "task"),
    ],
)
def test_what_would_refuse_or_change_a_request_is_named(after: Schema, said: str) -> None:
    verdict = compatible(BASE, after)
    assert verdict.outcome == "fail" and said in verdict.evidence


def test_null_and_unknown_categories_cannot_be_taken_back() -> None:
    nullable = changed("age", is_nullable=True)
    assert "no longer be missing" in compatible(nullable, BASE).evidence
    open_ = changed("city", unknown_allowed=True)
    assert "no longer allows unknown" in compatible(open_, BASE).evidence


def test_integers_widen_by_range_and_floats_take_all_numbers() -> None:
    assert widens("INT8", "INT64") and widens("UINT8", "INT16") and widens("UINT8", "UINT32") and widens("UINT64", "FP32") and widens("FP64", "FP32")
    assert not widens("INT8", "UINT64") and not widens("UINT8", "INT8") and not widens("FP32", "INT64") and not widens("BOOL", "FP64")
    assert not widens("BYTES", "FP64") and not widens("FP64", "BYTES")
