"""The direct strategy: hold the new release ready at weight 0, then move all weight in one flip; any failure goes back.

Pure: a Deployment and what was seen of its target in, the next Deployment out. It must not know clocks, stores or targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from modelyard.errors import Conflict
from modelyard.targets.base import HISTORY, Deployment, Outcome, Release, Rollout
from modelyard.types import TrafficPlan, Verdict


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver saw: `readiness` of the goal, whether the plan in force is `acknowledged`, whether the time for it `is_over`, and the time."""

    readiness: Verdict
    acknowledged: bool
    is_over: bool
    at: str


def begin(deployment: Deployment, goal: Release, *, kind: Literal["deploy", "rollback"], verdicts: Sequence[Verdict], at: str) -> Deployment:
    """`deployment` with a rollout to `goal` under way. Raises Conflict while another is."""
    require_idle(deployment)
    rollout = Rollout(
        kind=kind,
        strategy="direct",
        goal=goal,
        generation=deployment.generation + 1,
        # Nothing serves yet, so there is nothing to hold the first release beside.
        phase="switching" if deployment.current is None else "holding",
        started_at=at,
        verdicts=tuple(verdicts),
    )
    return msgspec.structs.replace(deployment, rollout=rollout)


def require_idle(deployment: Deployment) -> None:
    """Return when no rollout is under way. Raises Conflict."""
    if deployment.rollout is not None:
        raise Conflict(f"a rollout of {deployment.name} to version {deployment.rollout.goal.version} is under way; wait for its end", rule="rollout")


def plan(deployment: Deployment) -> TrafficPlan | None:
    """The traffic that `deployment` stands for now; None: nothing shall serve.

    A generation is a state of the weights, so holding keeps the old one.
    """
    rollout, current = deployment.rollout, deployment.current
    if rollout is not None and rollout.phase == "switching":
        # The old release stays ready until the new one is acknowledged: a worker that is late still answers by it.
        hold = () if current is None or current.digest == rollout.goal.digest else (current,)
        return _plan(deployment.name, rollout.generation, rollout.goal, hold)
    if current is None:
        return None
    hold = () if rollout is None or rollout.goal.digest == current.digest else (rollout.goal,)
    return _plan(deployment.name, deployment.generation, current, hold)


def advance(deployment: Deployment, seen: Seen) -> Deployment:
    """The next state. Laws: it never leaves a rollout but by success or by going back; without a rollout nothing changes."""
    rollout = deployment.rollout
    if rollout is None:
        return deployment
    if seen.readiness.outcome == "fail":
        return _back(deployment, rollout, seen.readiness, seen.at)
    if rollout.phase == "holding" and seen.acknowledged and seen.readiness.outcome == "pass":
        return msgspec.structs.replace(deployment, rollout=msgspec.structs.replace(rollout, phase="switching"))
    if rollout.phase == "switching" and seen.acknowledged and seen.readiness.outcome == "pass":
        return _settle(deployment, rollout, seen.at)
    if seen.is_over:
        late = Verdict(outcome="fail", rule="deadline", evidence=f"not in force in the time allowed: {seen.readiness.evidence}")
        return _back(deployment, rollout, late, seen.at)
    return deployment


def _settle(deployment: Deployment, rollout: Rollout, at: str) -> Deployment:
    if rollout.kind == "rollback":
        previous = deployment.previous[:-1]
    else:
        previous = deployment.previous if deployment.current is None else (*deployment.previous, deployment.current)[-HISTORY:]
    done = Verdict(outcome="pass", rule="rollout", evidence=f"version {rollout.goal.version} serves as generation {rollout.generation}")
    return msgspec.structs.replace(
        deployment,
        generation=rollout.generation,
        current=rollout.goal,
        previous=previous,
        rollout=None,
        last=_outcome(rollout, done, at),
    )


def _back(deployment: Deployment, rollout: Rollout, verdict: Verdict, at: str) -> Deployment:
    # The generation of a change that had moved the weights is spent: going back is a state of its own.
    generation = deployment.generation if rollout.phase == "holding" else rollout.generation + 1
    return msgspec.structs.replace(deployment, generation=generation, rollout=None, last=_outcome(rollout, verdict, at))


def _outcome(rollout: Rollout, verdict: Verdict, at: str) -> Outcome:
    return Outcome(kind=rollout.kind, goal=rollout.goal, generation=rollout.generation, ended_at=at, verdict=verdict, gates=rollout.verdicts)


def _plan(name: str, generation: int, release: Release, hold: tuple[Release, ...]) -> TrafficPlan:
    return TrafficPlan(
        name=name,
        generation=generation,
        weights={release.digest: 100},
        versions={each.digest: each.version for each in (release, *hold)},
        hold=tuple(each.digest for each in hold),
    )
