"""A rollout as one watches it: one line that says where it is, again and again until it ends.

Hides the terminal: on one the line is drawn over, elsewhere one is printed for each change that matters. It must not ask the control process itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from modelyard.targets.base import Deployment, Rollout
from modelyard.types import Verdict

MARKS = {"pass": "ok", "fail": "FAILED", "warn": "warns", "unknown": "open"}


def said(deployment: Deployment) -> str:
    """Where the rollout of `deployment` is: step, progress, guards, and what it waits for."""
    rollout = deployment.rollout
    if rollout is None:
        return "no rollout is under way"
    return "  ·  ".join(_parts(rollout))


def gist(deployment: Deployment) -> tuple[object, ...]:
    """What of it deserves a line of its own when it changes."""
    rollout = deployment.rollout
    if rollout is None:
        return ()
    return (rollout.step, rollout.phase, rollout.pause, rollout.waits, rollout.forced, tuple(verdict.outcome for verdict in rollout.guards))


def duration(seconds: float) -> str:
    """Seconds for people: `45s`, `3m 05s`, `2h 10m`, `3d 4h`."""
    whole = int(seconds)
    for unit, name, lower, below in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit:
            return f"{whole // unit}{name} {whole % unit // lower:02d}{below}"
    return f"{whole}s"


def percent(share: float) -> str:
    """A share for people: `5 %`, `0.25 %`."""
    return f"{100 * share:.3g} %"


class Line:
    """The line, from `with` to its end."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._last: tuple[object, ...] | None = None
        self._status: Any = None

    def __enter__(self) -> Line:
        if self._is_terminal:
            from rich.console import Console

            self._status = Console().status("")
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, deployment: Deployment) -> None:
        """Say where it is now."""
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(said(deployment)))
        elif (now := gist(deployment)) != self._last:
            self._last = now
            print(said(deployment), flush=True)


def _parts(rollout: Rollout) -> Iterator[str]:
    steps = rollout.strategy.steps
    step = steps[rollout.step]
    what = f"{rollout.kind} of {rollout.goal.model}:{rollout.goal.version}"
    if rollout.phase == "holding":
        # It waits for somebody only once it is ready.
        yield f"{what} by {rollout.strategy.kind}: {'ready' if rollout.waits else 'loading it'} beside what serves"
    else:
        share = f"{step.weight} %" if step.weight else f"{percent(rollout.strategy.mirror or 0)} mirrored"
        yield f"{what} by {rollout.strategy.kind}: {share} (step {rollout.step + 1} of {len(steps)})"
    if rollout.phase == "switching":
        yield "telling every worker"
    if rollout.phase == "watching":
        # What is still to come of a minimum is told until it has come.
        lacks_time, lacks_requests = rollout.elapsed_s < step.minimum_s, rollout.requests < step.minimum_requests
        yield f"{duration(rollout.elapsed_s)} of {duration(step.minimum_s)}" if lacks_time else duration(rollout.elapsed_s)
        yield f"{rollout.requests:,} of {step.minimum_requests:,} requests" if lacks_requests else f"{rollout.requests:,} requests"
        yield from map(_judged, rollout.guards)
    if rollout.forced:
        yield f"promoted by {rollout.forced}"
    elif rollout.pause is not None:
        yield f"paused by {rollout.pause.by}: {rollout.pause.why}" if rollout.pause.why else f"paused by {rollout.pause.by}"
    elif rollout.waits:
        yield f"waits: {rollout.waits}"


def _judged(verdict: Verdict) -> str:
    return f"{verdict.rule} {MARKS[verdict.outcome]}"
