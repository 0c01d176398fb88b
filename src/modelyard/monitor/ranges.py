"""Sets of whole numbers that are nearly all in a row, kept as ranges: which of a source's segments were taken in.

Hides how few bytes that takes: numbers that are given one after the other are one range, however many they are. Pure. It must not know what is
numbered.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from modelyard.errors import MalformedPayload

MOST = 4096
"""Ranges that are kept. Beyond it the two lowest become one, and what lay between them counts as given."""


class Ranges:
    """A set of whole numbers. Law: `Ranges.decode(s.encode()) == s`. One thread owns an instance."""

    __slots__ = ("_pairs",)

    def __init__(self) -> None:
        self._pairs: list[tuple[int, int]] = []

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._pairs, (number, number)) - 1
        return any(first <= number <= last for first, last in self._pairs[max(place, 0) : place + 2])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._pairs == other._pairs

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._pairs)

    def add(self, number: int) -> bool:
        """Put `number` in; whether it was new."""
        if number in self:
            return False
        place = bisect_right(self._pairs, (number, number))
        first = last = number
        if place < len(self._pairs) and self._pairs[place][0] == number + 1:
            last = self._pairs.pop(place)[1]
        if place and self._pairs[place - 1][1] == number - 1:
            first = self._pairs.pop(place - 1)[0]
            place -= 1
        self._pairs.insert(place, (first, last))
        if len(self._pairs) > MOST:
            (low, _), (_, high) = self._pairs[:2]
            self._pairs[:2] = [(low, high)]
        return True

    def encode(self) -> bytes:
        """As a few bytes."""
        return msgspec.msgpack.encode(self._pairs)

    @staticmethod
    def decode(data: bytes) -> Ranges:
        """The set of some bytes. Raises MalformedPayload."""
        made = Ranges()
        try:
            made._pairs = msgspec.msgpack.decode(data, type=list[tuple[int, int]])
        except msgspec.MsgspecError as error:
            raise MalformedPayload("not a set of numbers of this release") from error
        return made
