"""Samples of the gauges that guards are about: asked now and then, beside the driver, and kept as counts by generation of the rollout.

Hides the records' form, the threads that ask, and what a failed question comes to. Only the leader's driver has one. It must not judge; what a sample
means is the guard's (`guards.shares.gauge`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from modelyard.errors import Conflict, ModelyardError
from modelyard.registry.base import RecordStore
from modelyard.rollout import prometheus
from modelyard.rollout.guards import Guard, Samples, parse
from modelyard.rollout.strategies import is_shown
from modelyard.targets.base import Deployment

KIND = "samples"
EVERY_S = 15.0
"""How often a gauge is asked: as often as Prometheus itself looks, by default, or samples would be the same number twice."""
ASKING = 4

Ask = Callable[[str, str, int], float]
Taken = dict[str, Samples]
"""Samples by guard, as written."""


class _Asked(NamedTuple):
    """A question on its way: what the candidate's gauge says, and the champion's where the guard compares."""

    guard: Guard
    answers: Future[tuple[float, float | None]]


class Gauges:
    """Asks for the rollouts of one store. `look` from one thread at a time."""

    def __init__(self, records: RecordStore, *, ask: Ask = prometheus.ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._ask = ask
        self._clock = clock
        self._due: dict[tuple[str, int, str], float] = {}
        self._asked: dict[tuple[str, int, str], _Asked] = {}
        self._pool: ThreadPoolExecutor | None = None
        self.trouble: dict[str, str] = {}

    def look(self, deployment: Deployment) -> Mapping[int, Taken]:
        """What has been sampled in each generation of the rollout; asks again what is due. Never waits for an answer."""
        rollout, current = deployment.rollout, deployment.current
        url = None if rollout is None else rollout.strategy.prometheus
        if rollout is None or current is None or url is None or not rollout.generations:
            return {}
        weight = rollout.strategy.steps[rollout.step].weight
        guards = [guard for guard in map(parse, rollout.strategy.guards) if guard.query and is_shown(guard, weight)]
        if rollout.phase == "watching":
            for guard in guards:
                key = (deployment.name, rollout.generation, str(guard))
                if key not in self._asked and self._clock() >= self._due.get(key, 0.0):
                    self._due[key] = self._clock() + EVERY_S
                    versions = (rollout.goal.version, current.version if guard.compares else None)
                    self._asked[key] = _Asked(guard, self._submit(url, guard.query, versions))
        self._collect(deployment.name)
        return taken(self._records, deployment.name, rollout.generations)

    def forget(self, names: Iterable[str]) -> None:
        """Keep nothing in hand but of the deployments `names`."""
        kept = set(names)
        for held in (self._due, self._asked):
            for key in [key for key in held if key[0] not in kept]:
                del held[key]
        for name in self.trouble.keys() - kept:
            del self.trouble[name]

    def _submit(self, url: str, query: str, versions: tuple[int, int | None]) -> Future[tuple[float, float | None]]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=ASKING, thread_name_prefix="gauges")

        def asked() -> tuple[float, float | None]:
            champion = versions[1]
            return self._ask(url, query, versions[0]), None if champion is None else self._ask(url, query, champion)

        return self._pool.submit(asked)

    def _collect(self, name: str) -> None:
        """Write down the answers that have come."""
        for key in [key for key, asked in self._asked.items() if key[0] == name and asked.answers.done()]:
            guard, answers = self._asked.pop(key)
            with contextlib.suppress(Conflict):  # another leader is at work: the sample is lost, which biases nothing
                self._keep(name, key[1], guard, answers)

    def _keep(self, name: str, generation: int, guard: Guard, answers: Future[tuple[float, float | None]]) -> None:
        record = self._records.get(KIND, _key(name, generation))
        kept = {} if record is None else msgspec.convert(record.body["samples"], Taken)
        had = kept.get(str(guard), Samples())
        try:
            value, champion = answers.result()
        except ModelyardError as error:
            self.trouble[name] = error.message
            kept[str(guard)] = msgspec.structs.replace(had, failed=had.failed + 1)
        else:
            self.trouble.pop(name, None)
            kept[str(guard)] = sampled(had, guard, value, champion)
        body = {"samples": msgspec.to_builtins(kept)}
        self._records.put(KIND, _key(name, generation), body, expected=0 if record is None else record.revision)


def sampled(had: Samples, guard: Guard, value: float, champion: float | None) -> Samples:
    """`had` and one more."""
    is_kept = guard.keeps(value, 0.0 if champion is None else champion)
    return msgspec.structs.replace(had, taken=had.taken + 1, broken=had.broken + (not is_kept), value=value, champion=champion)


def taken(records: RecordStore, name: str, generations: Iterable[int]) -> dict[int, Taken]:
    """What has been sampled, by generation and guard."""
    wanted = {_key(name, generation): generation for generation in generations}
    found = {record.key: record for record in records.list(KIND, prefix=f"{name}:")}
    return {wanted[key]: msgspec.convert(found[key].body["samples"], Taken) for key in wanted if key in found}


def sweep(records: RecordStore, needed: Iterable[tuple[str, int]]) -> int:
    """Remove the samples of all other deployments and generations; how many records went."""
    kept = {_key(name, generation) for name, generation in needed}
    found = [record for record in records.list(KIND) if record.key not in kept]
    if found:
        with records.transaction() as transaction:
            for record in found:
                transaction.delete(KIND, record.key, expected=None)
    return len(found)


def _key(name: str, generation: int) -> str:
    return f"{name}:{generation:09d}"
