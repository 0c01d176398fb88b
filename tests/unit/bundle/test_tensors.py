"""bundle.tensors: arrays as bytes, and what is refused of bytes that claim to be arrays."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from modelyard.bundle.tensors import pack, unpack
from modelyard.errors import InvalidInput, UnsupportedFormat


def raw(header: Any, body: bytes, size: int | None = None) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def tensor(**changes: Any) -> dict[str, Any]:
    return {"datatype": "INT32", "name": "a", "shape": [2], "size_bytes": 8, **changes}


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"])
def test_every_type_comes_back(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    back = unpack(pack({"a": array}))["a"]
    assert back.dtype == array.dtype and back.shape == (2, 3) and (back == array).all() and not back.flags.writeable


def test_strings_and_missing_ones_come_back_in_order() -> None:
    array = np.array([["", None], ["Łódź", "東京"]], dtype=object)
    back = unpack(pack({"z": array, "a": np.array(["x"]), "e": np.empty((0, 3), dtype=object)}))
    assert list(back) == ["z", "a", "e"]
    assert back["z"].tolist() == array.tolist() and back["a"].tolist() == ["x"] and back["e"].shape == (0, 3)


def test_byte_order_memory_order_and_the_bits_of_nan_do_not_show() -> None:
    array = np.array([[1.5, np.nan], [2.5, -0.0]])
    other = np.asfortranarray(array).astype(">f8")
    strange = array.copy()
    strange.view(np.uint64)[0, 1] |= 0x8000000000000123
    assert pack({"a": array}) == pack({"a": other}) == pack({"a": strange})
    assert pack({"a": array}) != pack({"a": np.abs(array)}), "a negative zero is a value of its own"


@pytest.mark.parametrize("array", [np.array([1 + 2j]), np.array([b"x"]), np.array([1, "a"], dtype=object), np.array(["\ud800"], dtype=object)])
def test_other_types_are_refused(array: Any) -> None:
    with pytest.raises(InvalidInput):
        pack({"a": array})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 1 << 62) + b"[]",
        raw([], b"", size=99),
        raw([], b"x"),
        raw([tensor()], b"\0" * 7),
        raw([tensor()], b"\0" * 9),
        raw([tensor(), tensor()], b"\0" * 16),
        raw([tensor(size_bytes=-8)], b""),
        raw([tensor(shape=[-2])], b"\0" * 8),
        raw([tensor(shape=[1 << 40, 1 << 40])], b"\0" * 8),
        raw([tensor(shape=[1] * 9)], b"\0" * 8),
        raw([tensor(shape=[0, 1 << 62], size_bytes=0)], b""),
        raw([tensor(shape=[0, 1 << 31, 1 << 31], size_bytes=0)], b""),
        raw([tensor(datatype="OBJECT")], b"\0" * 8),
        raw([tensor(datatype="BOOL", size_bytes=2)], b"\0\2"),
        raw([tensor(datatype="BYTES", shape=[1 << 40], size_bytes=4)], b"\0" * 4),
        raw([tensor(datatype="BYTES", shape=[1], size_bytes=4)], b"\1\0\0\0"),
        raw([tensor(datatype="BYTES", shape=[1], size_bytes=5)], b"\1\0\0\0\xff"),
        raw([tensor(datatype="BYTES", shape=[1], size_bytes=8)], b"\0" * 8),
        raw([tensor(more=1)], b"\0" * 8),
    ],
)
def test_bytes_that_claim_too_much_are_refused(data: bytes) -> None:
    assert unpack(raw([tensor()], b"\0" * 8))["a"].tolist() == [0, 0]
    with pytest.raises(UnsupportedFormat):
        unpack(data)
