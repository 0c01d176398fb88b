"""Whether two versions' answers to one question agree: the same label, or numbers that lie close beside how widely the champion's own spread.

Hides where the spread comes from (the quartiles of the champion's attested profile of outputs). Pure; any thread may ask. It must not know who
asked, nor what a disagreement leads to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from modelyard.monitor.profile import FeatureProfile, Profile
    from modelyard.types import Array, Schema

MARGIN = 0.05
"""Numbers agree within this share of the champion's interquartile range."""


class Agreement:
    """How answers are compared with those of a champion of `schema` whose outputs were profiled as `known`.

    Where there is a label it decides: a probability that moved without turning the answer disagrees with nobody. Else each number of a row must lie
    within its margin; of rows too wide to be profiled whole (an image) these are the profiled elements. Both missing agree.
    """

    def __init__(self, schema: Schema, known: Profile) -> None:
        names = {spec.name: spec.datatype for spec in schema.outputs}
        self._equal = tuple(name for name, datatype in names.items() if datatype in ("BYTES", "BOOL"))
        if schema.task == "classification" and "label" in names:
            self._equal, names = ("label",), {}
        margins: dict[str, list[tuple[int, float]]] = {}
        for feature in known.features:
            if feature.role == "output" and feature.kind == "number" and feature.source in names and feature.source not in self._equal:
                margins.setdefault(feature.source, []).append((feature.element, MARGIN * spread(feature)))
        self._within = tuple(
            (name, np.array([element for element, _ in each]), np.array([margin for _, margin in each])) for name, each in margins.items()
        )

    @property
    def is_known(self) -> bool:
        """Whether there is anything to compare: a label, or a profile of the numbers."""
        return bool(self._equal or self._within)

    def differ(self, ours: Mapping[str, Array], theirs: Mapping[str, Array], rows: int) -> Array:
        """Of each row whether the two answers differ."""
        found = np.zeros(rows, dtype=bool)
        for name in self._equal:
            one, other = ours[name], theirs[name]
            found |= (one != other).reshape(rows, -1).any(axis=1) if one.shape == other.shape else True
        for name, elements, margins in self._within:
            one, other = ours[name], theirs[name]
            if one.shape != other.shape or one.size < rows * (int(elements[-1]) + 1):
                found[:] = True
                continue
            a, b = (values.reshape(rows, -1)[:, elements].astype(np.float64) for values in (one, other))
            with np.errstate(invalid="ignore"):  # of infinities
                is_close = (np.abs(a - b) <= margins) | (a == b) | (np.isnan(a) & np.isnan(b))
            found |= ~is_close.all(axis=1)
        return found


def spread(feature: FeatureProfile) -> float:
    """The interquartile range of a profiled number, by its bins; where half of its values are one, the whole range, or else its size."""
    low, high = (_quantile(feature, share) for share in (0.25, 0.75))
    return high - low or feature.edges[-2:][0] - feature.edges[0] or abs(feature.centre) or 1.0


def _quantile(feature: FeatureProfile, share: float) -> float:
    """By the bins' counts, evenly spread within a bin unless each bin is one value; what lies outside all bins stands at their ends."""
    edges, counts = feature.edges, feature.counts
    is_separate = len(edges) < 2 or edges[-1] <= math.nextafter(edges[-2], math.inf)  # the largest value has a bin for itself
    wanted, seen = share * sum(counts), float(counts[0])
    if wanted <= seen:
        return edges[0]
    for low, high, count in zip(edges[:-1], edges[1:], counts[1:-1], strict=True):
        if count and wanted <= seen + count:
            return low if is_separate else low + (high - low) * (wanted - seen) / count
        seen += count
    return edges[-1]
