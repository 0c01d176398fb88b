"""serve.suspects: who ended a process twice is refused for a while; who only stood beside is forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.serve import suspects
from modelyard.serve.suspects import Suspects

POISON = {"a": np.array([[1.0]]), "t": np.array([["x"]], object)}


def test_two_ends_refuse_an_input_and_an_answer_clears_it() -> None:
    known = Suspects()
    assert not known
    known.blame(POISON)
    assert known and not known.refuses(POISON)
    known.blame({name: array.copy() for name, array in POISON.items()})
    assert known.refuses(POISON)
    known.clear(POISON)
    assert not known and not known.refuses(POISON)


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.array([[2.0]]), "t": POISON["t"]},
        {"a": np.array([[1.0]], np.float32), "t": POISON["t"]},
        {"a": np.array([[1.0]]), "t": np.array([["y"]], object)},
        {"a": np.array([1.0]), "t": POISON["t"]},
        {"b": np.array([[1.0]]), "t": POISON["t"]},
    ],
)
def test_another_input_is_another_suspect(other: dict[str, np.ndarray]) -> None:
    known = Suspects()
    known.blame(POISON)
    known.blame(POISON)
    assert not known.refuses(other)


def test_it_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(suspects, "monotonic", lambda: now[0])
    known = Suspects()
    known.blame(POISON)
    known.blame(POISON)
    now[0] += suspects.REFUSED_S - 1
    assert known.refuses(POISON)
    now[0] += 1
    assert not known.refuses(POISON) and not known


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "REMEMBERED", 10)
    known = Suspects()
    for number in range(50):
        known.blame({"a": np.array([number])})
    assert len(known._ends) == 10
