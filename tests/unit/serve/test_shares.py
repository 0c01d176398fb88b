from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from modelyard.serve.shares import Shares


class World:
    """Models that always want to run, on slots, in made-up time."""

    def __init__(self, slots: int, lengths: dict[str, float]) -> None:
        self.shares = Shares(slots)
        self.lengths = lengths
        self.now = 0.0
        self.running: list[tuple[float, str]] = []
        self.seconds: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.most = 0

    def begin(self, name: str) -> Callable[[], bool]:
        def start() -> bool:
            heapq.heappush(self.running, (self.now + self.lengths[name], name))
            self.most = max(self.most, len(self.running))
            return True

        return start

    def play(self, until: float) -> None:
        for name in self.lengths:
            self.shares.ask(name, self.begin(name))
        while self.now < until:
            self.now, name = heapq.heappop(self.running)
            self.seconds[name] += self.lengths[name]  # type: ignore[assignment]
            self.runs[name] += 1
            self.shares.done(name, self.lengths[name], self.begin(name))


def test_time_is_shared_and_not_turns() -> None:
    world = World(1, {"long": 10.0, "short": 1.0, "other": 1.0})
    world.play(3000)
    assert world.runs["short"] > 5 * world.runs["long"]
    assert max(world.seconds.values()) - min(world.seconds.values()) <= 20


def test_turns_alone_would_not_share_time() -> None:
    """The negative control: with every run charged alike the long one takes ten times as much."""
    world = World(1, {"long": 10.0, "short": 1.0})
    done = world.shares.done
    world.shares.done = lambda owner, seconds, again=None: done(owner, 1.0, again)  # type: ignore[method-assign]
    world.play(3000)
    assert world.seconds["long"] > 5 * world.seconds["short"]


def test_who_asks_rarely_goes_before_who_floods_and_saves_nothing_up() -> None:
    shares, order = Shares(1), list[str]()

    def begin(name: str) -> Callable[[], bool]:
        return lambda: order.append(name) is None

    for _ in range(100):
        assert shares.take("noisy")
        shares.done("noisy", 1.0)
    assert shares.take("noisy")
    shares.ask("other", begin("other"))
    shares.ask("quiet", begin("quiet"))
    shares.done("noisy", 1.0, begin("noisy"))
    assert order == ["other"]
    shares.done("other", 1.0, begin("other"))
    assert order == ["other", "quiet"]
    shares.done("quiet", 1.0, begin("quiet"))
    assert order == ["other", "quiet", "noisy"]  # the quiet one has not a hundred seconds in hand


def test_a_slot_that_finds_nothing_to_run_goes_on() -> None:
    shares, began = Shares(1), list[str]()
    assert shares.take("a")
    assert not shares.take("b")
    shares.ask("gone", lambda: False)
    shares.ask("b", lambda: began.append("b") is None)
    shares.done("a", 1.0)
    assert began == ["b"]
    shares.forget("a")
    shares.done("b", 1.0)
    assert shares.take("a")


@given(st.integers(1, 4), st.dictionaries(st.sampled_from("abcdef"), st.floats(0.1, 10), min_size=1))
def test_no_slot_is_free_while_somebody_waits(slots: int, lengths: dict[str, float]) -> None:
    world = World(slots, lengths)
    world.play(100)
    assert world.most == min(slots, len(lengths))
    assert len(world.running) == world.most
