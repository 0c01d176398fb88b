"""`plan`, `promote`, `pause`, `resume`, `abort`, `approve`, `history`: verbs on a rollout, before, during and after it.

Hides how the control process is asked. What each does is `ControlPlane`'s; how a rollout is followed while it runs is `cli.world`'s.
"""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard import config
from modelyard.cli.following import duration, percent, said
from modelyard.cli.show import Home, Json, emit_json, escape, line, short, table, verdicts
from modelyard.cli.strategic import strategic
from modelyard.cli.world import connect, named, require_reference
from modelyard.control.planned import Planned
from modelyard.rollout.history import Event
from modelyard.rollout.written import Written, strategy
from modelyard.targets.base import Deployment, Step, Strategy
from modelyard.types import parse_name

Name = Annotated[str, typer.Argument(help="The deployment.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
As = Annotated[str | None, typer.Option("--as", help="Serve under this name (default: the model's).")]
Breaking = Annotated[bool, typer.Option("--breaking", help="Let the schema refuse requests in use today.")]
Reference = Annotated[str | None, typer.Argument(help="churn, churn:3, churn@champion or churn@sha256:…; may stand in the file instead.")]


@strategic
def plan(
    reference: Reference = None,
    *,
    written: Written,
    as_: As = None,
    breaking: Breaking = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what a deploy would do, step by step, and what each guard may spend; or why it would be refused. Nothing is changed."""
    meant = require_reference(reference, written)
    settings = config.load({"home": home})
    wanted = strategy(written)
    with connect(settings) as control:
        found = named(settings, meant, as_ or written.name, is_import=False)
        body = {"reference": found.reference, "breaking": breaking or written.breaking, "strategy": wanted}
        told = control.call("POST", f"/deployments/{found.name}/plan", body, answer=Planned)
    if json:
        emit_json(told)
    else:
        _show(told)


def promote(name: Name, *, home: Home = None, json: Json = False) -> None:
    """Skip to the rollout's last step, whatever its guards say; it is written down as forced."""
    _say("promote", name, {}, home=home, json=json)


def pause(name: Name, *, why: Why = "", home: Home = None, json: Json = False) -> None:
    """Keep the rollout at its step; its guards go on judging."""
    _say("pause", name, {"why": why}, home=home, json=json)


def resume(name: Name, *, home: Home = None, json: Json = False) -> None:
    """Let a paused rollout go on."""
    _say("resume", name, {}, home=home, json=json)


def abort(name: Name, *, why: Why = "", home: Home = None, json: Json = False) -> None:
    """End the rollout: what served before has all traffic again, at once."""
    _say("abort", name, {"why": why}, home=home, json=json)


def approve(name: Name, *, home: Home = None, json: Json = False) -> None:
    """Let the next step that needs it be entered: with a key of your own (MODELYARD_KEY), of the role approver, when somebody else began it."""
    _say("approve", name, {}, home=home, json=json)


def history(
    name: Name,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The latest of how many events.")] = 50,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show who did what to a deployment, when and why, with the verdicts; also after it went out of service."""
    with connect(config.load({"home": home})) as control:
        events = control.call("GET", f"/deployments/{parse_name(name)}/history?limit={limit}", answer=tuple[Event, ...])
    if json:
        emit_json(events)
        return
    rows = [(event.sequence, event.at[:19].replace("T", " "), escape(event.by), event.what, *_about(event), escape(event.why)) for event in events]
    table(["", "when (UTC)", "who", "what", "version", "weight", "generation", "why"], rows, right=("", "version", "weight", "generation"))
    last = next((event for event in reversed(events) if event.what not in ("deploy", "rollback") and event.verdicts), None)
    if last is not None:
        line(f"the verdicts of {last.sequence}, {last.what}:")
        verdicts(last.verdicts)


def _say(verb: str, name: str, body: dict[str, str], *, home: Home, json: bool) -> None:
    with connect(config.load({"home": home})) as control:
        found = control.call("POST", f"/deployments/{parse_name(name)}/{verb}", body, answer=Deployment)
    if json:
        emit_json(found)
    elif found.rollout is not None:
        line(escape(said(found)))
    else:
        line(escape(f"{name} serves version {found.current.version if found.current else 'none'} (generation {found.in_force})"))


def _about(event: Event) -> tuple[object, ...]:
    return event.version, None if event.weight is None else f"{event.weight} %", event.generation


def _show(told: Planned) -> None:
    goal, current = told.goal, told.current
    line(f"[bold]{escape(told.name)}[/bold]: {escape(goal.model)}:{goal.version} ({short(goal.digest)}) by {told.strategy.kind}")
    if told.is_there:
        line("it serves already, or is on its way so: a deploy changes nothing")
        return
    serves = "nothing serves yet" if current is None else f"version {current.version} serves as generation {told.generation}"
    line(f"  {serves}")
    for number, sentence in enumerate(_sentences(told), 1):
        line(f"  {number}. {escape(sentence)}")
    if told.guards:
        columns = ["guard", "needs", "false alarm", ""]
        rows = [(each.guard, each.needs, f"{each.alpha:.2%}" if each.alpha else "never", "decides" if each.decides else "") for each in told.guards]
        table(columns, rows, right=("false alarm",))
    verdicts(told.gates)
    for note in told.notes:
        line(escape(note))


def _sentences(told: Planned) -> list[str]:
    old = None if told.current is None else told.current.version
    return steps(told.strategy, first=told.generation + 1, old=old, is_warm=told.is_warm)


def steps(wanted: Strategy, *, first: int, old: int | None, is_warm: bool = False) -> list[str]:
    """What each step of a completed strategy does, in a sentence; `first` is the generation of the first. One that `is_warm` need not be loaded."""
    told = []
    if old is not None and not is_warm:
        told.append("load it beside what serves, replay its golden records, at 0 %")
    for number, step in enumerate(wanted.steps):
        told.append(f"{_enters(wanted, step)} (generation {first + number}){_leaves(wanted, step, is_last=number == len(wanted.steps) - 1)}")
    if old is not None:
        warm_s = wanted.keep_warm_s
        if warm_s is None:
            kept = "until the next rollout" if wanted.kind == "blue-green" else "no longer"
        else:
            kept = f"for {duration(warm_s)}" if warm_s else "no longer"
        returns = "goes back to it" if kept != "no longer" else "loads it again and goes back to it"
        told.append(f"done: version {old} is kept ready {kept}; `modelyard rollback` {returns}")
    return told


def _enters(wanted: Strategy, step: Step) -> str:
    approved = "once somebody else has approved it, " if step.approval else ""
    mirrored = f", {percent(wanted.mirror)} of the champion's requests mirrored" if wanted.mirror and 0 < step.weight < 100 else ""
    if step.weight == 0:
        return f"{approved}{percent(wanted.mirror or 0)} of the requests asked of both, answered by the old one"
    whose = f"callers by {wanted.sticky}, each with one version" if wanted.sticky and step.weight < 100 else "requests"
    return f"{approved}{step.weight} % of the {whose}{mirrored}"


def _leaves(wanted: Strategy, step: Step, *, is_last: bool) -> str:
    least, until = [], []
    if step.minimum_s:
        least.append(duration(step.minimum_s))
    if step.minimum_requests:
        least.append(f"{step.minimum_requests:,} requests")
    if wanted.guards and not (is_last and wanted.kind in ("shadow", "ab")):
        until.append("every guard has passed" if wanted.strict else "every estimate keeps to its bound")
    if wanted.kind == "ab" and not is_last:
        until.append(f"the better by {wanted.metric} is known")
    if wanted.kind == "shadow" and not is_last and not wanted.promote:
        until.append("somebody promotes it")
    if not least and not until:
        return ""
    told = [f"at least {' and '.join(least)}"] if least else []
    told += [f"until {' and '.join(until)}"] if until else []
    return f", {', '.join(told)}; paused after {duration(wanted.max_time_s)}"
