"""Typed records: whatever they take means what the general reading makes of it, and whatever they refuse is left to it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import InvalidInput
from modelyard.protocols.kserve_v1 import KServeV1
from modelyard.protocols.records import Records
from modelyard.protocols.rows import RecordReader, Rows, together
from modelyard.types import Schema, TensorSpec

ANSWER = (TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),)


def frame(*inputs: tuple[str, str, bool]) -> Schema:
    specs = tuple(TensorSpec(name=name, datatype=kind, shape=(-1, 1), is_nullable=nullable) for name, kind, nullable in inputs)
    return Schema(inputs=specs, outputs=ANSWER, layout="frame", task="regression")


MIXED = frame(
    ("age", "INT64", False), ("work-class", "BYTES", True), ("small", "INT8", False), ("rate", "FP32", False), ("share", "FP64", True),
    ("flag", "BOOL", False), ("count", "INT32", True), ("sex", "BYTES", False), ("maybe", "BOOL", True), ("half", "FP16", False),
)  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-300, 300), st.integers(), st.floats(width=32), st.floats(-10, 10), st.text(max_size=4),
    st.lists(st.integers(0, 9), max_size=2), st.sampled_from([3.0, 1e40, 1e300, 10**30, -0.0]),
)  # fmt: skip
FITTING = {
    "age": st.integers(-(2**63), 2**63 - 1), "work-class": st.none() | st.text(max_size=4), "small": st.integers(-128, 127),
    "rate": st.floats(-1e38, 1e38) | st.integers(-9, 9), "share": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    "flag": st.booleans(), "count": st.none() | st.integers(-(2**31), 2**31 - 1), "sex": st.text(max_size=4), "maybe": st.none() | st.booleans(),
    "half": st.floats(-9, 9),
}  # fmt: skip


def general(schema: Schema, body: bytes) -> object:
    """What the reading that is not typed makes of `body`: arrays, or a refusal's words."""
    codec = KServeV1("m", schema)
    codec.fast = None
    return outcome(codec, body)


def outcome(codec: KServeV1, body: bytes) -> object:
    try:
        request = codec.decode(body, "application/json")
    except InvalidInput as error:
        return type(error), error.message, error.field, error.rule
    return request.rows, [(name, array.dtype, array.shape, repr(array.tolist())) for name, array in request.inputs.items()]


@given(st.lists(st.fixed_dictionaries(FITTING), min_size=1, max_size=4))
def test_fitting_records_are_read_by_type_and_mean_the_same(records: list[dict]) -> None:
    body = json.dumps({"instances": records}).encode()
    reader = RecordReader.of(Records(MIXED))
    assert reader is not None
    assert reader.read(body) is not None
    assert outcome(KServeV1("m", MIXED), body) == general(MIXED, body)


@given(
    st.lists(st.fixed_dictionaries({**FITTING, "age": VALUES, "rate": VALUES, "sex": VALUES}), max_size=3),
    st.sampled_from(["", "extra", "missing", "more"]),
)
def test_whatever_comes_gets_the_same_answer(records: list[dict], change: str) -> None:
    for record in records[:1]:
        if change == "extra":
            record["unknown"] = 1
        elif change == "missing":
            del record["sex"]
    body = json.dumps({"instances": records, **({"parameters": {}} if change == "more" else {})}).encode()
    assert outcome(KServeV1("m", MIXED), body) == general(MIXED, body)


@given(st.lists(st.lists(st.fixed_dictionaries(FITTING), min_size=1, max_size=3), min_size=1, max_size=4))
def test_requests_together_are_their_arrays_end_to_end(requests: list[list[dict]]) -> None:
    codec = KServeV1("m", MIXED)
    inputs = [codec.decode(json.dumps({"instances": records}).encode(), "").inputs for records in requests]
    assert all(type(each) is Rows for each in inputs)
    joined = together(inputs)
    for name in codec.records.columns:
        expected = np.concatenate([each[name] for each in inputs])
        assert joined[name].dtype == expected.dtype
        assert joined[name].shape == expected.shape
        assert repr(joined[name].tolist()) == repr(expected.tolist())
        assert joined[name].flags.c_contiguous


def test_requests_of_both_kinds_run_together() -> None:
    codec = KServeV1("m", frame(("a", "FP64", False)))
    typed, nested = (codec.decode(body, "").inputs for body in (b'{"instances": [{"a": 1}]}', b'{"instances": [[2]]}'))
    assert type(typed) is Rows
    assert type(nested) is not Rows
    for order in ([typed, nested], [nested, typed]):
        assert sorted(together(order)["a"].ravel().tolist()) == [1.0, 2.0]


@pytest.mark.parametrize(
    "schema",
    [
        frame(("a", "UINT64", False)),
        frame(('quo"te', "FP64", False)),
        Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 3)),), outputs=ANSWER, layout="array", task="regression"),
    ],
)
def test_what_cannot_be_typed_is_left_to_the_general_reading(schema: Schema) -> None:
    assert RecordReader.of(Records(schema)) is None
