"""The law of frames: `read(write(x))` equals x, in any pieces; and bytes that are no frame are refused, never believed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from modelyard.runtime.isolated import codec
from modelyard.runtime.isolated.codec import Garbled, Reader, Writer

DTYPES = st.sampled_from([np.dtype(code) for code in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")])
SHAPES = npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=6).map(lambda items: np.array([*items, None], dtype=object)[:-1])
ARRAYS = st.one_of(DTYPES.flatmap(lambda dtype: npst.arrays(dtype, SHAPES)), TEXTS)
NAMED = st.dictionaries(st.text(min_size=1, max_size=8), ARRAYS, min_size=1, max_size=5)


def fed(reader: Reader, data: bytes, step: int) -> list[dict[str, Any]]:
    found = []
    while data:
        room = reader.room()
        part = data[: min(step, len(room))]
        room[: len(part)] = part
        reader.filled(len(part))
        data = data[len(part) :]
        while (frame := reader.next()) is not None:
            found.append(reader.tensors(frame))
    return found


@given(frames=st.lists(NAMED, min_size=1, max_size=4), step=st.integers(1, 5000))
def test_what_was_written_is_read_in_any_pieces(frames: list[dict[str, np.ndarray]], step: int) -> None:
    writer = Writer()
    data = b"".join(bytes(buffer) for arrays in frames for _ in range(2) for buffer in writer.tensors(codec.ASK, 1, arrays))
    found = fed(Reader(limit_bytes=1 << 20, reserve_bytes=256), data, step)
    assert len(found) == 2 * len(frames)
    for arrays, again in zip([each for each in frames for _ in range(2)], found, strict=True):
        assert list(again) == list(arrays)
        for name, array in arrays.items():
            assert again[name].dtype == array.dtype and again[name].shape == array.shape
            assert again[name].tobytes() == array.tobytes() if array.dtype != object else again[name].tolist() == array.tolist()


@given(data=st.binary(max_size=400))
def test_other_bytes_are_garbled_or_wait_for_more(data: bytes) -> None:
    reader = Reader(limit_bytes=1 << 16, reserve_bytes=256)
    try:
        fed(reader, data, 100)
    except Garbled:
        return
    assert len(reader.room()) <= codec.DESCRIPTOR_LIMIT_BYTES + (1 << 17)


@given(arrays=NAMED, at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_garbled_or_other_values_but_never_an_error_of_another_kind(arrays: dict[str, np.ndarray], at: float, bit: int) -> None:
    data = bytearray(b"".join(bytes(buffer) for buffer in Writer().tensors(codec.ANSWER, 1, arrays)))
    data[int(at * len(data))] ^= 1 << bit
    try:
        fed(Reader(limit_bytes=1 << 16), bytes(data), 1 << 20)
    except Garbled:
        return
