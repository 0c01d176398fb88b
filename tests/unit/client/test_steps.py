"""One generator, two faces."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from modelyard.client.steps import Awaiting, Blocking, Item, Pause, Steps, gathered, streaming, verb
from modelyard.errors import NotFound


class Both:
    @verb
    def add(self, one: int, *, other: int = 1) -> Steps[int]:
        """Add."""
        yield Pause(0.0)
        if other < 0:
            raise NotFound("no")
        return one + other

    @streaming(int)
    def count(self, to: int) -> Steps[None]:
        """Count."""
        for at in range(to):
            yield Pause(0.0)
            yield Item(at)


class Now(Blocking, Both):
    def run(self, steps: Steps[Any]) -> Any:
        try:
            while True:
                steps.send(None)
        except StopIteration as stop:
            return stop.value

    def iterate(self, steps: Steps[None]) -> Iterator[Any]:
        yield from (effect.value for effect in steps if isinstance(effect, Item))


class Later(Awaiting, Both):
    async def run(self, steps: Steps[Any]) -> Any:
        await asyncio.sleep(0)
        return Now().run(steps)

    async def iterate(self, steps: Steps[None]) -> AsyncIterator[Any]:
        for item in Now().iterate(steps):
            yield item


def test_a_verb_is_a_call_of_one_and_a_coroutine_of_the_other() -> None:
    assert Now().add(1, other=2) == 3
    assert asyncio.run(Later().add(1, other=2)) == 3
    with pytest.raises(NotFound):
        Now().add(1, other=-1)
    assert list(Now().count(3)) == [0, 1, 2]

    async def counted() -> list[int]:
        return [item async for item in Later().count(3)]

    assert asyncio.run(counted()) == [0, 1, 2]


def test_it_has_its_generators_name_words_and_signature() -> None:
    for call in (Now().add, Later().add):
        assert (call.__name__, call.__doc__) == ("add", "Add.")
        assert list(inspect.signature(call).parameters) == ["one", "other"]
    assert Both.add.__doc__ == "Add." and Both.count.__doc__ == "Count."


def test_a_stream_can_be_had_at_once() -> None:
    assert Now().run(gathered(Both.count.steps(None, 3))) == [0, 1, 2]
