"""The rollout as one pure state machine: a Deployment and what was seen of it in, the next Deployment out.

A rollout is a row of steps, whatever its strategy: direct and blue-green have one (100 %), a canary several, a shadow begins with one of 0 %, an A/B
test with the split; the last is always 100 %. The goal is first held ready beside the old release; then each step is written down (`switching`),
in force (`watching`), and left when it has been earned. Until the end the old release stays ready, so that going back is one plan, whatever the step.
It must not know clocks, stores, targets or how a guard judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from modelyard.errors import Conflict, Forbidden
from modelyard.rollout.guards.grammar import parse
from modelyard.rollout.history import ITSELF
from modelyard.rollout.strategies import is_shown, written_time
from modelyard.targets.base import HISTORY, Approval, Deployment, Outcome, Pause, Release, Rollout, Step, Strategy, Warm
from modelyard.types import TrafficPlan, Verdict

DIRECT = Strategy(steps=(Step(weight=100),), mirror=0.0)
FLIPS = ("direct", "blue-green")
"""Strategies whose traffic moves in one flip."""
PROVEN_S = 86_400.0
"""A release that has served for longer is not left by itself: what is new then is what it is asked, and what served before was never asked it."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver saw of one deployment.

    `readiness` of the goal; whether the plan in force is `acknowledged`; whether the time for loading and switching `is_over`; the time (UTC).
    Of the step in force: `elapsed_s` so far, the candidate's `requests` (of a step of 0 %: mirrored ones), the verdict of each guard in order, and
    for an A/B test the one of its metric: pass when the candidate is the better, fail when the champion is. Without a rollout `readiness` is that
    of what serves, `served_s` how long ago the last rollout ended, and `elapsed_s` how long the warm release has been.
    """

    readiness: Verdict
    acknowledged: bool
    is_over: bool
    at: str
    elapsed_s: float = 0.0
    requests: int = 0
    guards: tuple[Verdict, ...] = ()
    metric: Verdict | None = None
    served_s: float = 0.0


def begin(
    deployment: Deployment,
    goal: Release,
    *,
    kind: Literal["deploy", "rollback"],
    gates: Sequence[Verdict],
    at: str,
    by: str = "",
    strategy: Strategy = DIRECT,
) -> Deployment:
    """`deployment` with a rollout to `goal` under way. Raises Conflict while another is."""
    require_idle(deployment)
    rollout = Rollout(
        kind=kind,
        strategy=strategy,
        goal=goal,
        generation=deployment.generation + 1,
        phase="holding",
        started_at=at,
        step_at=at,
        by=by,
        gates=tuple(gates),
    )
    begun = msgspec.structs.replace(deployment, rollout=rollout)
    is_warm = deployment.warm is not None and deployment.warm.release.digest == goal.digest
    if (deployment.current is None or is_warm) and not _needs_approval(rollout, 0):
        # Nothing serves yet, so there is nothing to hold the first release beside; or it is ready already.
        return _enter(begun, rollout, 0, at, because="it is ready already" if is_warm else "nothing serves yet")
    return begun


def begin_back(deployment: Deployment, *, at: str, by: str) -> Deployment:
    """`deployment` with a rollout back to what served before under way. Raises Conflict when nothing did, or while a rollout is under way."""
    require_idle(deployment)
    if not deployment.previous:
        raise Conflict(f"nothing served as {deployment.name} before what serves now; deploy the version that shall serve", rule="history")
    return begin(deployment, deployment.previous[-1], kind="rollback", gates=(), at=at, by=by)


def require_generation(deployment: Deployment | None, expected: int | None) -> None:
    """Return when the generation in force is the expected one (None: any; 0: nothing is deployed). Raises Conflict."""
    now = 0 if deployment is None else deployment.in_force
    if expected is not None and now != expected:
        is_at = "nothing is deployed under this name" if deployment is None else f"{deployment.name} is at generation {now}, not {expected}"
        raise Conflict(f"{is_at}: somebody changed it; look at it again, then decide", rule="generation")


def require_idle(deployment: Deployment) -> None:
    """Return when no rollout is under way. Raises Conflict."""
    if deployment.rollout is not None:
        raise Conflict(
            f"a rollout of {deployment.name} to version {deployment.rollout.goal.version} is under way; wait for its end,"
            f" or end it: modelyard abort {deployment.name}",
            rule="rollout",
        )


def plan(deployment: Deployment) -> TrafficPlan | None:
    """The traffic that `deployment` stands for now; None: nothing shall serve.

    A generation is a state of the weights, so holding keeps the old one.
    """
    rollout, current = deployment.rollout, deployment.current
    if rollout is None or rollout.phase == "holding":
        if current is None:
            return None
        ready = (rollout.goal,) if rollout is not None else () if deployment.warm is None else (deployment.warm.release,)
        return _plan(deployment.name, deployment.generation, ((current, 100),), ready)
    goal, strategy = rollout.goal, rollout.strategy
    if current is None or current.digest == goal.digest:
        return _plan(deployment.name, rollout.generation, ((goal, 100),), ())
    weight = strategy.steps[rollout.step].weight
    # The old release stays ready until the last step is earned: a worker that is late still answers by it, and going back is a flip.
    planned = _plan(deployment.name, rollout.generation, ((current, 100 - weight), (goal, weight)), ())
    return msgspec.structs.replace(
        planned,
        # A flip may change the schema, from the moment on at which the new release answers; a share of the traffic may not.
        champion=None if strategy.kind in FLIPS else current.digest,
        shadows={goal.digest: strategy.mirror} if strategy.mirror and weight < 100 else {},
        sticky=strategy.sticky if 0 < weight < 100 else None,
    )


def advance(deployment: Deployment, seen: Seen) -> Deployment:
    """The next state.

    Laws (`tests/property/test_rollouts.py`): it never leaves a rollout but by success or by going back; a step is never left while a guard fails,
    nor held without a reason; generations only grow; without a rollout nothing changes but that a warm release's time ends, or that a
    release that keeps failing soon after its deploy is left, once, for what served before.
    """
    rollout = deployment.rollout
    if rollout is None:
        return begin_back(deployment, at=seen.at, by=ITSELF) if _is_left(deployment, seen) else _cool(deployment, seen)
    if seen.readiness.outcome == "fail":
        return _back(deployment, rollout, seen.readiness, seen)
    if failed := _failed(rollout, seen):
        return _back(deployment, rollout, failed, seen)
    is_in_force = seen.acknowledged and seen.readiness.outcome == "pass"
    if rollout.phase == "watching":
        return _watch(deployment, _noted(rollout, seen), seen)
    if not is_in_force:
        if seen.is_over:
            late = Verdict(outcome="fail", rule="deadline", evidence=f"not in force in the time allowed: {seen.readiness.evidence}")
            return _back(deployment, rollout, late, seen)
        return deployment
    if rollout.phase == "switching":
        watching = msgspec.structs.replace(rollout, phase="watching", step_at=seen.at, elapsed_s=0.0, requests=0, resumed_s=0.0)
        return _watch(deployment, watching, msgspec.structs.replace(seen, elapsed_s=0.0, requests=0))
    return _go_on(deployment, rollout, 0, seen)


def is_progress(before: Deployment, after: Deployment) -> bool:
    """Whether `after` differs from `before` by nothing that decides or shows anything: by time, counts and numbers of verdicts alone."""
    return _still(before) == _still(after)


def pause(deployment: Deployment, *, by: str, why: str, at: str) -> Deployment:
    """Keep the rollout where it is; guards go on judging it. Raises Conflict when none is under way, or it is paused already."""
    rollout = _under_way(deployment, "pause")
    if rollout.forced:
        raise Conflict(f"{deployment.name} is being promoted, by {rollout.forced}; go back: modelyard abort {deployment.name}", rule="promote")
    if rollout.pause is not None:
        raise Conflict(f"{deployment.name} is paused already, by {rollout.pause.by}; go on: modelyard resume {deployment.name}", rule="pause")
    return _with(deployment, msgspec.structs.replace(rollout, pause=Pause(by=by, why=why, at=at)))


def resume(deployment: Deployment) -> Deployment:
    """Let a paused rollout go on; the step has its whole `max_time_s` again. Raises Conflict when none is paused."""
    rollout = _under_way(deployment, "resume")
    if rollout.pause is None:
        raise Conflict(f"{deployment.name} is not paused; see: modelyard status", rule="pause")
    return _with(deployment, msgspec.structs.replace(rollout, pause=None, waits="", resumed_s=rollout.elapsed_s))


def promote(deployment: Deployment, *, by: str, at: str) -> Deployment:
    """Skip to the last step, whatever guards say; it is written down as forced by `by`. Raises Conflict.

    A goal that is not ready everywhere yet takes the traffic once it is.
    """
    rollout = _under_way(deployment, "promote")
    if rollout.forced:
        raise Conflict(f"{deployment.name} is being promoted already, by {rollout.forced}", rule="promote")
    last = len(rollout.strategy.steps) - 1
    wanted = [index for index in range(last + 1) if _needs_approval(rollout, index) and index >= _entering(rollout)]
    if wanted:
        step = rollout.strategy.steps[wanted[0]].weight
        raise Conflict(f"the step of {step} % needs an approval first: modelyard approve {deployment.name}", rule="approval")
    forced = msgspec.structs.replace(rollout, forced=by, pause=None, waits="")
    if rollout.phase == "holding" or rollout.step == last:
        return _with(deployment, forced)
    return _enter(deployment, forced, last, at, because=f"promoted by {by}")


def abort(deployment: Deployment, *, by: str, why: str, at: str) -> Deployment:
    """End the rollout: what served before has all traffic again. Raises Conflict when none is under way."""
    rollout = _under_way(deployment, "abort")
    evidence = f"aborted by {by}" + (f": {why}" if why else "")
    verdict = Verdict(outcome="fail", rule="abort", evidence=evidence)
    return _ended_back(deployment, rollout, verdict, rollout.guards, at)


def approve(deployment: Deployment, *, by: str, at: str) -> Deployment:
    """Let the next step that needs an approval be entered. Raises Conflict when none does, Forbidden for who began the rollout."""
    rollout = _under_way(deployment, "approve")
    open_steps = [index for index in range(_entering(rollout), len(rollout.strategy.steps)) if _needs_approval(rollout, index)]
    if not open_steps:
        raise Conflict(f"no step of the rollout of {deployment.name} waits for an approval; see: modelyard status", rule="approval")
    if by == rollout.by:
        raise Forbidden(f"{by} began this rollout of {deployment.name}; somebody else approves it, by a key of their own", rule="approver")
    approval = Approval(step=open_steps[0], by=by, at=at)
    return _with(deployment, msgspec.structs.replace(rollout, approvals=(*rollout.approvals, approval), waits=""))


def _still(deployment: Deployment) -> tuple[object, ...]:
    rollout, warm = deployment.rollout, deployment.warm
    if rollout is not None:
        outcomes = tuple(verdict.outcome for verdict in rollout.guards)
        still = msgspec.structs.replace(rollout, elapsed_s=0.0, requests=0, guards=())
        return msgspec.structs.replace(deployment, rollout=still), outcomes
    return (deployment if warm is None else msgspec.structs.replace(deployment, warm=msgspec.structs.replace(warm, elapsed_s=0.0)),)


def _under_way(deployment: Deployment, verb: str) -> Rollout:
    if deployment.rollout is None:
        raise Conflict(f"no rollout of {deployment.name} is under way, so there is nothing to {verb}; see: modelyard status", rule="rollout")
    return deployment.rollout


def _entering(rollout: Rollout) -> int:
    """The index of the first step not entered yet."""
    return 0 if rollout.phase == "holding" else rollout.step + 1


def _needs_approval(rollout: Rollout, index: int) -> bool:
    return rollout.strategy.steps[index].approval and all(approval.step != index for approval in rollout.approvals)


def _is_left(deployment: Deployment, seen: Seen) -> bool:
    """Whether what serves fails, a deploy brought it here not long ago, and something else served before.

    What was gone back to is not left: the last rollout was none that brought it here by a deploy.
    """
    last, current = deployment.last, deployment.current
    return (
        seen.readiness.outcome == "fail"
        and seen.served_s <= PROVEN_S
        and last is not None
        and last.kind == "deploy"
        and last.verdict.outcome == "pass"
        and current is not None
        and bool(deployment.previous)
        and deployment.previous[-1].digest != current.digest
    )


def _failed(rollout: Rollout, seen: Seen) -> Verdict | None:
    """What the evidence says against the goal, if it does; nothing once somebody has promoted it all the same."""
    if rollout.forced or rollout.phase == "holding":
        return None
    judged = seen.guards if seen.metric is None else (*seen.guards, seen.metric)
    return next((verdict for verdict in judged if verdict.outcome == "fail"), None)


def _noted(rollout: Rollout, seen: Seen) -> Rollout:
    judged = seen.guards if seen.metric is None else (*seen.guards, seen.metric)
    return msgspec.structs.replace(
        rollout, elapsed_s=max(rollout.elapsed_s, seen.elapsed_s), requests=max(rollout.requests, seen.requests), guards=judged or rollout.guards
    )


def _watch(deployment: Deployment, rollout: Rollout, seen: Seen) -> Deployment:
    waits = _waits(rollout, seen)
    if not waits:
        if rollout.step == len(rollout.strategy.steps) - 1:
            return _settle(deployment, rollout, seen.at)
        return _go_on(deployment, rollout, rollout.step + 1, seen)
    if rollout.pause is None and rollout.elapsed_s - rollout.resumed_s > rollout.strategy.max_time_s:
        step = rollout.strategy.steps[rollout.step].weight
        why = f"the step of {step} % was not earned in {written_time(rollout.strategy.max_time_s)}: {waits}"
        rollout = msgspec.structs.replace(rollout, pause=Pause(by=ITSELF, why=why, at=seen.at))
    return _with(deployment, msgspec.structs.replace(rollout, waits=waits))


def _waits(rollout: Rollout, seen: Seen) -> str:
    """Why the step in force is not left; empty when it has been earned."""
    if rollout.forced:
        return ""
    if rollout.pause is not None:
        return "it is paused"
    strategy, step = rollout.strategy, rollout.strategy.steps[rollout.step]
    if rollout.elapsed_s < step.minimum_s:
        return f"it takes at least {written_time(step.minimum_s)}"
    if rollout.requests < step.minimum_requests:
        return f"the candidate has had fewer than {step.minimum_requests:,} requests"
    if len(seen.guards) < len(strategy.guards):
        return "not every guard has judged yet"
    for text, verdict in zip(strategy.guards, seen.guards, strict=False):
        if not is_shown(parse(text), step.weight):
            continue  # no more can be seen of it that would ever move it to the other side; it may still fail by what comes in late
        if strategy.strict and verdict.outcome != "pass":
            return f"{verdict.rule} has not passed yet"
        if not is_on_its_side(verdict):
            return f"{verdict.rule} is {'on the wrong side of its bound' if 'holds' in verdict.numbers else 'not known yet'}"
    if rollout.step < len(strategy.steps) - 1:
        if strategy.kind == "ab" and (seen.metric is None or seen.metric.outcome != "pass"):
            return f"neither version is the better by {strategy.metric} yet"
        if strategy.kind == "shadow" and not strategy.promote:
            return "somebody promotes or aborts it"
    return ""


def is_on_its_side(verdict: Verdict) -> bool:
    """Whether the estimate of a guard lies on the side of its bound that it asks for, certain or not; False while there is no estimate."""
    return verdict.outcome == "pass" or (verdict.outcome != "fail" and verdict.numbers.get("holds") == 1.0)


def _go_on(deployment: Deployment, rollout: Rollout, index: int, seen: Seen) -> Deployment:
    """Enter the step `index`, or the last where the rollout was promoted, unless it is paused or the step needs an approval."""
    if rollout.forced:
        return _enter(deployment, rollout, len(rollout.strategy.steps) - 1, seen.at, because=f"promoted by {rollout.forced}")
    if rollout.pause is not None:
        return _with(deployment, msgspec.structs.replace(rollout, waits="it is paused"))
    if _needs_approval(rollout, index):
        step = rollout.strategy.steps[index].weight
        return _with(deployment, msgspec.structs.replace(rollout, waits=f"the step of {step} % needs an approval"))
    if rollout.phase == "holding":
        because = "it is ready everywhere"
    else:
        because = f"{rollout.strategy.steps[rollout.step].weight} % were earned in {rollout.elapsed_s:.0f} s by {rollout.requests:,} requests"
    return _enter(deployment, rollout, index, seen.at, because=because)


def _enter(deployment: Deployment, rollout: Rollout, index: int, at: str, *, because: str) -> Deployment:
    # The first step has the generation that was promised; every further one the next.
    generation = rollout.generation if rollout.phase == "holding" else rollout.generation + 1
    entered = msgspec.structs.replace(
        rollout,
        phase="switching",
        step=index,
        generation=generation,
        generations=(*rollout.generations, generation),
        step_at=at,
        elapsed_s=0.0,
        requests=0,
        resumed_s=0.0,
        because=because,
        waits="",
    )
    return msgspec.structs.replace(_with(deployment, entered), warm=None)


def _settle(deployment: Deployment, rollout: Rollout, at: str) -> Deployment:
    if rollout.kind == "rollback":
        previous = deployment.previous[:-1]
    else:
        previous = deployment.previous if deployment.current is None else (*deployment.previous, deployment.current)[-HISTORY:]
    keep_s = rollout.strategy.keep_warm_s
    is_wanted = rollout.strategy.kind == "blue-green" if keep_s is None else keep_s > 0
    is_kept = is_wanted and rollout.kind == "deploy" and deployment.current is not None
    how = f", promoted by {rollout.forced}" if rollout.forced else ""
    done = Verdict(outcome="pass", rule="rollout", evidence=f"version {rollout.goal.version} serves as generation {rollout.generation}{how}")
    return msgspec.structs.replace(
        deployment,
        generation=rollout.generation,
        current=rollout.goal,
        previous=previous,
        warm=Warm(release=previous[-1], keep_s=keep_s) if is_kept else None,
        rollout=None,
        last=_outcome(rollout, done, rollout.guards, at),
    )


def _back(deployment: Deployment, rollout: Rollout, verdict: Verdict, seen: Seen) -> Deployment:
    judged = seen.guards if seen.metric is None else (*seen.guards, seen.metric)
    return _ended_back(deployment, rollout, verdict, judged or rollout.guards, seen.at)


def _ended_back(deployment: Deployment, rollout: Rollout, verdict: Verdict, guards: tuple[Verdict, ...], at: str) -> Deployment:
    # The generation of a change that had moved the weights is spent: going back is a state of its own.
    generation = deployment.generation if rollout.phase == "holding" else rollout.generation + 1
    return msgspec.structs.replace(deployment, generation=generation, rollout=None, last=_outcome(rollout, verdict, guards, at))


def _cool(deployment: Deployment, seen: Seen) -> Deployment:
    warm = deployment.warm
    if warm is None or warm.keep_s is None:
        return deployment
    if seen.elapsed_s >= warm.keep_s:
        return msgspec.structs.replace(deployment, warm=None)
    return msgspec.structs.replace(deployment, warm=msgspec.structs.replace(warm, elapsed_s=max(warm.elapsed_s, seen.elapsed_s)))


def _with(deployment: Deployment, rollout: Rollout) -> Deployment:
    return deployment if rollout == deployment.rollout else msgspec.structs.replace(deployment, rollout=rollout)


def _outcome(rollout: Rollout, verdict: Verdict, guards: tuple[Verdict, ...], at: str) -> Outcome:
    return Outcome(
        kind=rollout.kind,
        goal=rollout.goal,
        generation=rollout.generation,
        ended_at=at,
        verdict=verdict,
        gates=rollout.gates,
        guards=guards,
        by=rollout.by,
        started_at=rollout.started_at,
    )


def _plan(name: str, generation: int, shares: tuple[tuple[Release, int], ...], ready: tuple[Release, ...]) -> TrafficPlan:
    weights = {release.digest: weight for release, weight in shares if weight > 0}
    named = (*(release for release, _ in shares), *ready)
    return TrafficPlan(
        name=name,
        generation=generation,
        weights=weights,
        versions={release.digest: release.version for release in named},
        hold=tuple(dict.fromkeys(release.digest for release in named if release.digest not in weights)),
    )
