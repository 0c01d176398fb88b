"""Inputs that ended a model's process: who did it twice, in whichever worker, is not let in for a while.

Hides how an input is recognised (a hash of its names, types, shapes and bytes), for how long it is remembered, and how the workers of a run folder
tell each other: each writes what it saw into a ring of its own in one mapped file, and reads the others' when they have written. It must cost
nothing while nothing has ended, and must not hold an input itself. An answer clears its input: whoever only stood beside the guilty one is
forgotten when it is asked alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, Any

from modelyard.files import translate

if TYPE_CHECKING:
    from modelyard.types import Array

NAME = "suspects.bin"
TWICE = 2
REFUSED_S = 600.0
REMEMBERED = 1024
"""What a worker remembers at most: of more, the oldest is written over."""

_EVENT = Struct("=16s16sd")  # whose, which input, when its process ended (monotonic); less than zero: when it was answered
_HEAD_BYTES = 8

_Ends = dict[bytes, tuple[int, float]]


class Board:
    """Where the workers of one run folder write what they saw; without a folder, one for this process alone. Lives in the event loop.

    The clock is the machine's monotonic one, which all its processes share. A slot's next worker goes on in its ring.
    """

    def __init__(self, run: Path | None = None, *, slot: int = 0, slots: int = 1) -> None:
        ring = _HEAD_BYTES + REMEMBERED * _EVENT.size
        slots = max(slots, slot + 1)
        self._memory: Any = bytearray(slots * ring) if run is None else _mapped(run / NAME, slots * ring)
        view = memoryview(self._memory)
        self._heads = [view[at : at + _HEAD_BYTES].cast("Q") for at in range(0, slots * ring, ring)]
        self._starts = [at + _HEAD_BYTES for at in range(0, slots * ring, ring)]
        self._slot = slot
        self._seen = [0] * slots
        self._ends: dict[bytes, _Ends] = {}

    def ends(self, owner: bytes) -> _Ends:
        """Of the inputs of `owner` that ended a process: how many, and until when that counts."""
        now = [head[0] for head in self._heads]
        if now != self._seen:
            self._seen = now
            self._read()
        return self._ends.get(owner, _NOTHING)

    def add(self, owner: bytes, key: bytes, *, is_answered: bool = False) -> None:
        """Say that the input `key` of `owner` ended a process, or was answered."""
        head = self._heads[self._slot]
        at = self._starts[self._slot] + head[0] % REMEMBERED * _EVENT.size
        now = monotonic()
        _EVENT.pack_into(self._memory, at, owner, key, -now if is_answered else now)
        head[0] += 1  # last: who sees it finds the event

    def _read(self) -> None:
        now = monotonic()
        events: list[tuple[bytes, bytes, float]] = []
        for start, written in zip(self._starts, self._seen, strict=True):
            end = start + min(written, REMEMBERED) * _EVENT.size
            events += _EVENT.iter_unpack(self._memory[start:end])
        events.sort(key=lambda event: abs(event[2]))
        self._ends = {}
        for owner, key, when in events:
            if not 0 <= now - abs(when) < REFUSED_S:  # of long ago, or before the machine's last start
                continue
            mine = self._ends.setdefault(owner, {})
            count, _ = mine.pop(key, (0, 0.0))
            if when > 0:
                mine[key] = count + 1, when + REFUSED_S


_NOTHING: _Ends = {}


def _mapped(path: Path, size: int) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise translate(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # all workers start at once
        held = os.fstat(descriptor).st_size
        # Written, not only lengthened: a full disk is an error here, and not a fault at some later event.
        os.pwrite(descriptor, bytes(max(0, size - held)), held)
        return mmap.mmap(descriptor, size)
    except OSError as error:
        raise translate(error, path) from error
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing would not: the map keeps a descriptor of its own
        os.close(descriptor)


class Suspects:
    """The inputs of one version; lives in the event loop."""

    def __init__(self, board: Board | None = None, *, owner: str = "") -> None:
        self._board = Board() if board is None else board
        self._owner = hashlib.blake2b(owner.encode(), digest_size=16).digest()

    def __bool__(self) -> bool:
        return bool(self._board.ends(self._owner))

    def blame(self, inputs: Mapping[str, Array]) -> None:
        """A process ended while it worked on `inputs`, perhaps among others."""
        self._board.add(self._owner, _key(inputs))

    def clear(self, inputs: Mapping[str, Array]) -> None:
        """`inputs` were answered: they were not it."""
        key = _key(inputs)
        if key in self._board.ends(self._owner):
            self._board.add(self._owner, key, is_answered=True)

    def refuses(self, inputs: Mapping[str, Array]) -> bool:
        """Whether `inputs` ended two processes of late."""
        key, ends = _key(inputs), self._board.ends(self._owner)
        found = ends.get(key)
        if found is None:
            return False
        if monotonic() >= found[1]:
            del ends[key]
            return False
        return found[0] >= TWICE


def _key(inputs: Mapping[str, Array]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for name, array in inputs.items():
        found.update(f"{name!r} {array.dtype.str} {array.shape} ".encode())
        found.update(repr(array.tolist()).encode("utf-8", "surrogatepass") if array.dtype == object else array.tobytes())
    return found.digest()
