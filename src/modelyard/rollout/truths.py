"""What labels say of the versions of a rollout: looked for beside the driver, and parted by step.

Hides the thread that looks, and that a label belongs to the step in which its prediction was answered. Only the leader's driver has one, and it finds
the labels and predictions of its own home, which come from all hosts. It must not judge.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple

from modelyard.errors import ModelyardError
from modelyard.monitor.labels import Answers, Labelled, labelled
from modelyard.rollout.guards import parse
from modelyard.rollout.history import Event
from modelyard.targets.base import Deployment, Release
from modelyard.types import Digest, Scalar

EVERY_S = 5.0
"""How often labels are looked for: the whole log of a deployment is searched for their predictions."""

Find = Callable[[str, float], Mapping[Digest, Answers]]
Classes = Callable[[Release], Sequence[Scalar] | None]


class Truth(NamedTuple):
    """By generation, the champion's and the candidate's labelled predictions. `turn` is another whenever something may have changed."""

    turn: int = 0
    by_generation: Mapping[int, tuple[Labelled | None, Labelled | None]] = {}


class Truths:
    """Looks for the labels of the rollouts of one store. `look` from one thread at a time."""

    def __init__(self, find: Find, classes: Classes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._classes = classes
        self._clock = clock
        self._known: dict[str, tuple[str, Truth]] = {}
        self._due: dict[str, float] = {}
        self._looking: dict[str, tuple[str, Future[dict[int, tuple[Labelled | None, Labelled | None]]]]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._turns = 0
        self.trouble: dict[str, str] = {}

    def look(self, deployment: Deployment, history: Callable[[], Iterable[Event]]) -> Truth:
        """What was found last, for the rollout under way; looks again when that is due. Never waits for it."""
        name, rollout, current = deployment.name, deployment.rollout, deployment.current
        if rollout is None or current is None or not rollout.generations:
            return Truth()
        metrics = (rollout.strategy.metric,) if rollout.strategy.metric in ("accuracy", "auc", "mae", "rmse") else ()
        if not metrics and not any("labels" in parse(text).needs for text in rollout.strategy.guards):
            return Truth()
        started = rollout.started_at
        if name not in self._looking and self._clock() >= self._due.get(name, -math.inf):
            self._due[name] = self._clock() + EVERY_S
            entered = steps(history(), started_at=started, generations=rollout.generations)
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="labels")
            self._looking[name] = (started, self._pool.submit(self._search, name, current, rollout.goal, entered))
        self._collect(name)
        known = self._known.get(name)
        return known[1] if known is not None and known[0] == started else Truth()

    def forget(self, names: Iterable[str]) -> None:
        """Keep nothing but of the deployments `names`."""
        kept = set(names)
        for name in {*self._known, *self._due, *self._looking, *self.trouble} - kept:
            for held in (self._known, self._due, self._looking, self.trouble):
                held.pop(name, None)

    def _collect(self, name: str) -> None:
        looking = self._looking.get(name)
        if looking is None or not looking[1].done():
            return
        del self._looking[name]
        try:
            found = looking[1].result()
        except ModelyardError as error:
            self.trouble[name] = error.message
        else:
            self.trouble.pop(name, None)
            self._turns += 1
            self._known[name] = (looking[0], Truth(self._turns, found))

    def _search(
        self, name: str, champion: Release, candidate: Release, entered: Sequence[tuple[int, float]]
    ) -> dict[int, tuple[Labelled | None, Labelled | None]]:
        if not entered:
            return {}
        answers = self._find(name, entered[0][1])
        versions = [(answers[each.digest], self._classes(each)) if each.digest in answers else None for each in (champion, candidate)]
        found = {}
        for place, (generation, first) in enumerate(entered):
            last = entered[place + 1][1] if place + 1 < len(entered) else math.inf
            parts = [None if each is None else labelled(*each, first=first, last=last) for each in versions]
            found[generation] = (parts[0], parts[1])
        return found


def steps(history: Iterable[Event], *, started_at: str, generations: Sequence[int]) -> list[tuple[int, float]]:
    """When each generation of a rollout was entered, in seconds since 1970, in their order."""
    times: dict[int, float] = {}
    for event in history:
        if event.what == "step" and event.generation in generations and event.at >= started_at[: len(event.at)]:
            times.setdefault(event.generation, datetime.fromisoformat(event.at).timestamp())
    return [(generation, times[generation]) for generation in generations if generation in times]
