from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.serve.due import Due


class Work:
    """Says in `log` what it is asked for; raises where it is told to, and has an answer or not."""

    def __init__(self, name: str, log: list[str], *, raises: str = "", has_answer: bool = True) -> None:
        self.name = name
        self.log = log
        self.raises = raises
        self.has_answer = has_answer

    def run(self) -> bool:
        self._say("run")
        return self.has_answer

    def answer(self) -> None:
        self._say("answer")

    def _say(self, step: str) -> None:
        self.log.append(f"{step} {self.name}")
        if step == self.raises:
            raise ValueError(self.name)


def turns(act: Callable[[Due, list[str]], Any], count: int = 3) -> tuple[list[list[str]], list[BaseException]]:
    """What each of `count` turns did after `act`, and what was reported."""
    reported: list[BaseException] = []
    seen: list[list[str]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        log: list[str] = []
        act(Due(loop), log)
        for _ in range(count):
            await asyncio.sleep(0)
            seen.append(log.copy())
            log.clear()

    asyncio.run(run())
    return seen, reported


def test_all_run_before_the_first_answer_and_what_is_kept_waits_for_the_next_turn() -> None:
    def act(due: Due, log: list[str]) -> None:
        class Keeping(Work):
            def answer(self) -> None:
                super().answer()
                due.keep(log.append, f"kept {self.name}")

        for name in "ab":
            due.run(Keeping(name, log))

    seen, reported = turns(act)
    assert seen == [["run a", "run b", "answer a", "answer b"], ["kept a", "kept b"], []]
    assert not reported


def test_what_ran_elsewhere_is_not_answered_and_work_added_in_a_turn_runs_in_the_next() -> None:
    def act(due: Due, log: list[str]) -> None:
        class Again(Work):
            def answer(self) -> None:
                super().answer()
                due.run(Work("later", log))

        due.run(Again("a", log))
        due.run(Work("away", log, has_answer=False))

    assert turns(act)[0] == [["run a", "run away", "answer a"], ["run later", "answer later"], []]


@pytest.mark.parametrize(
    ("raises", "others"), [("run", ["run a", "run b", "answer b"]), ("answer", ["run a", "run b", "answer a", "answer b"]), ("", None)]
)
def test_what_raises_is_reported_and_keeps_no_other_from_its_turn(raises: str, others: list[str] | None) -> None:
    def act(due: Due, log: list[str]) -> None:
        for name in "ab":
            due.run(Work(name, log, raises=raises if name == "a" else ""))

    seen, reported = turns(act)
    assert seen[0] == (others or ["run a", "run b", "answer a", "answer b"])
    assert [str(error) for error in reported] == (["a"] if raises else [])


def test_who_reads_settles_first_and_nothing_is_done_twice() -> None:
    def fail(name: str) -> None:
        raise ValueError(name)

    def act(due: Due, log: list[str]) -> None:
        due.keep(log.append, "kept a")
        due.keep(fail, "b")
        due.keep(log.append, "kept c")
        due.settle()
        log.append("read")

    seen, reported = turns(act)
    assert seen == [["kept a", "kept c", "read"], [], []]
    assert [str(error) for error in reported] == ["b"]
