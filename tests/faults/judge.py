"""What a fault's check finds, when it is repeated, and when a control has done its work.

Pure: it starts no process. An item is *exact* (a count that may not be exceeded even once) or *timed* (a figure that noise can spoil). A fault
whose exact items hold and whose timed ones miss is run twice more, and the median of the three counts; an exact item keeps its worst.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from tests.faults.scene import Scene

REPEATS = 2


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One figure beside its bar. `unit` stands right after the number."""

    name: str
    figure: float
    bar: float
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    exact: bool = False
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figure reaches the bar; one that could not be had (NaN) never does."""
        return self.figure <= self.bar if self.better == "lower" else self.figure >= self.bar

    @property
    def shown_bar(self) -> str:
        """The bar as it is printed."""
        return f"{'<=' if self.better == 'lower' else '>='}{number(self.bar)}{self.unit}"

    @property
    def line(self) -> str:
        """`NAME FIGURE BAR PASS|FAIL`."""
        return f"{self.name} {number(self.figure)}{self.unit} {self.shown_bar} {'PASS' if self.passed else 'FAIL'}"


def number(value: float) -> str:
    """`value` as it is printed: no more digits than it deserves, and never rounded up to its bar."""
    if value != value or math.isinf(value) or value == int(value):
        return f"{value:g}" if abs(value) < 1e6 or not math.isfinite(value) else str(int(value))
    return f"{math.floor(value * 1e4) / 1e4:.6g}" if abs(value) >= 1 else f"{value:.3g}"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A negative control: the same check with a defence taken away; the item `misses` must then miss its bar."""

    without: str
    misses: str
    text: str


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of the suite: what is done, what must hold, and how it is shown that the check can fail."""

    number: int
    name: str
    title: str
    method: str
    run: Callable[[Scene], None]
    controls: tuple[Control, ...]
    headline: str
    """The item that the README shows."""

    may_share: bool = False
    """Whether its bars are counts, or seconds that are far away, so that it may run while others do."""

    @property
    def label(self) -> str:
        """What its lines begin with."""
        return f"{self.number:02d}-{self.name}"


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A fault's items after repeats, and its controls'."""

    fault: Fault
    items: tuple[Item, ...]
    controls: tuple[Item, ...]
    runs: int = 1


def merge(runs: list[tuple[Item, ...]]) -> tuple[Item, ...]:
    """The items of several runs of one fault: the median of what is timed, the worst of what is exact."""
    merged: list[Item] = []
    for first in runs[0]:
        figures = [item.figure for run in runs for item in run if item.name == first.name]
        if first.exact:
            figure = max(figures, key=lambda value: math.inf if value != value else value if first.better == "lower" else -value)
        else:
            figure = statistics.median(figures) if all(value == value for value in figures) else math.nan
        note = first.note if len(runs) == 1 else f"of {'/'.join(number(value) for value in figures)}"
        merged.append(msgspec.structs.replace(first, figure=figure, note=note))
    return tuple(merged)


def judge(once: Callable[[], tuple[Item, ...]]) -> tuple[tuple[Item, ...], int]:
    """Run a check, and twice more where only what noise can spoil missed its bar; gives the items and the number of runs."""
    runs = [once()]
    if any(not item.passed for item in runs[0]) and all(item.passed for item in runs[0] if item.exact):
        runs += [once() for _ in range(REPEATS)]
    return merge(runs), len(runs)


def controlled(items: tuple[Item, ...], control: Control) -> Item:
    """The item of a control: it passes when the check it names, run without the defence, missed its bar."""
    found = next((item for item in items if item.name.endswith("." + control.misses)), None)
    if found is None or found.figure != found.figure:  # a check that found nothing has not been seen to fail
        return Item(name=f"{control.misses}-control", figure=math.nan, bar=0, note=f"without {control.without}: no figure")
    missed = Missed(**msgspec.structs.asdict(found))
    return msgspec.structs.replace(missed, name=f"{found.name}-control", note=f"without {control.without}")


class Missed(Item, frozen=True, kw_only=True):
    """An item that must not reach its bar."""

    @property
    def passed(self) -> bool:
        """Whether the figure misses the bar."""
        return not super().passed

    @property
    def shown_bar(self) -> str:
        """The bar as it is printed: the other side of the check's."""
        return f"{'>' if self.better == 'lower' else '<'}{number(self.bar)}{self.unit}"


def markdown(judged: list[Judged]) -> str:
    """Everything, for docs/faults.md: per fault its method, its figures and its controls."""
    parts: list[str] = []
    for each in judged:
        fault = each.fault
        parts.append(f"### {fault.number}. {fault.title}\n\n{fault.method}\n")
        runs = "" if each.runs == 1 else f"Medians of {each.runs} runs (the first missed a timed bar); counts are the worst of them.\n\n"
        rows = "\n".join(_row(item) for item in (*each.items, *each.controls))
        parts.append(f"{runs}| check | figure | bar | | |\n|---|---:|---:|---|---|\n{rows}\n")
        told = "\n".join(f"- *Control*, without {control.without}: {control.text}" for control in fault.controls)
        parts.append(f"{told}\n")
    return "\n".join(parts).strip()


def _row(item: Item) -> str:
    sign = item.shown_bar.replace("<=", "≤ ").replace(">=", "≥ ").replace("<", "< ").replace(">", "> ")
    return f"| {item.name} | {number(item.figure)}{item.unit} | {sign} | {'✓' if item.passed else '✗'} | {item.note} |"


def summary(judged: list[Judged]) -> str:
    """One row a fault, for the README."""
    rows = ["| fault | figure | bar | |", "|---|---:|---:|---|"]
    for each in judged:
        shown = next((item for item in each.items if item.name.endswith("." + each.fault.headline)), None)
        items: list[Any] = [*each.items, *each.controls]
        held = all(item.passed for item in items)
        if shown is not None:
            what = each.fault.headline.replace("_", " ")
            sign = shown.shown_bar.replace("<=", "≤ ").replace(">=", "≥ ")
            rows.append(f"| {each.fault.number}. {each.fault.title}: {what} | {number(shown.figure)}{shown.unit} | {sign} | {'✓' if held else '✗'} |")
    return "\n".join(rows)
