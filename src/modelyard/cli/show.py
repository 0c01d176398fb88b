"""How results look: the same value as JSON for machines or as a short table for people.

Hides rich, which is loaded only when something is drawn. It must not fetch or change anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Home = Annotated[Path | None, typer.Option("--home", help="The home folder (default: MODELYARD_HOME or ~/.modelyard).")]

_ORDERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but the end of a line, and what turns the direction of writing."""

_MARKS = {"pass": "[green]pass[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]", "unknown": "[dim]unknown[/dim]"}


def emit_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    plain = msgspec.to_builtins(value, enc_hook=str, str_keys=True, order="deterministic")  # versions may be keys, and JSON's are text
    print(msgspec.json.format(msgspec.json.encode(plain), indent=2).decode())


def line(text: str) -> None:
    """Print one line; `[bold]…[/bold]` marks are honoured on a terminal, other orders to it shown."""
    _console().print(tame(text), highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, right: Iterable[str] = ()) -> None:
    """Print a table; columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    aligned = set(right)
    for column in columns:
        drawn.add_column(column, justify="right" if column in aligned else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*[tame(cell) if isinstance(cell, str) else _text(cell) for cell in row])
    _console().print(drawn)


def verdicts(given: Iterable[Any]) -> None:
    """Print verdicts as a table: outcome, rule, evidence."""
    table(["", "check", "found"], [(_MARKS[verdict.outcome], verdict.rule, escape(verdict.evidence)) for verdict in given])


def escape(text: str) -> str:
    """`text` with nothing in it read as a mark, nor as an order to the terminal: it may be another's, such as the reason for a pause."""
    from rich.markup import escape as escape_marks

    return escape_marks(tame(text))


def on_one_line(text: str) -> str:
    """`escape`, with no end of a line in it: what begins a line here is ours."""
    return escape(" ".join(text.split()))


def tame(text: str) -> str:
    """`text` with the orders to a terminal in it shown, not given."""
    return _ORDERS.sub(lambda found: ascii(found[0])[1:-1], text)


def short(digest: str) -> str:
    """A digest short enough for a table: the first twelve hex digits."""
    return digest.removeprefix("sha256:")[:12]


def size(count: int) -> str:
    """Bytes for people: `1.2 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.4g}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else escape(str(cell))


def _console() -> Any:
    import sys

    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160, no_color=True)
