"""`deploy`, `undeploy`, `rollback`, `status`: verbs on the running world, asked of the home's control process.

Hides how that process is found and waited for: it may be killed and restarted while a rollout is under way, which goes on all the same.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from modelyard import config
from modelyard.cli.following import Line, said
from modelyard.cli.show import Home, Json, emit_json, escape, line, short, table, verdicts
from modelyard.cli.strategic import strategic
from modelyard.client import Client, places, trusting
from modelyard.config import Settings
from modelyard.control.plane import ControlPlane, local_principal
from modelyard.control.status import DeploymentStatus, HostStatus, Status
from modelyard.errors import Conflict, DeadlineExceeded, InvalidConfig, Rejected, Unavailable
from modelyard.monitor.profile import Shift
from modelyard.monitor.summary import Traffic, unlogged
from modelyard.registry import is_file
from modelyard.registry.references import parse
from modelyard.rollout.written import Written, strategy
from modelyard.security.issuer import IssuerState
from modelyard.targets.base import Deployment, Outcome, Rollout
from modelyard.types import parse_name, read_serve_state

WAIT_S = 300.0
POLL_S = 0.03
POLL_LONG_S = 0.5
SHOWN_SHIFTS = 20
LEAST_Q = 1e-300  # a chance that is too small for a number is not 0
MODERATE, LARGE = 0.1, 0.25  # the usual reading of a population stability index


class Named(NamedTuple):
    """What is to be deployed: a reference, of a version of this home an exact one, and the name under which it shall serve."""

    reference: str
    name: str


@strategic
def deploy(
    reference: Annotated[
        str | None,
        typer.Argument(help="churn, churn:3, churn@champion, churn@sha256:…, or a bundle's folder or .tar; may stand in the file instead."),
    ] = None,
    *,
    written: Written,
    as_: Annotated[str | None, typer.Option("--as", help="Serve under this name (default: the model's).")] = None,
    breaking: Annotated[bool, typer.Option("--breaking", help="Let the schema refuse requests in use today.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end of the rollout.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Put a version behind a name: its gates first, then loaded beside what serves, then the traffic, by the strategy that is said.

    The old version serves until the new one has earned the traffic, and all of it again if it does not keep to its guards. Ctrl-C leaves a rollout
    running.
    """
    meant = require_reference(reference, written)
    settings = config.load({"home": home})
    wanted = strategy(written)
    with connect(settings) as control:
        found = named(settings, meant, as_ or written.name, is_import=True)
        body = {"reference": found.reference, "breaking": breaking or written.breaking, "strategy": wanted}
        started = control.call("POST", f"/deployments/{found.name}", body, answer=Deployment)
    goal = started.current if started.rollout is None else started.rollout.goal
    version = goal.version if goal else 0
    if started.rollout is None:
        _tell(started, json=json, said=f"{found.name} serves version {version} already")
        return
    if detach:
        _tell(started, json=json, said=f"{said(started)}; see: modelyard status")
        return
    ended = _wait(settings, found.name, started.rollout, is_shown=not json)
    _tell(ended, json=json, said=f"{found.name} serves version {version} (generation {ended.generation})")
    if not json and not settings.control_url:
        line(f"  ask it  {escape(_curl(settings, found.name, found.reference))}")


def require_reference(reference: str | None, written: Written) -> str:
    """What to deploy, of the command line or else of the file. Raises InvalidConfig when neither says it."""
    found = reference or written.model
    if found is None:
        raise InvalidConfig("say what to deploy: a reference such as churn:3, or model = in the file", field="reference", rule="required")
    return found


def named(settings: Settings, reference: str, name: str | None, *, is_import: bool) -> Named:
    """The version that is meant, and the name. A bundle's file is registered first, where `is_import`; elsewhere than in a home of this machine, a
    version is one that is registered there. Raises InvalidConfig, NotFound or Tampered.
    """
    if settings.control_url:
        if is_file(reference):
            raise InvalidConfig(
                "at control_url a reference such as churn:3 is deployed; modelyard.Client(…).import_ brings a bundle there", rule="form"
            )
        return Named(reference, parse_name(name or parse(reference).name))
    with ControlPlane(settings) as plane:
        if is_file(reference):
            if not is_import:
                raise InvalidConfig("a plan is of a version that is registered: modelyard import, then its reference", field="reference", rule="form")
            version = plane.import_(local_principal(), Path(reference))
        else:
            version = plane.registry.resolve(reference)
    return Named(f"{version.name}@{version.digest}", parse_name(name or version.name))


def _curl(settings: Settings, name: str, reference: str) -> str:
    """A line to paste that asks the deployment about the model's public example."""
    from modelyard.serve import card, openapi

    with ControlPlane(settings) as plane:
        opened, version = plane.open(reference)
    example = openapi.v1_request(opened.schema, opened.card.example) if openapi.is_complete(opened.schema, opened.card.example) else None
    served = card.Served(name=name, version=version.version if version else 0, title=opened.card.title, example=example)
    return card.curl(card.reach(read_serve_state(settings.run).url, settings), served)


def rollback(name: Annotated[str, typer.Argument(help="The deployment.")], *, home: Home = None, json: Json = False) -> None:
    """Go back to what served before, as a new generation; repeated, further back."""
    settings = config.load({"home": home})
    with connect(settings) as control:
        started = control.call("POST", f"/deployments/{parse_name(name)}/rollback", answer=Deployment)
    ended = started if started.rollout is None else _wait(settings, name, started.rollout)
    version = ended.current.version if ended.current else 0
    _tell(ended, json=json, said=f"{name} is back on version {version} (generation {ended.generation})")


def undeploy(name: Annotated[str, typer.Argument(help="The deployment.")], *, home: Home = None, json: Json = False) -> None:
    """Take a name out of service; its versions stay in the registry."""
    with connect(config.load({"home": home})) as control:
        gone = control.call("DELETE", f"/deployments/{parse_name(name)}", answer=Deployment)
    _tell(gone, json=json, said=f"{name} is out of service")


def status(*, home: Home = None, json: Json = False) -> None:
    """Show what is deployed, who serves it, its traffic, latency and errors, and how far each feature has moved."""
    settings = config.load({"home": home})
    with connect(settings) as control:
        found = control.call("GET", "/status", answer=Status)
    if json:
        emit_json(found)
        return
    if found.data_plane is None:
        line(f"[bold]{escape(found.home)}[/bold]  the data plane is not running")
    else:
        plane = found.data_plane
        where = f"{plane.url}  gRPC {plane.grpc}" if plane.grpc else plane.url
        line(f"[bold]{escape(found.home)}[/bold]  {where}  {plane.up_to_date} of {plane.workers} workers act by the newest plan")
    if found.health is not None and not (found.health.is_ready and not found.health.troubles):
        line("[bold]degraded[/bold]" if found.health.is_ready else "[bold]not ready[/bold]")
        for trouble in found.health.troubles:
            line(f"  {escape(trouble.evidence)}")
    for what, why in found.failing.items():
        line(f"[red]{escape(what)} fails[/red]: {escape(why)}")
    for said_of in found.unkept:
        line(f"[yellow]{escape(said_of)}[/yellow]")
    if found.issuer is not None and found.issuer.trouble is not None:
        line(f"[yellow]the tokens' issuer is away[/yellow]: {escape(found.issuer.trouble)}; {_believed(found.issuer)}")
    if len(found.hosts) > 1:
        table(["host", "predictions", "control", "workers", "", "state"], [_host(host) for host in found.hosts], right=("workers",))
    if not found.deployments:
        line("nothing is deployed; next: modelyard deploy NAME")
        return
    rows = [row for each in found.deployments for row in _rows(each)]
    table(["deployment", "version", "digest", "weight", "ready", "rollback to", "state"], rows, right=("version", "weight", "ready", "rollback to"))
    for each in found.deployments:
        if each.deployment.rollout is not None:
            line(f"{escape(each.deployment.name)}: {escape(said(each.deployment))}")
            if each.deployment.rollout.guards:
                verdicts(each.deployment.rollout.guards)
    seen = [each.traffic for each in found.deployments if each.traffic is not None and each.traffic.requests + sum(each.traffic.failures.values())]
    if not seen:
        line("no traffic in the last hour")
        return
    measures = ["traffic", "requests", "rows", "requests/s", "p50", "p99", "refused or failed"]
    table(measures, [_measures(traffic) for traffic in seen], right=measures[1:])
    for traffic in seen:
        if missing := unlogged(traffic.dropped):
            line(f"[yellow]{escape(traffic.name)}: {escape(missing)}[/yellow]")
        if traffic.shifts:
            title = f"{traffic.name}: shift of each feature and output against the data packaged with it, over {traffic.profiled_rows:,} rows"
            columns = ["", "role", "shift (PSI)", "mean moved", "missing", "was", "outside", "q"]
            table(columns, [_shift(shift) for shift in traffic.shifts[:SHOWN_SHIFTS]], title=title, right=columns[2:])
            if len(traffic.shifts) > SHOWN_SHIFTS:
                line(f"and {len(traffic.shifts) - SHOWN_SHIFTS:,} that moved less; --json has them all")


def connect(settings: Settings) -> Client:
    """A client of the home's control process, as who holds the key in MODELYARD_KEY, else as the home's admin; or of that at `control_url`.

    Raises Unavailable, saying `modelyard up`, when there is none.
    """
    if settings.control_url:
        if config.key() is None:
            raise InvalidConfig("control_url is asked with a key or token of your own: set MODELYARD_KEY", field="control_url", rule="required")
        return Client(settings.control_url, trust=trusting(Path(settings.control_ca_file) if settings.control_ca_file else None))
    place = places.of_home(settings, key=config.key())
    return Client(place.url, place.key)


def _wait(settings: Settings, name: str, rollout: Rollout, *, is_shown: bool = False) -> Deployment:
    """The deployment once `rollout` has ended well. Raises Rejected when it went back, Conflict when another has ended since, or DeadlineExceeded.

    A rollout in steps takes as long as it takes; Ctrl-C leaves it running.
    """
    is_long = len(rollout.strategy.steps) > 1 or any(step.minimum_s or step.minimum_requests or step.approval for step in rollout.strategy.steps)
    deadline = math.inf if is_long else time.monotonic() + WAIT_S
    pause_s = POLL_LONG_S if is_long else POLL_S
    try:
        with Line() if is_long and is_shown else contextlib.nullcontext() as shown:
            while time.monotonic() < deadline:
                try:
                    with connect(settings) as control:
                        while time.monotonic() < deadline:
                            found = control.call("GET", f"/deployments/{name}", answer=Deployment)
                            if found.rollout is None or not _is_same(found.rollout, rollout):
                                _require_success(name, rollout, found.last)
                                return found
                            if shown is not None:
                                shown.show(found)
                            time.sleep(pause_s)
                except Unavailable:  # the control process is being restarted, perhaps on another port; the rollout is written down
                    time.sleep(0.2)
    except KeyboardInterrupt:
        print(f"the rollout of {name} goes on; see: modelyard status, or end it: modelyard abort {name}", file=sys.stderr)
        raise
    raise DeadlineExceeded(f"the rollout of {name} is still under way after {WAIT_S:.0f} s; see: modelyard status")


def _is_same(one: Rollout, other: Rollout) -> bool:
    """Whether both are one rollout, whatever its step."""
    return (one.kind, one.goal, one.started_at) == (other.kind, other.goal, other.started_at)


def _require_success(name: str, rollout: Rollout, last: Outcome | None) -> None:
    if last is None or (last.kind, last.goal, last.started_at) != (rollout.kind, rollout.goal, rollout.started_at):
        raise Conflict(f"{name} was changed again by someone else; see: modelyard status")
    if last.verdict.outcome == "fail":
        raise Rejected(f"{name} did not take version {last.goal.version}; what served before serves on", verdicts=(last.verdict,))


def _tell(deployment: Deployment, *, json: bool, said: str) -> None:
    if json:
        emit_json(deployment)
        return
    if deployment.last is not None and deployment.last.gates and sys.stdout.isatty():
        verdicts(deployment.last.gates)
    line(said)


def _rows(found: DeploymentStatus) -> list[tuple[object, ...]]:
    deployment = found.deployment
    rows: list[tuple[object, ...]] = []
    for serving in found.serving:
        first = serving is found.serving[0]
        name, back = (deployment.name, found.rollback_to) if first else ("", "")
        rows.append((name, serving.version, short(serving.digest), f"{serving.weight} %", serving.ready, back, _state(found) if first else ""))
    return rows or [(deployment.name, None, None, None, None, None, _state(found))]


def _believed(issuer: IssuerState) -> str:
    if issuer.good_until is None:
        return "none of its keys are known, and no token is accepted"
    until = datetime.fromtimestamp(issuer.good_until, UTC)
    return f"its {issuer.keys} keys are believed until {until:%Y-%m-%d %H:%M:%S} UTC" if until > datetime.now(UTC) else "no token is accepted"


def _host(host: HostStatus) -> tuple[object, ...]:
    roles = [said for said, is_so in (("this one", host.is_here), ("leads", host.leads)) if is_so]
    return host.id, host.data, host.control, host.workers, ", ".join(roles), _host_state(host)


def _host_state(host: HostStatus) -> str:
    if not host.is_live:
        return "[red]silent; steps go on without it[/red]"
    if host.trouble:
        name, why = next(iter(host.trouble.items()))
        return f"[red]{escape(name)}: {escape(why)}[/red]"
    if not host.counts:
        return "[yellow]catching up; steps do not wait for it yet[/yellow]"
    if host.lagging:
        more = f" and {len(host.lagging) - 3} more" if len(host.lagging) > 3 else ""
        return f"[yellow]lags: {escape(', '.join(host.lagging[:3]))}{more}[/yellow]"
    return "[green]in line[/green]"


def _measures(traffic: Traffic) -> tuple[object, ...]:
    failures = ", ".join(f"{count:,} {code}" for code, count in traffic.failures.items())
    return traffic.name, traffic.requests, traffic.rows, traffic.requests_s, _duration(traffic.p50_s), _duration(traffic.p99_s), failures or "none"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _shift(shift: Shift) -> tuple[object, ...]:
    moved = None if shift.mean_shift is None else f"{shift.mean_shift:+.2f} sd"
    size = f"{shift.effect:.3f}"
    colour = "red" if shift.effect >= LARGE else "yellow" if shift.effect >= MODERATE else ""
    shown = f"[{colour}]{size}[/{colour}]" if colour else size
    shares = (f"{share:.1%}" for share in (shift.missing, shift.missing_reference, shift.outside))
    return (escape(shift.feature), shift.role, shown, moved, *shares, f"< {LEAST_Q:g}" if shift.q < LEAST_Q else f"{shift.q:.2g}")


def _state(found: DeploymentStatus) -> str:
    deployment = found.deployment
    if found.trouble is not None:
        return f"[red]{escape(found.trouble)}[/red]"
    if deployment.rollout is not None:
        state = "paused" if deployment.rollout.pause is not None else deployment.rollout.phase
        return f"[yellow]{deployment.rollout.kind} of version {deployment.rollout.goal.version}: {state}[/yellow]"
    if deployment.last is not None and deployment.last.verdict.outcome == "fail":
        return f"[yellow]version {deployment.last.goal.version} went back: {escape(deployment.last.verdict.evidence)}[/yellow]"
    return f"[green]serving[/green] generation {deployment.generation}"
