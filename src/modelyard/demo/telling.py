"""How the demo tells its story on a terminal, in a pipe, or not at all.

Hides rich. A step shows what is happening while it happens (on a terminal), and leaves one line. It decides nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

PIPE_WIDTH = 100


class Step:
    """One step in progress: `progress` moves its bar, `done` sets the line that it leaves."""

    def __init__(self, bar: Progress | None, task: TaskID | None) -> None:
        self._bar = bar
        self._task = task
        self.lines: list[str] = []

    def progress(self, stage: str, fraction: float) -> None:
        """Show that `stage` is at work and how much of the step is done (0 to 1)."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=stage, completed=max(0.0, min(1.0, fraction)), total=1.0)

    def done(self, *lines: str) -> None:
        """What the step found; the first line stands beside its title."""
        self.lines = list(lines)


class Teller:
    """Draws on one console; with `quiet`, nothing at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._number = 0
        self._made: Console | None = None

    @property
    def console(self) -> Console:
        """The console, made when something is first drawn."""
        if self._made is None:
            import sys

            from rich.console import Console

            self._made = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        return self._made

    def say(self, drawn: RenderableType = "", *, wrap: bool = True) -> None:
        """Print text (rich marks are honoured) or anything that rich draws; without `wrap` a long line stays one line, to be copied."""
        if not self._quiet:
            self.console.print(drawn, soft_wrap=not wrap)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A numbered step: a spinner and bar while the block runs, one line with its time when it ends well."""
        self._number += 1
        started = time.monotonic()
        if self._quiet or not self.console.is_terminal:
            step = Step(None, None)
            yield step
        else:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TextColumn(f"[bold]{title:<8}[/bold]"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            with Progress(*columns, console=self.console, transient=True) as bar:
                step = Step(bar, bar.add_task("", total=None))
                yield step
        first, *rest = step.lines or [""]
        self.say(_step_line(f"{self._number}", title, first, f"{time.monotonic() - started:.1f} s"))
        for line in rest:
            self.say(_step_line("", "", line, ""))


def _step_line(number: str, title: str, text: str, took: str) -> RenderableType:
    from rich.table import Table

    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(width=2, style="green")
    line.add_column(width=8, style="bold")
    line.add_column(ratio=1)
    line.add_column(width=7, justify="right", style="dim")
    line.add_row(number, title, text, took)
    return line
