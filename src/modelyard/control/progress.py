"""How far a packaging is, for whoever waits for it: a bar on a terminal, lines in a log if asked for, nothing otherwise.

Hides rich. It writes to stderr alone, so that what a command prints stays clean.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def shown(title: str, *, lines: bool = False) -> Iterator[Callable[[str, float], None]]:
    """A function of stage and fraction (0 to 1) that shows them while the block runs; with `lines`, one line per stage where there is no terminal."""
    if not sys.stderr.isatty():
        yield _line_per_stage(title) if lines else _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("[bold]{task.fields[title]}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task("", total=1.0, title=title)
        yield lambda stage, fraction: drawn.update(task, description=stage, completed=fraction)


def _line_per_stage(title: str) -> Callable[[str, float], None]:
    last = ""

    def tell(stage: str, _: float) -> None:
        nonlocal last
        if stage != last:
            last = stage
            sys.stderr.write(f"{title}: {stage}\n")
            sys.stderr.flush()

    return tell


def _silent(stage: str, fraction: float) -> None:
    """Show nothing."""
