from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from modelyard.serve.turns import HOLD_S, Turns


class World:
    """Requests as (model, number), read at once or in a later turn."""

    def __init__(self, share: int = 3) -> None:
        self.due: list[Callable[[], None]] = []
        self.turns = Turns(self.due.append, share=share)
        self.now = 0.0
        self.read: list[tuple[str, int]] = []
        self.count = 0

    def ask(self, *names: str) -> None:
        for name in names:
            self.count += 1
            turns = self.turns
            if (name == turns.recent and not turns.is_shared) or turns.take(name, self.now):
                self.read.append((name, self.count))
            else:
                turns.park(name, self.read.append, (name, self.count))

    def turn(self) -> list[str]:
        """What the next turn reads of what was put off."""
        before = len(self.read)
        due, self.due[:] = list(self.due), []
        for call in due:
            call()
        return [name for name, _ in self.read[before:]]


def test_alone_a_model_is_never_held_back_and_nothing_is_put_off() -> None:
    world = World()
    world.ask(*"A" * 100)
    assert len(world.read) == 100
    world.turn()
    assert world.due == []


def test_beside_another_a_flood_is_read_by_shares_and_the_other_at_once() -> None:
    world = World()
    world.ask("A", "B", *"A" * 8, "B")
    assert [name for name, _ in world.read] == ["A", "B", "A", "A", "B"]
    world.ask("A")  # it came later than those that wait
    assert world.turn() == ["A"] * 3
    world.ask("B", "A")
    assert world.turn() == ["A"] * 3
    assert world.turn() == ["A"] * 2
    world.turn()
    assert world.due == []  # at rest when nothing waits
    assert [number for name, number in world.read if name == "A"] == sorted(number for name, number in world.read if name == "A")


def test_some_time_after_the_other_was_last_asked_it_is_alone_again() -> None:
    world = World()
    world.ask("B", "A")
    world.now = HOLD_S / 2
    world.ask(*"A" * 10)
    assert len(world.read) < 12
    while world.due:
        world.turn()
    world.now = 2 * HOLD_S
    world.ask(*"A" * 100)
    assert len(world.read) == 112 and not world.turns.is_shared


def test_what_goes_on_may_ask_again_and_may_fail_without_stopping_the_rest() -> None:
    world = World(share=1)
    seen: list[str] = []

    def fail(what: str) -> None:
        seen.append(what)
        raise ValueError(what)

    world.ask("A", "B")
    world.turns.take("A", 0.0)
    for what in ("first", "second"):
        world.turns.park("A", fail, what)
    for _ in range(4):
        try:
            world.turn()
        except ValueError:
            continue
    assert seen == ["first", "second"]


@given(st.lists(st.text("ABC", max_size=30), max_size=8))
def test_everything_is_read_once_and_each_model_in_its_order(turns: list[str]) -> None:
    world = World(share=2)
    for names in turns:
        world.ask(*names)
        world.turn()
    while world.due:
        world.turn()
    assert sorted(number for _, number in world.read) == list(range(1, world.count + 1))
    for model in "ABC":
        numbers = [number for name, number in world.read if name == model]
        assert numbers == sorted(numbers)
