"""`monitor rules` and `monitor dashboard`: files for Prometheus and Grafana, made from the table of metrics.

Hides where the file goes. What stands in it is `monitor.rules`' and `monitor.dashboard`'s; no home is needed for either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from modelyard import files
from modelyard.cli.show import Json, emit_json, line
from modelyard.monitor import rules as made
from modelyard.monitor.dashboard import dashboard as made_dashboard

Output = Annotated[Path | None, typer.Option("--output", help="Write it to this file (default: print it).")]


def rules(
    *,
    objective: Annotated[float, typer.Option(help="The share of requests that shall be answered.")] = made.OBJECTIVE,
    output: Output = None,
    json: Json = False,
) -> None:
    """Make a rules file for Prometheus: burn rates of the objective, and what the monitor and its alerts expose."""
    if json:
        emit_json(made.document(objective))
    else:
        _give(made.written(objective), output, "rules for Prometheus; check them: promtool check rules")


def dashboard(*, output: Output = None, json: Json = False) -> None:
    """Make a dashboard for Grafana, to be imported or provisioned."""
    if json:
        emit_json(made_dashboard())
    else:
        _give(msgspec.json.format(msgspec.json.encode(made_dashboard()), indent=2).decode() + "\n", output, "a dashboard for Grafana, to be imported")


def _give(content: str, output: Path | None, what: str) -> None:
    if output is None:
        print(content, end="")
        return
    files.write_atomically(output, content.encode())
    line(f"{output.name}: {what}")
