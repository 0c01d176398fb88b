"""Observations of many features, made up: one minute of a replica, and homes that have taken in a month of them.

Hides how a month is made in seconds: minutes are drawn from a few dozen that were drawn once. It measures nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from modelyard.events import Rows, Segment
    from modelyard.monitor.profile import Profile
    from modelyard.monitor.windows import Windows

NAME, VERSION = "bench", 1
DIGEST: Any = "sha256:" + "0" * 64
DAYS, MINUTES = 30, 1440
START = 1_800_000_000 - 1_800_000_000 % 86400
"""When the month begins: a midnight."""
KINDS = 48


@contextmanager
def one_core() -> Iterator[None]:
    """Let this process run on one core while the block does."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@cache
def reference(features: int) -> Profile:
    """The profile of 10,000 rows of `features` numbers."""
    from modelyard.monitor.profile import measure
    from modelyard.types import Schema, TensorSpec

    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, features)),), outputs=(), layout="array", task="other")
    return measure({"X": np.random.default_rng(0).normal(size=(10_000, features))}, schema)


@cache
def counted(features: int, rows: int) -> tuple[bytes, ...]:
    """The packed counts of `KINDS` blocks of `rows` rows."""
    from modelyard.monitor.profile import Binner, pack

    binner, draw = Binner(reference(features)), np.random.default_rng(1)
    blobs = []
    for _ in range(KINDS):
        binner.add({"X": draw.normal(size=(rows, features))}, {})
        blobs.append(pack(binner.take()))
    return tuple(blobs)


def segment(at: float, *, features: int, rows: int, kind: int = 0, predictions: Rows | None = None) -> Segment:
    """What one worker, or one replica's minute, says at its end `at` of `rows` requests of a row each."""
    from modelyard.events import Failures, Part, ProfileCounts, Segment

    part = Part(
        name=NAME,
        version=VERSION,
        digest=DIGEST,
        requests=rows,
        rows=rows,
        failures={"schema_mismatch": Failures(requests=1, seconds=0.001)},
        latencies=dict.fromkeys(range(300, 312), rows // 12 + 1),
        profiles=(ProfileCounts(share=1.0, counts=counted(features, rows)[kind % KINDS]),),
        predictions=predictions,
    )
    return Segment(slot=0, pid=1, started_at=at - 1.0, ended_at=at, parts=(part,))


def month(windows: Windows, *, features: int, rows: int) -> int:
    """Take in a month of minutes of `rows` rows, hour by hour as time passes, compacted as a home would; how many rows that were."""
    from modelyard.config import Settings
    from modelyard.monitor.compaction import ages, compact

    kept, total = ages(Settings()), 0
    for hour in range(DAYS * 24):
        first = START + hour * 3600
        named = {
            f"0-1-{hour * 60 + minute}.segment": segment(first + 60 * minute + 59.0, features=features, rows=rows, kind=hour * 60 + minute)
            for minute in range(60)
        }
        windows.take(named, day_of=str)
        total += 60 * rows
        while compact(windows, now=first + 3600.0, kept=kept):
            pass
    return total


def size_bytes(path: Path) -> int:
    """Of an SQLite file and what lies beside it."""
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
