"""Inputs that ended a model's process: who did it twice is not let in for a while.

Hides how an input is recognised (a hash of its names, types, shapes and bytes) and for how long it is remembered. It must cost nothing while
nothing has ended, and must not hold an input itself. An answer clears its input: whoever only stood beside the guilty one is forgotten when it is
asked alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.types import Array

TWICE = 2
REFUSED_S = 600.0
REMEMBERED = 4096


class Suspects:
    """The inputs of one version; lives in the event loop."""

    def __init__(self) -> None:
        self._ends: dict[bytes, tuple[int, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._ends)

    def blame(self, inputs: Mapping[str, Array]) -> None:
        """A process ended while it worked on `inputs`, perhaps among others."""
        now = monotonic()
        if len(self._ends) >= REMEMBERED:
            self._ends = {key: found for key, found in self._ends.items() if now < found[1]}
            while len(self._ends) >= REMEMBERED:
                self._ends.pop(next(iter(self._ends)))
        key = _key(inputs)
        count, _ = self._ends.pop(key, (0, 0.0))
        self._ends[key] = count + 1, now + REFUSED_S

    def clear(self, inputs: Mapping[str, Array]) -> None:
        """`inputs` were answered: they were not it."""
        self._ends.pop(_key(inputs), None)

    def refuses(self, inputs: Mapping[str, Array]) -> bool:
        """Whether `inputs` ended two processes of late."""
        key = _key(inputs)
        found = self._ends.get(key)
        if found is None:
            return False
        if monotonic() >= found[1]:
            del self._ends[key]
            return False
        return found[0] >= TWICE


def _key(inputs: Mapping[str, Array]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for name, array in inputs.items():
        found.update(f"{name!r} {array.dtype.str} {array.shape} ".encode())
        found.update(repr(array.tolist()).encode("utf-8", "surrogatepass") if array.dtype == object else array.tobytes())
    return found.digest()
