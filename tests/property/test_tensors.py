"""The laws of bundle.tensors: `unpack(pack(x)) == x`, and no bytes crash `unpack`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from modelyard.bundle.tensors import pack, unpack
from modelyard.errors import UnsupportedFormat

SHAPES = npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
NUMBERS = st.sampled_from(["bool", "int8", "int64", "uint16", "float16", "float32", "float64"]).flatmap(lambda name: npst.arrays(name, SHAPES))
TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
STRINGS = SHAPES.flatmap(lambda shape: npst.arrays(object, shape, elements=TEXT))
RECORDS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), NUMBERS | STRINGS, max_size=4)


@given(RECORDS)
def test_what_is_packed_is_unpacked(arrays: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    data = pack(arrays)
    back = unpack(data)
    assert list(back) == list(arrays) and pack(back) == data
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


@given(st.binary(max_size=200))
@example(b"\2\0\0\0\0\0\0\0[]")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        arrays = unpack(data)
    except UnsupportedFormat:
        return
    assert pack(arrays) == data


@given(RECORDS.filter(bool), st.data())
def test_a_record_cut_short_is_refused(arrays: dict[str, np.ndarray], data: st.DataObject) -> None:  # type: ignore[type-arg]
    packed = pack(arrays)
    with pytest.raises(UnsupportedFormat):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])
