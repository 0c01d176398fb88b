"""runtime.isolated.codec: frames that go there and back, and bytes that are no frames."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.runtime.isolated import codec
from modelyard.runtime.isolated.codec import PRELUDE, Garbled, Reader, Writer

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([True, False]),
    "t": np.array([["x"], [None]], dtype=object),
    "n": np.zeros((2, 0)),
    "i": np.arange(4, dtype=np.int16).reshape(2, 2).T,
}


def joined(buffers: list[Any]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)


def fed(reader: Reader, data: bytes, step: int = 1 << 30) -> list[codec.Frame]:
    """Each whole frame as it comes, its arrays read at once."""
    found = []
    while data:
        room = reader.room()
        part = data[: min(step, len(room))]
        room[: len(part)] = part
        reader.filled(len(part))
        data = data[len(part) :]
        while (frame := reader.next()) is not None:
            found.append(frame)
    return found


def test_arrays_come_back_as_they_went_and_aligned() -> None:
    writer = Writer()
    for _ in range(2):  # first time, and remembered
        (frame,) = fed(reader := Reader(limit_bytes=1 << 20), joined(writer.tensors(codec.ASK, 7, ARRAYS, micros=12)))
        assert (frame.kind, frame.ident, frame.micros) == (codec.ASK, 7, 12)
        found = reader.tensors(frame)
        assert list(found) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            assert found[name].tolist() == array.tolist()
            assert found[name].dtype == object or found[name].ctypes.data % codec.ALIGNED == 0 or not found[name].size


def test_a_large_array_is_sent_in_pieces_and_a_lone_one_too() -> None:
    large = {"a": np.random.default_rng(0).random((100, 1000)), "b": np.ones(3, np.float32)}
    for arrays in (large, {"a": large["a"]}):
        writer = Writer()
        for _ in range(2):
            buffers = writer.tensors(codec.ANSWER, 1, arrays)
            (frame,) = fed(reader := Reader(limit_bytes=1 << 22), joined(buffers), step=7001)
            assert all((reader.tensors(frame)[name] == array).all() for name, array in arrays.items())
        assert len(buffers) > 1


def test_frames_come_one_after_another_in_any_pieces() -> None:
    writer = Writer()
    data = b"".join(joined(writer.tensors(codec.ASK, ident, {"a": np.full((1, 30), ident)})) for ident in range(50))
    for step in (1, 7, 100, 5000):
        reader = Reader(limit_bytes=1 << 20, reserve_bytes=1024)
        assert [frame.ident for frame in fed(reader, data, step)] == list(range(50))


def test_big_endian_and_other_orders_travel_as_values() -> None:
    given = {"a": np.arange(3, dtype=">f8"), "b": np.array(["x", "y", "z"])}
    (frame,) = fed(reader := Reader(limit_bytes=1 << 20), joined(Writer().tensors(1, 1, given)))
    found = reader.tensors(frame)
    assert found["a"].tolist() == [0, 1, 2] and found["b"].tolist() == ["x", "y", "z"]


@pytest.mark.parametrize("array", [np.array([1 + 2j]), np.array(["2020-01-01"], "M8[s]"), np.array([object()]), np.array([b"x"]), np.zeros((1,) * 9)])
def test_what_does_not_travel_is_a_type_error(array: np.ndarray) -> None:
    with pytest.raises(TypeError):
        Writer().tensors(1, 1, {"a": array})


def frame_of(listed: Any, body: bytes) -> bytes:
    descriptor = listed if isinstance(listed, bytes) else json.dumps(listed).encode()
    return PRELUDE.pack(codec.ANSWER, 1, 0, len(descriptor), len(body)) + descriptor + body


@pytest.mark.parametrize(
    ("listed", "body"),
    [
        (b"{", b""), ({}, b""), ([1], b""), ([["a", "<f4", [1], 4, 5]], bytes(4)), ([["a", "<f4", [2], 4]], bytes(4)),
        ([["a", "<f4", [-1], 4]], bytes(4)), ([["a", "<f4", [1 << 60], 4]], bytes(4)), ([["a", "<f4", [1.0], 4]], bytes(4)),
        ([["a", "<f4", [True], 4]], bytes(4)), ([["a", "O", [1], 8]], bytes(8)), ([["a", "<U4", [1], 16]], bytes(16)),
        ([["a", "<f4", [1] * 9, 4]], bytes(4)), ([["a", "<f4", "1", 4]], bytes(4)), ([[1, "<f4", [1], 4]], bytes(4)),
        ([["a", "<f4", [1], 4]], bytes(5)), ([["a", "<f4", [1], 4]], b""), ([["a", "|b1", [1], 1]], b"\x02"),
        ([["a", "BYTES", [1], 4]], b"\x05\0\0\0"), ([["a", "BYTES", [1], 5]], b"\x01\0\0\0\xff"), ([["a", "BYTES", [9], 4]], bytes(4)),
        ([["a", "BYTES", [1], 8]], bytes(8)), ([["a", "<f4", [1], 4], ["a", "<f4", [1], 4]], bytes(32)), (b"[" * 10_000, b""),
        ([["a", "<f8", [0, 1 << 47, 1 << 47], 0]], b""), ([["a", "BYTES", [0, 1 << 47, 1 << 47], 0]], b""),
    ],
)  # fmt: skip
def test_bytes_that_are_no_arrays_are_garbled(listed: Any, body: bytes) -> None:
    (frame,) = fed(reader := Reader(limit_bytes=1 << 20), frame_of(listed, body))
    with pytest.raises(Garbled):
        reader.tensors(frame)


@pytest.mark.parametrize(("descriptor", "body"), [(codec.DESCRIPTOR_LIMIT_BYTES + 1, 0), (0, (1 << 20) + 1), (0, 1 << 63)])
def test_a_length_beyond_the_limit_is_not_believed(descriptor: int, body: int) -> None:
    reader = Reader(limit_bytes=1 << 20)
    with pytest.raises(Garbled):
        fed(reader, PRELUDE.pack(codec.ANSWER, 1, 0, descriptor, body))


def test_facts_are_a_json_object() -> None:
    (frame,) = fed(Reader(limit_bytes=100), codec.note(codec.READY, 0, {"a": 1}))
    assert codec.facts(frame) == {"a": 1}
    for data in (frame_of(b"[1]", b""), frame_of(b"nope", b"")):
        (frame,) = fed(Reader(limit_bytes=100), data)
        with pytest.raises(Garbled):
            codec.facts(frame)
