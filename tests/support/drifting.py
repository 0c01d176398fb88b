"""References, minutes and evidence for tests of drift: counts drawn from the shares of a normal, cut at the bins of a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from modelyard.monitor import profile
from modelyard.monitor.base import Evidence, Minute, Reference
from modelyard.monitor.profile import Profile
from modelyard.types import Digest, Schema, TensorSpec

DIGEST = Digest("sha256:" + "1" * 64)
OTHER = Digest("sha256:" + "2" * 64)
MONDAY = 1_767_571_200  # 2026-01-05 00:00 UTC


def schema(names: Sequence[str]) -> Schema:
    inputs = tuple(TensorSpec(name=name, datatype="FP64", shape=(-1, 1), is_nullable=True) for name in names)
    return Schema(inputs=inputs, outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),), layout="frame", task="regression")


def normal_reference(
    names: Sequence[str] = ("a", "b"),
    *,
    rows: int = 10_000,
    seed: int = 0,
    importance: Mapping[str, float] | None = None,
    digest: Digest = DIGEST,
    swings: Mapping[str, float] | None = None,
) -> Reference:
    """Inputs of standard normals, and no output; those with `swings` go up and down by so much."""
    rng = np.random.default_rng(seed)
    made = schema(names)
    columns = {name: rng.normal(size=(rows, 1)) for name in names}
    for name, swing in (swings or {}).items():
        columns[name] += swing * np.sin(rng.uniform(0, 2 * np.pi, size=(rows, 1)))
    known = profile.measure(columns, made)
    return Reference(digest=digest, schema=made, profile=known, importance=importance or {}, quality={})


def cell_shares(known: Profile, *, mean: float | np.ndarray = 0.0, deviation: float = 1.0) -> np.ndarray:
    """[feature, cell] of features that are all of one number of bins: the chance of each cell but missing, under a normal."""
    edges = np.array([feature.edges for feature in known.features])
    below = ndtr((edges - np.reshape(mean, (-1, 1))) / deviation)
    ends = np.zeros((len(edges), 1))
    return np.diff(np.concatenate((ends, below, ends + 1), axis=1), axis=1)


def vector(known: Profile, counts: np.ndarray, missing: np.ndarray | int = 0) -> np.ndarray:
    """The vector of a profile with these counts [feature, cell]; its moments are left at 0."""
    found = np.zeros(profile.size(known), dtype=np.int64)
    gone = np.broadcast_to(missing, (len(counts),))
    for span, cells, lost in zip(profile.spans(known), counts, gone, strict=True):
        found[span] = [*cells, lost]
    found[0] = counts[0].sum() + gone[0]
    return found


def minute(at: int, counts: np.ndarray | None, *, digest: Digest = DIGEST) -> Minute:
    rows = 0 if counts is None else int(counts[0])
    return Minute(MONDAY + 60 * at, 1, digest, rows, rows, {}, {}, {}, counts)


def drawn(
    rng: np.random.Generator, known: Profile, places: Sequence[int], *, rows: int, mean: float | np.ndarray = 0.0, deviation: float = 1.0
) -> list[Minute]:
    """Minutes at these places from `MONDAY`, all rows from one normal per feature."""
    shares = cell_shares(known, mean=mean, deviation=deviation)
    return [minute(at, vector(known, rng.multinomial(rows, shares))) for at in places]


def evidence(
    reference: Reference, fresh: Sequence[Minute], *, recent: Sequence[Minute] | None = None, false_pages: float = 1.0, **more: object
) -> Evidence:
    seen = fresh if recent is None else recent
    now = float(seen[-1].start + 60) if seen else float(MONDAY)
    given = Evidence(name="m", reference=reference, fresh=fresh, recent=seen, labelled=None, false_pages=false_pages, now=now)
    return given._replace(**more)
