"""The value of an input by which requests stay with a version, as bytes that are the same on every wire.

Hides that one number travels as an int, a float or one of another size. Pure; it must not know versions or wires.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.protocols.rows import Rows

if TYPE_CHECKING:
    from modelyard.types import Array

WRITTEN = 64
"""Elements of a row up to which they are written one by one; a larger row (an image) is its bytes."""


def first_value(inputs: Mapping[str, Array], name: str) -> bytes | None:
    """The value of the input `name` in the first row; None where there is no such input, or where it is missing."""
    if name not in inputs:
        return None
    if type(inputs) is Rows:
        return _written(inputs.first(name))  # without making the columns
    row = inputs[name][0]
    if row.size > WRITTEN:
        found: bytes = row.tobytes()
        return found
    values = [_written(value) for value in row.ravel().tolist()] if row.ndim else [_written(row.item())]
    return None if all(value is None for value in values) else b"\0".join(value or b"" for value in values)


def _written(value: Any) -> bytes | None:
    if value is None or value != value:  # noqa: PLR0124  only NaN differs from itself
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, float) and not value.is_integer():
        return repr(value).encode()
    return b"%d" % int(value)
