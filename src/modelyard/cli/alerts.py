"""`alerts`: what fires, who is told, who does not want to be, and whether a route works."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

import typer

from modelyard import config
from modelyard.cli import folding
from modelyard.cli.errors import EXIT
from modelyard.cli.following import duration
from modelyard.cli.show import Home, Json, emit_json, escape, line, on_one_line, table
from modelyard.cli.times import moment
from modelyard.cli.world import connect
from modelyard.control.alerting import Alerts, RouteStatus, Tested
from modelyard.errors import InvalidConfig, Unavailable
from modelyard.monitor.alerts import Alert, Silence, text
from modelyard.types import parse_name

ACTIONS = ("silence", "unsilence", "test")
OVER = 5
"""How many alerts that are over are shown without --all."""


class Severity(StrEnum):
    """How grave."""

    page = "page"
    report = "report"


def alerts(
    what: Annotated[str | None, typer.Argument(metavar="[NAME|silence|unsilence|test]", help="A deployment (default: all), or what to do.")] = None,
    which: Annotated[
        str | None, typer.Argument(metavar="[ID|ROUTE]", help="The first digits of a silence's id (unsilence), or a route's name (test).")
    ] = None,
    *,
    deployment: Annotated[str | None, typer.Option(help="With silence: alerts of this deployment.")] = None,
    rule: Annotated[str | None, typer.Option(help="With silence: of this rule, or of this detector.")] = None,
    column: Annotated[str | None, typer.Option(help="With silence: that blame this column.")] = None,
    severity: Annotated[Severity | None, typer.Option(help="With silence: pages, or reports.")] = None,
    for_: Annotated[str | None, typer.Option("--for", metavar="TEXT", help="With silence: 30m, 4h, 2d, or until a time such as 2030-01-31.")] = None,
    why: Annotated[str, typer.Option(help="With silence: the reason, for whoever is on duty next.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Show every alert, also those that are over, and all that is known of reports.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what fires, why and what to do; silence it for a while; or send a test message by a route. With several deployments, name one."""
    settings = config.load({"home": home})
    chosen = {"deployment": deployment, "rule": rule, "column": column, "severity": severity, "for": for_, "why": why}
    if what != "silence" and any(chosen.values()):
        raise InvalidConfig("--deployment, --rule, --column, --severity, --for and --why go with silence", field="action")
    if what in ("unsilence", "test") and which is None:
        raise InvalidConfig("say which: modelyard alerts unsilence ID, or modelyard alerts test ROUTE", field="id")
    if which is not None and what not in ("unsilence", "test"):
        raise InvalidConfig("this takes one name", field="name")
    with connect(settings) as control:
        if what == "silence":
            if for_ is None:
                raise InvalidConfig("say for how long: --for 4h", field="for", rule="required")
            if not why.strip():
                raise InvalidConfig("say why: --why TEXT; whoever is on duty next will want to know", field="why", rule="required")
            matcher = {
                "deployment": deployment or "",
                "rule": rule or "",
                "column": column or "",
                "severity": "" if severity is None else severity.value,
            }
            body = {**matcher, "until": moment(for_, option="for").isoformat(), "why": why}
            _silenced(control.call("POST", "/silences", body, answer=Silence), json=json)
        elif what == "unsilence":
            _silenced(control.call("DELETE", f"/silences/{quote(which or '', safe='')}", answer=Silence), json=json)
        elif what == "test":
            _tested(control.call("POST", f"/alerts/routes/{quote(which or '', safe='')}/test", answer=Tested), json=json)
        else:
            found = control.call("GET", "/alerts", answer=Alerts)
            _show(found if what is None else _of(found, parse_name(what)), json=json, every=every)


def _of(found: Alerts, name: str) -> Alerts:
    silences = tuple(each for each in found.silences if each.matcher.deployment in ("", name))
    return Alerts(
        alerts=tuple(each for each in found.alerts if each.deployment == name), silences=silences, routes=found.routes, trouble=found.trouble
    )


def _show(found: Alerts, *, json: bool, every: bool) -> None:
    if json:
        emit_json(found)
        return
    now = time.time()
    if found.trouble:
        line(f"[red]{escape(found.trouble)}[/red]; until that is mended the routes of before stand")
    active = [each for each in found.alerts if each.state != "resolved"]
    over = [each for each in found.alerts if each.state == "resolved"]
    for group in folding.alarms(active):
        most = len(group) if every else folding.ALERTS
        for each in group[:most]:
            _alert(each, now, is_whole=every or each.severity == "page")
        if len(group) > most:
            line(f"and {on_one_line(folding.rest(group, most))}; all: --all")
    if not active:
        line("[green]nothing fires[/green]")
    shown = over if every else over[:OVER]
    if shown:
        rows = [(each.deployment, escape(each.rule), each.severity, _at(each.fired_at), _at(each.resolved_at), escape(each.ended)) for each in shown]
        table(["over", "rule", "severity", "fired (UTC)", "over (UTC)", "how it ended"], rows)
    if len(over) > len(shown):
        line(f"and {len(over) - len(shown)} more that are over: --all")
    if found.silences:
        rows_ = [(each.id, escape(_meant(each)), _ends(each, now), escape(each.by), escape(each.why)) for each in found.silences]
        table(["silence", "of", "ends (UTC)", "by", "why"], rows_)
    if found.routes:
        rows__ = [(each.name, each.kind, escape(each.target), ", ".join(each.severities), each.waiting, _fares(each, now)) for each in found.routes]
        table(["route", "kind", "to", "takes", "waiting", "state"], rows__, right=("waiting",))
    else:
        line("nobody is told: name a receiver in alerts.toml (docs/alerts.md)")


def _alert(alert: Alert, now: float, *, is_whole: bool) -> None:
    """An alert with all its facts, or with what was found alone: nobody is woken by a report, and there may be many."""
    colour = {"firing": "red" if alert.severity == "page" else "yellow", "pending": "dim"}[alert.state]
    told = f"silenced by {alert.silenced_by}" if alert.silenced_by else f"a consequence of {alert.inhibited_by}" if alert.inhibited_by else ""
    state = f"{alert.state} for {duration(max(0.0, now - (alert.fired_at or alert.since)))}"
    passes = "passes again" if alert.passing_since is not None else ""
    notes = "; ".join(filter(None, (state, passes, told)))
    line(f"[{colour}]{alert.severity}[/{colour}] [bold]{escape(alert.deployment)}: {on_one_line(alert.rule)}[/bold]  {notes}  ({alert.id})")
    for what, how in text.facts(alert):
        if is_whole or what == "found":
            line(f"  {what}: {escape(how)}")


def _fares(route: RouteStatus, now: float) -> str:
    if route.failing_since is not None:
        return f"[red]fails for {duration(max(0.0, now - route.failing_since))}, {route.tries} tries: {escape(route.error)}[/red]"
    if route.error:
        return f"[yellow]{escape(route.error)}[/yellow]"
    return "nothing was sent yet" if route.ok_at is None else f"[green]took a message {_at(route.ok_at)}[/green]"


def _meant(silence: Silence) -> str:
    matcher = silence.matcher
    named = {"deployment": matcher.deployment, "rule": matcher.rule, "column": matcher.column, "severity": matcher.severity}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value)


def _ends(silence: Silence, now: float) -> str:
    return f"{_at(silence.until)}{'' if silence.until > now else ' (over)'}"


def _at(when: float | None) -> str | None:
    return None if when is None else text.time(when)


def _silenced(silence: Silence, *, json: bool) -> None:
    if json:
        emit_json(silence)
    elif silence.until > time.time():
        line(f"silenced until {_at(silence.until)} UTC: {escape(_meant(silence))}   end it: modelyard alerts unsilence {silence.id}")
    else:
        line(f"the silence {silence.id} is over: {escape(_meant(silence))}")


def _tested(tested: Tested, *, json: bool) -> None:
    if json:
        emit_json(tested)
    elif tested.is_delivered:
        line(f"{escape(tested.route)} took the message: {escape(tested.said)}")
    if not tested.is_delivered:
        # The answer on stdout of --json is whole; an error beside it would be a second document.
        print(f"modelyard: {tested.route} did not take the message: {tested.said}", file=sys.stderr)
        sys.exit(EXIT[Unavailable])
