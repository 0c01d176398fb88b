from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import MalformedPayload
from modelyard.monitor import ranges
from modelyard.monitor.ranges import Ranges


@given(st.lists(st.integers(-20, 60)))
def test_it_is_a_set(numbers: list[int]) -> None:
    kept, known = Ranges(), set()
    for number in numbers:
        assert kept.add(number) == (number not in known)
        known.add(number)
        assert Ranges.decode(kept.encode()) == kept
    assert [number for number in range(-22, 63) if number in kept] == sorted(known)
    gaps = sum(after - before > 1 for before, after in zip(sorted(known), sorted(known)[1:], strict=False))
    assert len(kept) == (gaps + 1 if known else 0), "neighbours are one range"


def test_many_in_a_row_take_a_few_bytes_in_whatever_order() -> None:
    kept = Ranges()
    numbers = list(range(1_700_000_000_000, 1_700_000_000_000 + 100_000))
    some = numbers[:2000]
    random.Random(0).shuffle(some)
    assert all(kept.add(number) for number in [*some, *numbers[2000:]])
    assert len(kept) == 1 and len(kept.encode()) < 32


def test_beyond_the_most_the_lowest_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MOST", 3)
    kept = Ranges()
    for number in (0, 10, 20, 30):
        kept.add(number)
    assert len(kept) == 3 and 5 in kept and 15 not in kept and 30 in kept


def test_other_bytes_are_refused() -> None:
    with pytest.raises(MalformedPayload):
        Ranges.decode(b"\xc1")
