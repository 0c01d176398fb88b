"""What was behind a question that ended its process is asked again only within the budget; else an upstream that keeps ending is asked ever more."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Any

from modelyard.errors import Unavailable
from modelyard.retries import MOST, RESERVE
from modelyard.runtime.isolated.seats import Question, Seats


def test_what_is_asked_again_stays_within_the_budget() -> None:
    async def run() -> None:
        seats = Seats(asyncio.get_running_loop(), [], count=0, start=lambda: None, record=lambda ended, ready: 0.0)  # type: ignore[arg-type, return-value]
        told: list[Any] = []

        def question() -> Question:
            return Question({}, lambda outputs, error, seconds: told.append(error), monotonic() + 60)

        seats.again(deque(question() for _ in range(5)))
        assert len(seats._waiting) == RESERVE
        assert [type(error) for error in told] == [Unavailable] * 2
        for _ in range(1000):
            seats._budget.asked()
        seats._waiting.clear()
        seats.again(deque(question() for _ in range(50)))
        assert len(seats._waiting) == MOST
        seats.close()

    asyncio.run(run())
