"""`monitor backtest`: what the detectors would have said of past rows, and the smallest drifts that they would see.

Hides the layout. What is tried is `monitor.backtest`'s; where rows come from is `control.backtesting`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard import config
from modelyard.cli.show import Home, Json, emit_json, escape, line, table
from modelyard.control.plane import ControlPlane
from modelyard.control.progress import shown
from modelyard.errors import InvalidConfig

if TYPE_CHECKING:
    from modelyard.monitor.backtest import Firing, Report, Seen, Smallest
    from modelyard.monitor.injections import Rows
    from modelyard.types import Schema

SHOWN = 20


def backtest(
    name: Annotated[str, typer.Argument(help="A deployment; with --data also churn:3, or a bundle's folder or .tar.")],
    *,
    data: Annotated[Path | None, typer.Option(help="Past rows in their order: .parquet or .csv (default: what the home has logged).")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the data that holds the true answers.")] = None,
    features: Annotated[int, typer.Option(min=1, max=1000, help="Into how many inputs drifts are put, the most used first.")] = 8,
    runs: Annotated[int, typer.Option(min=1, max=100, help="How often each drift is put in.")] = 3,
    rows: Annotated[int, typer.Option(min=200, max=1_000_000, help="How many rows a drift has to be seen in.")] = 5000,
    home: Home = None,
    json: Json = False,
) -> None:
    """Replay past rows through a model and its detectors, then put drifts into them: false alarms, delays, the smallest shift that would be seen."""
    from modelyard.control import backtesting
    from modelyard.monitor.backtest import Settings

    if label is not None and data is None:
        raise InvalidConfig("--label names a column of --data; labels of logged rows are given by modelyard labels", field="label", rule="data")
    settings = Settings(features=features, runs=runs, horizon_rows=rows)
    with ControlPlane(config.load({"home": home})) as plane, shown(f"Backtesting {name}", lines=True) as progress:
        model, monitored = backtesting.opened(plane, name)
        past = backtesting.logged(plane, name, model) if data is None else _read(data, label, model.schema, name)
        report = backtesting.replay(plane, model, past, monitored=monitored, settings=settings, progress=progress)
    if json:
        emit_json(report)
    else:
        show(name, report)


def _read(data: Path, label: str | None, schema: Schema, name: str) -> Rows:
    from modelyard.cli.predict import fit
    from modelyard.monitor.injections import Rows
    from modelyard.runtime.data import read

    found, labels = read(data, label=label)
    return Rows(fit(found, schema.inputs, name=name), labels)


def show(name: str, report: Report) -> None:
    """Print a report for people."""
    labels = f"{report.labels:,} labels" if report.labels else "no labels"
    line(f"[bold]{escape(name)}[/bold]  {report.rows:,} rows as they came, {labels}")
    _fired(report.came, "nothing would have spoken up on them")
    pages = sum(each.is_page for each in report.quiet)
    line(
        f"{report.quiet_rows:,} rows drawn from them at random, where nothing drifts: {pages} false pages, {len(report.quiet) - pages} false reports"
    )
    _fired(report.quiet, "")
    rows = [_row(each, report.seen) for each in report.smallest]
    head = ["feature", "drift", "smallest paged", "after rows", "smallest reported", "after rows"]
    table(head, rows, title="the smallest of each kind that is seen more often than not", right=head[2:])
    for each in report.seen:
        if each.said.endswith("growing") and each.page_rows is not None:
            line(f"  {escape(str(each.feature))}: {escape(each.said)} is paged after {each.page_rows:,.0f} rows")


def _fired(fired: tuple[Firing, ...], otherwise: str) -> None:
    if not fired:
        if otherwise:
            line(f"  {otherwise}")
        return
    rows = [("[bold red]PAGE[/bold red]" if each.is_page else "", escape(each.rule), each.rows, escape(each.evidence)) for each in fired[:SHOWN]]
    table(["", "rule", "after rows", "found"], rows, right=("after rows",))
    if len(fired) > SHOWN:
        line(f"and {len(fired) - SHOWN:,} more; --json has them all")


def _row(found: Smallest, seen: tuple[Seen, ...]) -> tuple[object, ...]:
    def cells(size: float | None, figure: str) -> tuple[str | None, str | None]:
        tried = next(
            (each for each in seen if (each.feature, each.kind, each.size) == (found.feature, found.kind, size) and "growing" not in each.said), None
        )
        if tried is None:
            return None, None
        rows = getattr(tried, figure)
        return tried.said.partition(" ")[2], None if rows is None else f"{rows:,.0f}"

    feature = escape(found.feature) if found.feature is not None else "the labels"
    return feature, found.kind, *cells(found.paged, "page_rows"), *cells(found.reported, "report_rows")
