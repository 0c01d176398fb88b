"""What a deploy would do, before anything is done: the answer of `modelyard plan`.

Hides nothing; it is what `ControlPlane.plan_deploy` gives. A strategy that cannot be honoured never comes so far: it is refused by name.
"""

from __future__ import annotations

import msgspec

from modelyard.rollout import strategies
from modelyard.rollout.guards import parse
from modelyard.rollout.guards.grammar import METRICS
from modelyard.targets.base import Release, Strategy
from modelyard.types import Verdict


class PlannedGuard(msgspec.Struct, frozen=True, kw_only=True):
    """A guard as it is read, the evidence that it needs, and the probability of a false alarm that it may spend over the whole rollout."""

    guard: str
    needs: str
    alpha: float
    decides: bool = False


class Planned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deploy that would be accepted now: `goal` beside or instead of `current`, by a completed `strategy`; `generation` is the latest
    that the name has had.

    `is_there`: `goal` serves already, or is on its way by the same strategy, so that a deploy changes nothing; `is_warm`: it is kept ready, and need
    not be loaded. `notes` are what else to know.
    """

    name: str
    goal: Release
    current: Release | None
    generation: int
    strategy: Strategy
    guards: tuple[PlannedGuard, ...] = ()
    gates: tuple[Verdict, ...] = ()
    is_there: bool = False
    is_warm: bool = False
    notes: tuple[str, ...] = ()


def guards(strategy: Strategy) -> tuple[PlannedGuard, ...]:
    """The guards of a completed strategy, an A/B test's metric last."""
    alpha = strategies.share_of_alpha(strategy)
    judged = tuple(_planned(text, alpha, strategy.kind) for text in strategy.guards)
    decider = strategies.deciding(strategy)
    return judged if decider is None else (*judged, msgspec.structs.replace(_planned(str(decider), alpha, strategy.kind), decides=True))


def notes(strategy: Strategy, *, name: str) -> tuple[str, ...]:
    """What a person should know before it begins."""
    told = []
    if strategy.kind in ("canary", "shadow") and not strategy.guards:
        told.append("no guard judges it: only a version that does not load, or whose answers lack a value, goes back by itself")
    needs = {need for each in guards(strategy) for need in each.needs.split(", ")}
    if "labels" in needs:
        told.append(f"it needs labels while it runs: modelyard labels {name} --file F")
    if strategy.sticky and needs & {"live", "labels"}:
        told.append(f"callers count here, by {strategy.sticky}, not their requests: where a few ask most of them, little can be told")
    if any(step.approval for step in strategy.steps):
        told.append(f"somebody else approves it with a key of their own, whose role is approver: modelyard approve {name}")
    if strategy.kind == "shadow" and not strategy.promote:
        told.append(f"it answers nobody until somebody says: modelyard promote {name}")
    return tuple(told)


def _planned(text: str, alpha: float, kind: str) -> PlannedGuard:
    guard = parse(text)
    is_certain = guard.metric not in METRICS  # golden records are replayed, and there is no chance in it
    # A shadow answers nobody: what a live version shows is seen of its mirrored requests.
    needs = {"mirror"} if kind == "shadow" and guard.metric in strategies.MIRRORED else guard.needs
    return PlannedGuard(guard=str(guard), needs=", ".join(sorted(needs)), alpha=0.0 if is_certain else alpha)
