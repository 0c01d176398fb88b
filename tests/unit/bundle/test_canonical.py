"""bundle.canonical: one spelling per value, and no other is read."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.bundle import canonical
from modelyard.errors import InvalidInput, UnsupportedFormat


class Point(msgspec.Struct, omit_defaults=True):
    x: float
    name: str = ""


def test_order_of_keys_and_numpys_types_do_not_show() -> None:
    assert canonical.encode({"b": 1, "a": [1.5, "é"]}) == canonical.encode({"a": np.array([1.5, "é"], dtype=object), "b": np.int64(1)})
    assert canonical.encode({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    assert canonical.encode(np.float64(0.1)) == b"0.1"


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}, np.float64("nan"), {"a": object()}, {1j: 2}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        canonical.encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"x":1.0,"x":1.0}',
        b'{"x": 1.0}',
        b'{"x":1.00}',
        b'{"x":1}',
        b'{"name":"","x":1.0}',
        b'{"x":1.0,"y":1}',
        b'{"name":"\\u0061","x":1.0}',
        b'{"x":1.0}\n',
        b'{"x":1.0',
        b"\xff",
        b"",
    ],
)
def test_another_spelling_is_refused(data: bytes) -> None:
    assert canonical.decode(b'{"name":"a","x":1.0}', Point, name="it") == Point(1.0, "a")
    with pytest.raises(UnsupportedFormat, match="it "):
        canonical.decode(data, Point, name="it")


def test_depth_is_capped_before_parsing_and_brackets_in_strings_do_not_count() -> None:
    limit = canonical.DEPTH_LIMIT
    canonical.check_depth(b"[" * limit + b"]" * limit, name="it")
    canonical.check_depth(b'["' + b"[" * 1000 + b'\\"[[", "\\\\"]', name="it")
    for deep in (b"[" * (limit + 1), b'{"a":' * 1_000_000, b'["\\\\",' * (limit + 1)):
        with pytest.raises(UnsupportedFormat, match="nested"):
            canonical.check_depth(deep, name="it")
