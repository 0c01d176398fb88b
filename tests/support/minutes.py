"""Minutes of a small deployment for tests of detectors: a frame of three columns, counted in the bins of a reference of 5,000 rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.events import Failures
from modelyard.monitor.base import MINUTE_S, Evidence, Logged, Minute, Reference
from modelyard.monitor.profile import Binner, measure
from modelyard.types import Digest, Schema, TensorSpec

DIGEST = Digest("sha256:" + "a" * 64)
OTHER = Digest("sha256:" + "b" * 64)
BEGINS = 1_700_000_040
CITIES = ("bonn", "kiel", "ulm")
SCHEMA = Schema(
    inputs=(
        TensorSpec(name="age", datatype="FP64", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="city", datatype="BYTES", shape=(-1, 1), categories=CITIES, is_nullable=True),
        TensorSpec(name="hour", datatype="INT64", shape=(-1, 1)),
    ),
    outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),),
    layout="frame",
    task="regression",
)
Rows = dict[str, Any]


def draw(count: int, rng: np.random.Generator, *, hour: int | None = None) -> Rows:
    """Ordinary rows; `hour` is the same in all of them, unless it is None."""
    age = rng.normal(40, 10, (count, 1))
    city = np.array(CITIES, dtype=object)[rng.choice(3, size=(count, 1), p=(0.6, 0.3, 0.1))]
    hours = rng.integers(0, 24, (count, 1)) if hour is None else np.full((count, 1), hour)
    return {"age": age, "city": city, "hour": hours}


def reference(rows: Mapping[str, Any] | None = None, *, importance: Mapping[str, float] | None = None) -> Reference:
    """Of `rows` (by default 5,000 ordinary ones)."""
    found = measure(rows or draw(5000, np.random.default_rng(0)), SCHEMA)
    return Reference(digest=DIGEST, schema=SCHEMA, profile=found, importance=importance or {}, quality={})


def minute(known: Reference, place: int, rows: Rows, *, requests: int | None = None, refused: int = 0, digest: Digest = DIGEST) -> Minute:
    """Minute number `place` with these rows."""
    count = len(rows["age"])
    binner = Binner(known.profile)
    binner.add(rows, {})
    failures = {"schema_mismatch": Failures(requests=refused, seconds=0.0)} if refused else {}
    asked = count if requests is None else requests
    return Minute(BEGINS + place * MINUTE_S, 1, digest, asked, count, {}, failures, {}, binner.take())


def minutes(
    known: Reference, count: int, change: Callable[[int, Rows], Rows] | None = None, *, rows: int = 100, seed: int = 1, clocked: bool = False
) -> list[Minute]:
    """`count` minutes of ordinary rows, each changed by `change(place, rows)`; `clocked`: the hour goes by the clock."""
    rng = np.random.default_rng(seed)
    found = []
    for place in range(count):
        drawn = draw(rows, rng, hour=place // 60 % 24 if clocked else None)
        found.append(minute(known, place, change(place, drawn) if change else drawn))
    return found


def evidence(
    known: Reference, recent: Sequence[Minute], fresh: Sequence[Minute] | None = None, *, false_pages: float = 0.1, logged: Logged | None = None
) -> Evidence:
    """A turn right after the last minute."""
    now = (recent[-1].start if recent else BEGINS) + MINUTE_S + 5.0
    return Evidence("shop", known, tuple(recent if fresh is None else fresh), tuple(recent), None, false_pages, now, logged)
