"""What the evidence says of a rollout: the counts of its steps in, what the machine wants to know out.

Hides how evidence becomes strata and that nothing is judged again while nothing new was seen. Guards are functions of the counts, so that whoever
judges after a restart, or on another host, finds the same. It must not decide what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from modelyard.monitor.evidence import Seen
from modelyard.rollout import strategies
from modelyard.rollout.guards import Guard, Samples, Stratum, judge, parse
from modelyard.rollout.truths import Truth
from modelyard.targets.base import Deployment, Rollout
from modelyard.types import Digest, Verdict

Counts = Mapping[Digest, Seen]
Gather = Callable[[str], Mapping[int, Counts]]
"""By generation and digest, what was seen of the deployment of this name, by all its hosts."""

UNLABELLED = Truth()
NONE: Mapping[int, Mapping[str, Samples]] = {}


class Judged(NamedTuple):
    """What the evidence says: the candidate's requests in the step in force, each guard's verdict in order (last, where it fails, of the one
    that nobody asked for), and for an A/B test the metric's.
    """

    requests: int = 0
    guards: tuple[Verdict, ...] = ()
    metric: Verdict | None = None


class Judge:
    """Judges the rollouts of one store. Used by one thread at a time."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._known: dict[str, tuple[object, Judged]] = {}

    def judge(
        self, deployment: Deployment, readiness: Verdict, samples: Mapping[int, Mapping[str, Samples]] = NONE, truth: Truth = UNLABELLED
    ) -> Judged:
        """What there is to say about the rollout of `deployment`, whose candidate has this `readiness`; nothing before its first step.

        `samples` are those of gauges, by generation and guard; `truth` is what labels say.
        """
        rollout, current = deployment.rollout, deployment.current
        if rollout is None or current is None or not rollout.generations:
            self.forget(deployment.name)
            return Judged()
        asked = (rollout.goal, rollout.strategy, rollout.generations, rollout.forced)
        if not (_judges(rollout) or any(step.minimum_requests for step in rollout.strategy.steps)):
            return Judged()
        counts = self._gather(deployment.name)
        sampled = {generation: dict(samples.get(generation, {})) for generation in rollout.generations}
        evidence = (
            asked,
            readiness.outcome,
            truth.turn,
            sampled,
            {generation: dict(counts.get(generation, {})) for generation in rollout.generations},
        )
        known = self._known.get(deployment.name)
        if known is not None and known[0] == evidence:
            return known[1]
        strata = _strata(rollout, counts, champion=current.digest, readiness=readiness, truth=truth)
        judged = _judged(rollout, strata, list(sampled.values()))
        self._known[deployment.name] = (evidence, judged)
        return judged

    def forget(self, name: str) -> None:
        """Keep nothing of `name`."""
        self._known.pop(name, None)


def _judges(rollout: Rollout) -> bool:
    strategy = rollout.strategy
    return not rollout.forced and bool(strategy.guards or strategy.metric or strategies.unasked(strategy))


def _strata(rollout: Rollout, counts: Mapping[int, Counts], *, champion: Digest, readiness: Verdict, truth: Truth) -> list[Stratum]:
    strata = []
    for step, generation in zip(rollout.strategy.steps, rollout.generations, strict=False):
        seen = counts.get(generation, {})
        known = truth.by_generation.get(generation, (None, None))
        strata.append(
            Stratum(
                champion=seen.get(champion, Seen()),
                candidate=seen.get(rollout.goal.digest, Seen()),
                is_shadow=step.weight == 0,
                champion_labels=known[0],
                candidate_labels=known[1],
                golden=readiness if readiness.outcome in ("pass", "fail") else None,
            )
        )
    return strata


def _judged(rollout: Rollout, strata: Sequence[Stratum], samples: Sequence[Mapping[str, Samples]]) -> Judged:
    last, weight = strata[-1].candidate, rollout.strategy.steps[rollout.step].weight
    requests = last.mirror.sent if weight == 0 else last.requests
    if not _judges(rollout):
        return Judged(requests=requests)
    alpha = strategies.share_of_alpha(rollout.strategy)
    decider: Guard | None = strategies.deciding(rollout.strategy)
    verdicts = tuple(judge(guard, _of(guard, strata, samples), alpha=alpha) for guard in map(parse, rollout.strategy.guards))
    return Judged(
        requests=requests,
        guards=(*verdicts, *_unasked(rollout, strata)),
        metric=None if decider is None else judge(decider, _of(decider, strata, samples), alpha=alpha),
    )


def _unasked(rollout: Rollout, strata: Sequence[Stratum]) -> tuple[Verdict, ...]:
    """The verdict of the guard that nobody asked for, where it fails: no step waits for it."""
    guard = strategies.unasked(rollout.strategy)
    if guard is None:
        return ()
    verdict = judge(guard, strata, alpha=strategies.UNASKED_SHARE * rollout.strategy.alpha)
    return (verdict,) if verdict.outcome == "fail" else ()


def _of(guard: Guard, strata: Sequence[Stratum], samples: Sequence[Mapping[str, Samples]]) -> Sequence[Stratum]:
    """The strata with the samples of this guard's own gauge."""
    if not guard.query:
        return strata
    return [stratum._replace(samples=taken.get(str(guard))) for stratum, taken in zip(strata, samples, strict=False)]
