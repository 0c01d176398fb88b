"""Evidence for guards, drawn at random or written down."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from modelyard.events import OUTPUT_GROUPS, Callers, Latencies
from modelyard.monitor.evidence import Blocks, block
from modelyard.rollout.guards import Stratum


class Mirrored(NamedTuple):
    """As `events.Mirror`."""

    sent: int = 0
    failed: int = 0
    rows: int = 0
    disagreed: int = 0
    latencies: dict[int, int] = {}
    outputs: dict[str, tuple[int, ...]] = {}


class Counted(NamedTuple):
    """As `monitor.evidence.Seen`."""

    requests: int = 0
    errors: int = 0
    latencies: dict[int, int] = {}
    outputs: dict[str, tuple[int, ...]] = {}
    mirror: Mirrored = Mirrored()
    blocks: Blocks = Blocks()
    callers: Callers = Callers()


class Known(NamedTuple):
    """As `monitor.evidence.Labelled`."""

    truth: Any
    predicted: Any
    score: Any = ()
    groups: Any = ()


def buckets(seconds: Any) -> dict[int, int]:
    found = Latencies()
    found.add(list(np.atleast_1d(seconds)))
    return found.buckets()


def traffic(rng: np.random.Generator, requests: int, *, errors: float = 0.005, median_s: float = 0.01) -> Counted:
    """Requests that fail at a rate, with lognormal latencies of deviation 0.5."""
    failed = int(rng.binomial(requests, errors))
    return Counted(requests, failed, buckets(median_s * np.exp(0.5 * rng.normal(size=requests - failed))))


def seconds(*samples: Any) -> Counted:
    """Requests that were all answered: the latencies of one second after the other."""
    each = [buckets(sample) for sample in samples]
    total: dict[int, int] = {}
    for counts in each:
        for bucket, count in counts.items():
            total[bucket] = total.get(bucket, 0) + count
    return Counted(sum(total.values()), 0, total, blocks=reduce(add, map(block, each)))


def sticky(counts: Any) -> Counted:
    """Answers by [group of callers, bin], the missing ones last, of callers who keep to a version."""
    table = np.zeros((OUTPUT_GROUPS, np.shape(counts)[1]), dtype=int)
    table[: len(counts)] = counts
    asked = {group: int(rows) for group, rows in enumerate(table.sum(axis=1)) if rows}
    score = {"score": tuple(table.sum(axis=0).tolist())}
    return Counted(requests=int(table.sum()), outputs=score, callers=Callers(asked=asked, outputs={"score": tuple(table.ravel().tolist())}))


def stratum(candidate: Counted, champion: Counted | None = None, **more: Any) -> Stratum:
    return Stratum(champion or Counted(), candidate, **more)
