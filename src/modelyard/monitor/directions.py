"""In which directions a feature's distribution can move: scores of its bins, each with mean 0 and deviation 1 in the reference.

Hides how bins of numbers, categories and missing values become one matrix, and which scores a feature has: its place (up, down), its spread (wider,
narrower), its missing values, and values that lie outside what the reference knew. Pure. It must not judge.

A distribution at distance d from the reference (Pearson's chi: the root of the sum of (q - p)² / p) moves the mean of every such score by d at most
(Cauchy and Schwarz), and a normal shift of d deviations lies at distance d, for small d: so one number says for all of them what is too small to
matter. Held by `tests/unit/monitor/test_directions.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor import profile

if TYPE_CHECKING:
    from modelyard.monitor.profile import FeatureProfile, Profile
    from modelyard.types import Array

NAMES = ("up", "down", "wider", "narrower", "missing", "outside")
UP, DOWN, WIDER, NARROWER, MISSING, OUTSIDE = range(len(NAMES))
_FARTHEST = 2.25
"""The place of what lies outside all bins, in deviations: beyond the middle of the outermost tenth (1.75), yet so that no few rows decide alone."""


class Directions(NamedTuple):
    """Of each feature (the first axis): what its cells are and how they are scored. Cells are its bins or categories, then missing; short rows are
    padded.

    `places` are the cells' places in the vector of the profile, one beyond its end for padding; `hidden` the features that count missing values only,
    whose first cell is what is present. `shares` are the reference's, of `rows` rows, smoothed so that none is 0 but padding. `scores`
    [feature, direction, cell] are 0 where a feature `has` no such direction. `size` is the vector's length.
    """

    features: tuple[FeatureProfile, ...]
    places: Array
    hidden: Array
    cells: Array
    rows: Array
    shares: Array
    scores: Array
    has: Array
    size: int

    def gather(self, counts: Array) -> Array:
        """The vector of a profile as [feature, cell]."""
        found: Array = np.append(counts, 0)[self.places]
        found[self.hidden, 0] = counts[0] - found[self.hidden, 1]
        return found


def directions(reference: Profile) -> Directions:
    """Of all features of a reference, in its order."""
    spans = profile.spans(reference)
    size = profile.size(reference)
    features = reference.features
    widest = max((max(2, span.stop - span.start) for span in spans), default=2)
    places = np.full((len(features), widest), size)
    shares = np.zeros((len(features), widest))
    scores = np.zeros((len(features), len(NAMES), widest))
    cells = np.zeros(len(features), dtype=np.int64)
    for at, (feature, span) in enumerate(zip(features, spans, strict=True)):
        counts = np.array([*feature.counts, feature.missing], dtype=np.float64)
        if feature.kind == "missing":
            counts = np.array([feature.present, feature.missing], dtype=np.float64)
            places[at, 1] = span.start
        else:
            places[at, : len(counts)] = np.arange(span.start, span.stop)
        cells[at] = len(counts)
        shares[at, : len(counts)] = (counts + 0.5) / (feature.rows + 0.5 * len(counts))
        scores[at, :, : len(counts)] = _scores(feature, shares[at, : len(counts)])
    return Directions(
        features=features,
        places=places,
        hidden=np.array([at for at, feature in enumerate(features) if feature.kind == "missing"], dtype=np.int64),
        cells=cells,
        rows=np.array([feature.rows for feature in features], dtype=np.int64),
        shares=shares,
        scores=scores,
        has=np.abs(scores).max(axis=2, initial=0.0) > 0,
        size=size,
    )


def _scores(feature: FeatureProfile, shares: Array) -> Array:
    """[direction, cell] of one feature; the last cell is missing."""
    found = np.zeros((len(NAMES), len(shares)))
    is_missing = np.arange(len(shares)) == len(shares) - 1
    found[MISSING] = _standard(is_missing.astype(np.float64), shares)
    if feature.kind == "number":
        place = _normal(shares[:-1] / shares[:-1].sum())
        found[UP, :-1] = _standard(place, shares[:-1])
        found[WIDER, :-1] = _standard(place**2, shares[:-1])
        found[DOWN], found[NARROWER] = -found[UP], -found[WIDER]
        is_outside = (np.arange(len(shares)) == 0) | (np.arange(len(shares)) == len(shares) - 2)
        found[OUTSIDE] = _standard(is_outside.astype(np.float64), shares)
    elif feature.kind == "category" and feature.is_complete:
        found[OUTSIDE] = _standard((np.arange(len(shares)) == len(shares) - 2).astype(np.float64), shares)
    return found


def _normal(shares: Array) -> Array:
    """The mean of each part of a standard normal that is cut, in order, into parts of these shares."""
    from scipy.special import ndtri

    cuts = ndtri(np.clip(np.concatenate(([0.0], np.cumsum(shares)[:-1], [1.0])), 0.0, 1.0))
    heights = np.exp(-(cuts**2) / 2) / np.sqrt(2 * np.pi)
    found: Array = np.clip((heights[:-1] - heights[1:]) / shares, -_FARTHEST, _FARTHEST)
    return found


def _standard(scores: Array, shares: Array) -> Array:
    """With mean 0 and, over all cells (what is left out counts as the mean), deviation 1; 0 where all are alike."""
    centred: Array = scores - scores @ shares / shares.sum()
    deviation = np.sqrt(shares @ centred**2)
    return centred / deviation if deviation > 1e-9 else np.zeros_like(centred)
