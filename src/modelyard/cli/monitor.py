"""`monitor`: how a deployment does: what its detectors say, the alarm budget, and the course of traffic, drift and performance.

Hides the layout. What is told is `monitor.overview`'s; how it is drawn as a page, or tried on past data, is of the verbs beside this one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from modelyard import config, files
from modelyard.cli import folding, sparklines
from modelyard.cli.show import Home, Json, emit_json, escape, line, on_one_line, table
from modelyard.cli.times import moment
from modelyard.cli.world import connect
from modelyard.client.answers import Alert, Overview, Series
from modelyard.errors import InvalidConfig, NotFound
from modelyard.monitor import settings as written
from modelyard.types import Verdict, parse_name

SHOWN = 20
"""How many verdicts are shown; --json has all."""
_OUTCOMES = {"pass": "[green]pass[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]", "unknown": "[dim]unknown[/dim]"}


def monitor(
    name: Annotated[str, typer.Argument(help="The deployment; or backtest, dashboard, report, rules: see `modelyard monitor backtest --help`.")],
    *,
    since: Annotated[
        str | None, typer.Option(help="From when on: 24h, 7d, or a time such as 2030-01-31 (default: the window that is judged).")
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="Let it be watched as this monitor.toml says, from the next minute on.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show how a deployment does: verdicts by importance, the alarm budget, traffic, latency, errors, drift and performance."""
    called = parse_name(name)
    begin = None if since is None else moment(since, option="since", is_back=True)
    given = None if settings is None else written.parse(_text(settings))
    with connect(config.load({"home": home})) as client:
        if given is not None:
            seen = client.monitor_settings(called)
            chosen = client.set_monitor_settings(called, written.plain(given), expected_revision=seen.revision)
            if json:
                emit_json(chosen)
            else:
                said = ", ".join(sorted(chosen.settings)) or "nothing: all defaults"
                line(f"{escape(called)} is watched so from the next minute on; it says {escape(said)}")
            return
        found = client.monitor(called, since=None if begin is None else begin.isoformat())
    if json:
        emit_json(found)
        return
    show(found, now=time.time())


def show(found: Overview, *, now: float) -> None:
    """Print an overview for people."""
    version = "no version serves" if found.version is None else f"version {found.version}"
    line(f"[bold]{escape(found.name)}[/bold]  {version}  {_judged(found, now)}")
    for said in found.trouble:
        line(f"[red]{escape(said)}[/red]")
    if found.verdicts:
        groups = folding.folded(found.verdicts, found.pages)
        table(["", "", "rule", "found", "harm", "columns"], [_verdict(group, found.pages) for group in groups[:SHOWN]])
        if len(groups) > SHOWN:
            line(f"and {sum(map(len, groups[SHOWN:])):,} less important ones; --json has them all")
    for group in folding.alarms(alert for alert in found.alerts if alert.state == "firing"):
        _show(group)
    budget = found.budget
    line(
        f"alarm budget: at most {budget.false_pages_a_month:g} false page{'' if budget.false_pages_a_month == 1 else 's'} a month; "
        f"{budget.spent:g} in the last 30 days, {budget.left:g} left"
    )
    if found.labels is not None:
        share = found.labels.matched / found.labels.predictions if found.labels.predictions else 0.0
        line(f"labels: {found.labels.matched:,} of {found.labels.predictions:,} logged predictions have their truth ({share:.0%})")
    if found.late:
        line(f"{found.late:,} requests came after their minutes were judged; reports count them")
    line(f"{found.requests:,} requests, {found.rows:,} rows from {_time(found.since)} to {_time(found.until)} UTC")
    rows = [_course(series) for series in found.series if any(value is not None for value in series.values)]
    table(["", "course", "latest", "largest"], rows, right=("latest", "largest"))


def _show(group: Sequence[Alert]) -> None:
    """Pages with why and what to do, the first of many; of several that are reports, or kept back, which they are: `modelyard alerts` tells each."""
    first, kept_back = group[0], _kept_back(group[0])
    if len(group) > 1 and (kept_back or first.severity == "report"):
        since = _time(min(map(_fired, group)))
        line(f"[bold]{len(group):,} {first.severity}s[/bold] fire, the first since {since} UTC: {on_one_line(folding.names(group))}{kept_back}")
        line(f"  what was found: modelyard alerts {escape(first.deployment)}")
        return
    for alert in group[: folding.ALERTS]:
        what = on_one_line(f"{alert.rule}; {alert.cause}: {alert.why}" if alert.cause else alert.rule)
        line(f"[bold]{alert.severity} {escape(alert.id)}[/bold] fires since {_time(_fired(alert))} UTC: {what}{kept_back}")
        line(f"  what to do: {escape(alert.advice)}")
    if len(group) > folding.ALERTS:
        line(f"and {on_one_line(folding.rest(group, folding.ALERTS))}; all: modelyard alerts {escape(first.deployment)} --all")


def _kept_back(alert: Alert) -> str:
    return f" silenced by {alert.silenced_by}" if alert.silenced_by else f" inhibited by {alert.inhibited_by}" if alert.inhibited_by else ""


def _fired(alert: Alert) -> float:
    return alert.since if alert.fired_at is None else alert.fired_at


def _text(path: Path) -> str:
    try:
        return files.read_limited(path, written.LIMIT_BYTES).decode("utf-8")
    except NotFound as error:
        raise InvalidConfig(f"there is no file {path.name} here", field="settings", rule="path") from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path.name} cannot be read as TOML: it is no text", field="settings", rule="form") from error


def _judged(found: Overview, now: float) -> str:
    if found.judged_through is None:
        return "not judged yet: the first minute is judged about 20 s after its end"
    ago = max(0.0, now - found.judged_through)
    said = f"judged through {_time(found.judged_through)} UTC"
    return said if ago < 180 else f"{said}, [yellow]{ago / 60:,.0f} minutes ago[/yellow]"


def _verdict(group: Sequence[Verdict], pages: Sequence[str]) -> tuple[object, ...]:
    verdict = folding.told(group)
    harm = None if verdict.harm is None else f"{verdict.harm:.3g}"
    columns = ", ".join(verdict.columns[:4]) + (f" and {len(verdict.columns) - 4} more" if len(verdict.columns) > 4 else "")
    page = "[bold red]PAGE[/bold red]" if group[0].rule in pages else ""
    return page, _OUTCOMES[verdict.outcome], escape(verdict.rule), escape(verdict.evidence), harm, escape(columns)


def _course(series: Series) -> tuple[object, ...]:
    known = [value for value in series.values if value is not None]
    drawn = sparklines.line(series.values, most=max(1.0, *known) if series.unit == "level" else None)
    return escape(series.name), drawn, _amount(known[-1], series.unit), _amount(max(known), series.unit)


def _amount(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "share":
        return f"{value:.2%}"
    return f"{value:,.3g}{unit if unit == '/s' else ''}" + (" of the threshold" if unit == "level" else "")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
