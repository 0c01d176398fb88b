"""monitor.turns: whoever asks first writes first, and nobody waits for ever."""

from __future__ import annotations

import threading
from pathlib import Path

from modelyard.monitor import turns
from modelyard.monitor.turns import Turns

LONG_S = 60.0


def standing(line: Turns, count: int) -> None:
    """Return when so many stand in the line."""
    while len(line._waiting) < count:
        threading.Event().wait(0.001)


def test_they_come_in_the_order_in_which_they_asked() -> None:
    line, order = Turns(), []

    def write(number: int) -> None:
        with line.taken(timeout_s=LONG_S) as is_mine:
            assert is_mine
            order.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    with line.taken(timeout_s=LONG_S):
        for number, thread in enumerate(threads):
            thread.start()
            standing(line, number + 1)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_one_that_asks_again_and_again_lets_in_who_asked_meanwhile() -> None:
    line, has_come = Turns(), threading.Event()

    def write() -> None:
        with line.taken(timeout_s=LONG_S):
            has_come.set()

    other = threading.Thread(target=write)
    with line.taken(timeout_s=LONG_S):
        other.start()
        standing(line, 1)
    with line.taken(timeout_s=LONG_S):
        assert has_come.is_set()
    other.join()


def test_a_turn_that_does_not_come_is_none_and_takes_nobody_s_place() -> None:
    line = Turns()
    with line.taken(timeout_s=LONG_S):
        with line.taken(timeout_s=0.01) as is_mine:
            assert not is_mine
        assert not line._waiting
    with line.taken(timeout_s=0.01) as is_mine:
        assert is_mine


def test_what_goes_wrong_in_a_turn_ends_it() -> None:
    line = Turns()
    for _ in range(2):
        try:
            with line.taken(timeout_s=0.01) as is_mine:
                assert is_mine
                raise KeyError
        except KeyError:
            pass


def test_there_is_one_line_before_a_file_however_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    one = turns.of(tmp_path / "a.sqlite")
    assert turns.of(tmp_path / "link" / "a.sqlite") is one and turns.of(tmp_path / "b.sqlite") is not one
