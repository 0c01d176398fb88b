"""What a benchmark finds: a figure and the bar that it must reach.

Hides how the two are compared and written. It measures nothing itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure beside its bar. `unit` stands right after the number (`s`, `MB`, `x` for a ratio, …); `note` says what it was made of."""

    name: str
    figure: float
    unit: str
    bar: float
    better: Literal["lower", "higher"]
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figure reaches the bar; a figure that could not be had (NaN) never does."""
        return self.figure <= self.bar if self.better == "lower" else self.figure >= self.bar

    @property
    def line(self) -> str:
        """`NAME FIGURE BAR PASS|FAIL`."""
        sign = "<=" if self.better == "lower" else ">="
        verdict = "PASS" if self.passed else "FAIL"
        return f"{self.name} {self.figure:.4g}{self.unit} {sign}{self.bar:g}{self.unit} {verdict}"


def ratio(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int = 3) -> tuple[float, list[float], list[float]]:
    """Median of ours ÷ theirs over alternating rounds, and the figures of both; who goes first alternates too."""
    mine: list[float] = []
    others: list[float] = []
    for number in range(rounds):
        for measure, into in [(ours, mine), (theirs, others)][:: -1 if number % 2 else 1]:
            into.append(measure())
    return statistics.median(a / b for a, b in zip(mine, others, strict=True)), mine, others


def spread(figures: Sequence[float], unit: str) -> str:
    """The figures of all rounds, for a note."""
    return "/".join(f"{figure:,.4g}" for figure in figures) + unit
