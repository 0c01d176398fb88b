"""The minutes of one version as one matrix, and the minute in which a feature's counts changed.

Hides where a feature stands in the vectors of counts, and which minutes fit the reference at all: those of another version, or of other bins, are
counted and left out. Pure. It must not judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor import profile
from modelyard.monitor.base import Minute, Reference
from modelyard.monitor.profile import Profile, chi_square_tail

if TYPE_CHECKING:
    from modelyard.types import Array

CERTAIN = 0.01
"""A change within the window is told only when chance alone makes so sharp a one in fewer than one of a hundred windows."""


class Onset(NamedTuple):
    """Minutes `first` to before `last` of a series are the bad ones. `is_seen`: the change lies within the window, it was not there at its start."""

    first: int
    last: int
    is_seen: bool


class Series:
    """Minutes of `reference.digest` that have rows, oldest first. Immutable.

    `counts` is [minutes, width of the vector]; `starts`, `ends`, `requests` and `rows` are of each. `foreign` minutes have other bins than the
    reference, or what no count can be.
    """

    def __init__(self, reference: Reference, minutes: Sequence[Minute]) -> None:
        self.reference = reference.profile
        self._spans = profile.spans(reference.profile)
        width = profile.size(reference.profile)
        ours = sorted((each for each in minutes if each.digest == reference.digest and each.counts is not None), key=lambda each: each.start)
        cells = np.concatenate([np.arange(width)[span] for span in self._spans]) if self._spans else np.zeros(0, dtype=np.int64)
        fitting = [(each, each.counts) for each in ours if each.counts is not None and len(each.counts) == width and _are_counts(each.counts[cells])]
        self.foreign = len(ours) - len(fitting)
        kept = [(each, counts) for each, counts in fitting if counts[0] > 0]
        self.counts: Array = np.stack([counts for _, counts in kept]) if kept else np.zeros((0, width), dtype=np.int64)
        self.starts: Array = np.array([each.start for each, _ in kept], dtype=np.int64)
        self.ends: Array = np.array([each.start + each.span_s for each, _ in kept], dtype=np.int64)
        self.requests: Array = np.array([each.requests for each, _ in kept], dtype=np.int64)
        self.rows: Array = self.counts[:, 0]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def window(self) -> tuple[float, float]:
        """From the start of the first minute to the end of the last. There is one at least."""
        return float(self.starts[0]), float(self.ends[-1])

    def cells(self, place: int) -> Array:
        """[minutes, cells + 1] of the feature at `place` in the reference: its counts, missing values last."""
        return self.counts[:, self._spans[place]]

    def since(self, first: int, last: int | None = None) -> Profile:
        """The profile of minutes `first` to before `last` (None: all that follow)."""
        return profile.filled(self.reference, self.counts[first:last].sum(axis=0))

    def onset(self, place: int) -> Onset:
        """When the feature at `place` left the reference."""
        feature = self.reference.features[place]
        return onset(np.array([*feature.counts, feature.missing], dtype=np.float64), self.cells(place).astype(np.float64))


def _are_counts(cells: Array) -> bool:
    """Below 0 is nothing that was counted."""
    return not len(cells) or int(cells.min()) >= 0


def onset(reference: Array, minutes: Array) -> Onset:
    """The minutes in which counts by cell [minutes, cells] were furthest from those of `reference` [cells]: the sharpest split in two by a G-test,
    its worse side. A split after which all is well again is split once more before it.

    Of a slow change it is the middle. Bad from the first minute on where no split is sharp.
    """
    used = minutes.sum(axis=0) > 0
    minutes, known = minutes[:, used], reference[used]
    count, cells = minutes.shape
    if count < 2 or cells < 2:
        return Onset(0, count, is_seen=False)
    before = np.cumsum(minutes, axis=0)[:-1]
    total = minutes.sum(axis=0)
    gains = _entropy(before) + _entropy(total - before) - _entropy(total)
    split = int(np.argmax(gains)) + 1
    if chi_square_tail(2 * float(gains[split - 1]), cells - 1) * (count - 1) > CERTAIN:
        return Onset(0, count, is_seen=False)
    if _distance(known, total - before[split - 1]) >= _distance(known, before[split - 1]):
        return Onset(split, count, is_seen=True)
    earlier = onset(known, minutes[:split])
    return Onset(earlier.first, split, earlier.is_seen)


def _entropy(counts: Array) -> Array:
    """The sum of n log(n / N) over the last axis."""
    totals = counts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(counts > 0, counts * np.log(counts / totals), 0.0)
    return np.asarray(each.sum(axis=-1))


def _distance(reference: Array, counts: Array) -> float:
    """How far shares lie from those of the reference: the divergence, each cell with half a row more."""
    p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (reference, counts))
    return float((q * np.log(q / p)).sum())
