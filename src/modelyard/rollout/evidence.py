"""The evidence of all hosts on each rollout, as records: each adds what its own workers have counted, and whoever leads judges the sum.

Hides the records' form and when they are no longer needed. Counts only; it must not judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from modelyard.monitor.evidence import Seen
from modelyard.types import Digest

if TYPE_CHECKING:
    from modelyard.monitor.windows import Windows
    from modelyard.registry.base import RecordStore
    from modelyard.rollout.deployments import Stored

KIND = "evidence"
KEPT_GENERATIONS = 64
"""How many of a rollout's generations, the latest, are told; no rollout has so many steps."""

Counts = dict[Digest, Seen]


class Tally:
    """What this host has counted, written down where it has changed. Used by one thread at a time."""

    def __init__(self, records: RecordStore, *, host: str) -> None:
        self._records = records
        self._host = host
        self._written: dict[str, Counts] = {}

    def publish(self, rollouts: Mapping[str, Iterable[int]], windows: Windows) -> bool:
        """Write the counts of `windows` for each deployment under rollout and generation of it; whether there was anything new."""
        wanted = {
            _key(name, generation, self._host): counts
            for name, generations in rollouts.items()
            for generation in tuple(generations)[-KEPT_GENERATIONS:]
            if (counts := windows.evidence(name, generation))
        }
        changed = {key: counts for key, counts in wanted.items() if self._written.get(key) != counts}
        if changed:
            with self._records.transaction() as records:
                for key, counts in changed.items():
                    records.put(KIND, key, {"seen": msgspec.to_builtins(counts, str_keys=True)}, expected=None)
        self._written = wanted
        return bool(changed)


def merged(records: RecordStore, name: str) -> dict[int, Counts]:
    """By generation and digest, what all hosts have counted for the deployment `name`."""
    total: dict[int, Counts] = {}
    for record in records.list(KIND, prefix=f"{name}:"):
        counts = total.setdefault(_generation(record.key), {})
        for digest, seen in msgspec.convert(record.body["seen"], Counts, str_keys=True).items():
            counts[digest] = counts[digest] + seen if digest in counts else seen
    return total


def sweep(records: RecordStore, stored: Iterable[Stored]) -> int:
    """Remove what no rollout under way needs; how many records went."""
    kept = needed(stored)
    found = [record for record in records.list(KIND) if (record.key.split(":")[0], _generation(record.key)) not in kept]
    if found:
        with records.transaction() as transaction:
            for record in found:
                transaction.delete(KIND, record.key, expected=None)
    return len(found)


def needed(stored: Iterable[Stored]) -> set[tuple[str, int]]:
    """Of which deployments, and generations of each, the evidence is needed: of those under rollout, of all steps so far."""
    return {
        (each.deployment.name, generation)
        for each in stored
        if each.deployment.rollout is not None
        for generation in each.deployment.rollout.generations
    }


def _key(name: str, generation: int, host: str) -> str:
    # A name has no colon, and fixed width keeps generations in their order.
    return f"{name}:{generation:09d}:{host}"


def _generation(key: str) -> int:
    return int(key.split(":")[1])
