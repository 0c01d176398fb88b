"""One way to write JSON under a digest, and a strict way to read it back.

Hides the canonical form: UTF-8, sorted keys, no spaces, shortest floats, no NaN or infinity. What is read must be in this very form, so that
duplicate keys, unknown fields and other spellings of the same value are refused.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from modelyard.errors import InvalidInput, UnsupportedFormat

DEPTH_LIMIT = 48

T = TypeVar("T")

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def encode(value: Any) -> bytes:
    """The canonical bytes of a struct or of plain data. Raises InvalidInput for NaN, infinity or what JSON cannot say."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_plain)
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError, RecursionError, NotImplementedError) as error:
        raise InvalidInput(f"a {type(value).__name__} of the bundle holds a value that JSON cannot carry", rule="json") from error


def decode(data: bytes, kind: type[T], *, name: str) -> T:
    """The `kind` in canonical `data`; law: `encode(decode(x)) == x`. Raises UnsupportedFormat naming `name`."""
    check_depth(data, name=name)
    try:
        value = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnsupportedFormat(f"{name} is not of the form that this release reads; a newer one may have made it", field=name) from error
    if encode(value) != data:
        raise UnsupportedFormat(f"{name} is not in canonical form, or has fields that this release does not know", field=name)
    return value


def check_depth(data: bytes, *, name: str) -> None:
    """Refuse JSON nested deeper than 48 before any parser sees it. Raises UnsupportedFormat."""
    depth = 0
    for byte in _STRING.sub(b"", data).translate(None, _OTHERS):
        depth += 1 if byte in b"[{" else -1
        if depth > DEPTH_LIMIT:
            raise UnsupportedFormat(f"{name} is nested deeper than {DEPTH_LIMIT}", field=name, rule="depth")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return value.tolist()
    raise TypeError(type(value).__name__)
