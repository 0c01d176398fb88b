from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard.errors import StorageFull, Unavailable
from modelyard.monitor.together import Together

LONG_S = 30.0


class Kept:
    """A `keep` that stands still until it is let go, and what it was given each time."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.fails: Exception | None = None

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.given.append(list(items))
        self.has_begun.set()
        assert self.may_end.wait(LONG_S)
        if self.fails is not None:
            raise self.fails
        return [10 * each for each in items]


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def waiting(together: Together[int, int]) -> int:
    return len(together._waiting)


def test_who_comes_alone_goes_at_once_and_those_who_come_meanwhile_go_together() -> None:
    kept = Kept()
    together: Together[int, int] = Together(kept, limit=100)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(together.bring, 1, size=1, timeout_s=LONG_S)
        assert kept.has_begun.wait(LONG_S)
        rest = []
        for number in (2, 3, 4):
            rest.append(pool.submit(together.bring, number, size=1, timeout_s=LONG_S))
            until(lambda number=number: waiting(together) == number - 1)
        assert not any(each.done() for each in (first, *rest)), "nobody is told before theirs is kept"
        kept.may_end.set()
        assert [each.result(LONG_S) for each in (first, *rest)] == [10, 20, 30, 40]
    assert kept.given == [[1], [2, 3, 4]]
    assert together.bring(5, size=1, timeout_s=LONG_S) == 50 and kept.given[-1] == [5]


def test_no_more_goes_at_once_than_the_limit_and_what_is_larger_goes_alone() -> None:
    kept = Kept()
    together: Together[int, int] = Together(kept, limit=10)
    sizes = {1: 1, 2: 4, 3: 6, 4: 1, 5: 50, 6: 1}
    with ThreadPoolExecutor(len(sizes)) as pool:
        futures = []
        for place, (number, size) in enumerate(sizes.items()):
            futures.append(pool.submit(together.bring, number, size=size, timeout_s=LONG_S))
            assert kept.has_begun.wait(LONG_S)
            until(lambda place=place: waiting(together) == place)
        kept.may_end.set()
        assert [each.result(LONG_S) for each in futures] == [10 * number for number in sizes]
    assert kept.given == [[1], [2, 3], [4], [5], [6]]


def test_a_failure_is_told_to_all_of_one_turn_and_ends_no_other() -> None:
    kept = Kept()
    together: Together[int, int] = Together(kept, limit=100)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(together.bring, 1, size=1, timeout_s=LONG_S)
        assert kept.has_begun.wait(LONG_S)
        rest = [pool.submit(together.bring, number, size=1, timeout_s=LONG_S) for number in (2, 3)]
        until(lambda: waiting(together) == 2)
        kept.fails = StorageFull("no space")
        kept.may_end.set()
        for each in (first, *rest):
            with pytest.raises(StorageFull):
                each.result(LONG_S)
    kept.fails = None
    assert together.bring(4, size=1, timeout_s=LONG_S) == 40


def test_whose_turn_does_not_come_in_time_is_told_so_and_is_not_kept() -> None:
    kept = Kept()
    together: Together[int, int] = Together(kept, limit=100)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(together.bring, 1, size=1, timeout_s=LONG_S)
        assert kept.has_begun.wait(LONG_S)
        with pytest.raises(Unavailable):
            together.bring(2, size=1, timeout_s=0.01)
        kept.may_end.set()
        assert first.result(LONG_S) == 10
    assert together.bring(3, size=1, timeout_s=LONG_S) == 30
    assert kept.given == [[1], [3]]
