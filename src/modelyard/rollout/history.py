"""What happened to each deployment: who did what and why, with the verdicts, as records that are only ever added.

Hides the records' form, how an event is told from two states of a deployment, and that only the latest `KEPT` of a name stay. Each is written in
the transaction of the change that it tells, so that none is missing and none tells of what was not done. It must not decide anything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from modelyard.targets.base import Deployment, Outcome, Rollout
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.registry.base import Records

KIND = "event"
ITSELF = "modelyard"
"""Who acts when nobody does."""
KEPT = 1000
"""How many events of one name are kept; the oldest go first."""

What = Literal["deploy", "rollback", "step", "pause", "resume", "approve", "promote", "done", "back", "abort", "cool", "undeploy"]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to `deployment`; `sequence` counts from 1 for each name, through every undeploy.

    `generation` is the one in force from then on, `version` the one that it is about, `weight` its percent of the traffic. `verdicts` are those it
    was decided on. `by` is a principal, or `modelyard` for what it did by itself.
    """

    deployment: str
    sequence: int
    at: str
    by: str
    what: What
    why: str = ""
    generation: int = 0
    version: int | None = None
    weight: int | None = None
    verdicts: tuple[Verdict, ...] = ()


class Change(NamedTuple):
    """Who made a change, why, and when (UTC); `why` only where the deployment itself does not say it."""

    by: str
    at: str
    why: str = ""


def itself(why: str = "") -> Change:
    """A change that nobody asked for."""
    return Change(ITSELF, datetime.now(UTC).isoformat(timespec="milliseconds"), why)


def tell(before: Deployment | None, after: Deployment | None, change: Change) -> tuple[Event, ...]:
    """What a change from `before` to `after` means, in order; sequences are 0. Nothing for progress that decides nothing.

    Law: whatever alters the traffic is told (`tests/property/test_rollouts.py`).
    """
    if after is None:
        return () if before is None else (_event(before, "undeploy", change, release=before.current.version if before.current else None, weight=0),)
    old, new = None if before is None else before.rollout, after.rollout
    told: list[Event] = []
    if old is not None and (new is None or old.started_at != new.started_at):
        told.append(_end(after, old, change))
        old = None
    if new is not None:
        told += _begun(after, new, change) if old is None else _moved(after, old, new, change)
    if before is not None and old is None and new is None and before.warm is not None and after.warm is None and not told:
        told.append(_event(after, "cool", change, release=before.warm.release.version, weight=0))
    return tuple(told)


def write(records: Records, name: str, events: tuple[Event, ...], *, last: int | None) -> int:
    """Add `events` behind the one with the sequence `last` (None: look it up); the sequence of the last one then.

    Call it inside the transaction of the change. Raises what the store raises.
    """
    if last is None:
        known = latest(records, name)
        last = 0 if known is None else known.sequence
    sequence = last
    for event in events:
        sequence += 1
        body = msgspec.to_builtins(msgspec.structs.replace(event, sequence=sequence))
        records.put(KIND, _key(name, sequence), body, expected=0)
        if sequence > KEPT:
            records.delete(KIND, _key(name, sequence - KEPT), expected=None)
    return sequence


def read(records: Records, name: str) -> tuple[Event, ...]:
    """Every event kept of `name`, oldest first."""
    return tuple(msgspec.convert(record.body, Event) for record in records.list(KIND, prefix=f"{name}:"))


def latest(records: Records, name: str) -> Event | None:
    """The last event of `name`, or None."""
    found = records.list(KIND, prefix=f"{name}:")
    return msgspec.convert(found[-1].body, Event) if found else None


def _begun(after: Deployment, new: Rollout, change: Change) -> list[Event]:
    decides = f" by {new.strategy.metric}" if new.strategy.metric else ""
    how = ", ".join([f"{new.strategy.kind}{decides}", *new.strategy.guards])
    begun = _event(after, new.kind, change, release=new.goal.version, weight=0, verdicts=new.gates)
    begun = msgspec.structs.replace(begun, why=f"{change.why}: {how}" if change.why else how)
    return [begun] if new.phase == "holding" else [begun, _step(after, new, change)]


def _moved(after: Deployment, old: Rollout, new: Rollout, change: Change) -> list[Event]:
    version = new.goal.version
    told = []
    if new.forced and not old.forced:
        told.append(_event(after, "promote", change, release=version, verdicts=old.guards))
    if len(new.approvals) > len(old.approvals):
        weight = new.strategy.steps[new.approvals[-1].step].weight
        told.append(_event(after, "approve", change, release=version, why=f"the step of {weight} %"))
    if new.pause is not None and old.pause is None:
        told.append(_event(after, "pause", change, release=version, why=new.pause.why, verdicts=new.guards))
    if new.pause is None and old.pause is not None and not new.forced:
        told.append(_event(after, "resume", change, release=version))
    if len(new.generations) > len(old.generations):
        told.append(_step(after, new, change))
    return told


def _step(after: Deployment, rollout: Rollout, change: Change) -> Event:
    weight = rollout.strategy.steps[rollout.step].weight
    return _event(after, "step", change, release=rollout.goal.version, weight=weight, why=rollout.because, verdicts=rollout.guards)


def _end(after: Deployment, old: Rollout, change: Change) -> Event:
    last: Outcome | None = after.last
    if last is None:  # a record that somebody restored by hand
        return _event(after, "back", change, release=old.goal.version, weight=0)
    what: What = "done" if last.verdict.outcome == "pass" else "abort" if last.verdict.rule == "abort" else "back"
    verdicts = last.guards if last.verdict in last.guards or what != "back" else (last.verdict, *last.guards)
    weight = 100 if what == "done" else 0
    return _event(after, what, change, release=old.goal.version, weight=weight, why=last.verdict.evidence, verdicts=verdicts)


def _event(
    deployment: Deployment,
    what: What,
    change: Change,
    *,
    release: int | None,
    weight: int | None = None,
    why: str = "",
    verdicts: tuple[Verdict, ...] = (),
) -> Event:
    return Event(
        deployment=deployment.name,
        sequence=0,
        at=change.at,
        by=change.by,
        what=what,
        why=why or change.why,
        generation=deployment.in_force,
        version=release,
        weight=weight,
        verdicts=verdicts,
    )


def _key(name: str, sequence: int) -> str:
    # Fixed width: records come sorted by key, so events come in their order.
    return f"{name}:{sequence:012d}"
