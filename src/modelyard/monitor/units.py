"""Whether a number now comes in another unit: by which factor and offset the reference would give just what was seen.

Hides the list of units (only such as no population reaches by itself: an inch more or less is not one) and how the reference is carried through each
of them: its bins as points, with its exact mean and deviation, clipped as the profile's sums are. Pure. A drift that happens to look like a unit is
one for all that a profile can tell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor.profile import FeatureProfile

if TYPE_CHECKING:
    from modelyard.types import Array

LEAST_ROWS = 50
_POINTS = 32
_CLIP = float(1 << 20)  # as in monitor.profile
_CLIPPED = 0.95
_FAR = 0.5
_BETTER = 3.0
_SHARES = (0.75, 0.5, 0.3, 0.2)
_TOLD_IN_PART = 10.0
"""Where a part of the rows is that many times smaller, it looks like a default near 0."""
_PART = 0.05
"""What a share of the rows costs: more can be explained by it."""


class Unit(NamedTuple):
    """A value x became `factor` · x + `offset`. Where shifts of that size are common for other reasons too, it must fit within `tolerance`."""

    said: str
    factor: float
    offset: float = 0.0
    tolerance: float = 0.08


_WIDE = 0.25
UNITS = (
    Unit("10 times as large", 10.0, tolerance=_WIDE),
    Unit("a tenth", 0.1, tolerance=_WIDE),
    Unit("100 times as large", 100.0, tolerance=_WIDE),
    Unit("a hundredth", 0.01, tolerance=_WIDE),
    Unit("1,000 times as large", 1000.0, tolerance=_WIDE),
    Unit("a thousandth", 0.001, tolerance=_WIDE),
    Unit("60 times as large, as minutes are for hours", 60.0, tolerance=_WIDE),
    Unit("a sixtieth, as hours are for minutes", 1 / 60, tolerance=_WIDE),
    Unit("3,600 times as large, as seconds are for hours", 3600.0, tolerance=_WIDE),
    Unit("a 3,600th, as hours are for seconds", 1 / 3600, tolerance=_WIDE),
    Unit("of the other sign", -1.0),
    Unit("as °F would be for °C", 1.8, 32.0),
    Unit("as °C would be for °F", 1 / 1.8, -32 / 1.8),
    Unit("as kelvins would be for °C", 1.0, 273.15),
    Unit("as °C would be for kelvins", 1.0, -273.15),
)


def unit_of(old: FeatureProfile, new: FeatureProfile) -> tuple[Unit, float] | None:
    """The unit that explains what was seen in `new` of a number that was `old`, and the share of the rows that have it; None where nothing moved
    far, or no unit explains it.

    It must bring the reference within its tolerance, widened by the error at the actual number of rows, and three times closer than it is as it
    stands. Far beyond the reference (16 times its range and more) sums are clipped, so that there the factor is the least that fits.
    """
    if old.kind != "number" or min(old.present, new.present) < LEAST_ROWS or old.deviation <= 0:
        return None
    seen, usual = (_Look(np.array(each.counts, dtype=np.float64) / each.present, *_sums(each)) for each in (new, old))
    stands = seen.distance(usual)
    noise = 2 / math.sqrt(min(old.present, new.present))
    if stands < _FAR + noise:
        return None
    points, weights = _points(old)
    best, found = math.inf, (UNITS[0], 1.0)
    for unit in UNITS:
        whole = _look(old, unit.factor * points + unit.offset, weights)
        for share in (1.0, *_SHARES) if unit.factor >= _TOLD_IN_PART else (1.0,):
            far = seen.distance(usual.mixed(whole, share)) + (_PART if share < 1.0 else 0.0)
            if far - unit.tolerance < best - found[0].tolerance or math.isinf(best):
                best, found = far, (unit, share)
    unit = found[0]
    return found if best <= unit.tolerance + noise and best * _BETTER <= stands else None


class _Look(NamedTuple):
    """Shares by cell, and mean and deviation in quanta, as a profile has them."""

    shares: Array
    mean: float
    deviation: float

    def mixed(self, other: _Look, share: float) -> _Look:
        """Of rows of which so many are as the other's."""
        if share == 1.0:
            return other
        mean = (1 - share) * self.mean + share * other.mean
        square = (1 - share) * (self.deviation**2 + self.mean**2) + share * (other.deviation**2 + other.mean**2)
        return _Look((1 - share) * self.shares + share * other.shares, mean, math.sqrt(max(0.0, square - mean**2)))

    def distance(self, other: _Look) -> float:
        """The largest of: rows in other cells, means apart in deviations, and the logarithm of the deviations' ratio."""
        apart = abs(self.mean - other.mean) / max(self.deviation, other.deviation, 1.0)
        is_clipped = min(abs(self.mean), abs(other.mean)) > _CLIPPED * _CLIP  # of what lies so far away, deviations tell nothing
        wider = 0.0 if is_clipped else abs(math.log((self.deviation + 1) / (other.deviation + 1)))
        return max(float(np.abs(self.shares - other.shares).sum()) / 2, apart, wider)


def _sums(feature: FeatureProfile) -> tuple[float, float]:
    mean = feature.total / feature.present
    return mean, math.sqrt(max(0.0, feature.squares / feature.present - mean**2))


def _points(feature: FeatureProfile) -> tuple[Array, Array]:
    """The reference's values as weighted points: those of a bin evenly spread, all of them moved and stretched to the exact mean and deviation."""
    edges = np.array(feature.edges)
    counts = np.array(feature.counts[1:-1], dtype=np.float64)
    if len(edges) < 2 or edges[-1] <= math.nextafter(edges[-2], math.inf):  # each bin is one value
        values = edges[: max(1, len(edges) - 1)]
        counts = counts if len(counts) else np.ones(1)
        return values, counts / counts.sum()
    steps = (np.arange(_POINTS) + 0.5) / _POINTS
    points = (edges[:-1, None] + np.diff(edges)[:, None] * steps).ravel()
    weights = np.repeat(counts / _POINTS, _POINTS) / counts.sum()
    mean = float(points @ weights)
    deviation = math.sqrt(float((points - mean) ** 2 @ weights))
    stretch = feature.deviation / deviation if deviation > 0 else 1.0
    return feature.mean + (points - mean) * stretch, weights


def _look(feature: FeatureProfile, points: Array, weights: Array) -> _Look:
    """How a profile with these bins would see the points."""
    cells = np.searchsorted(np.array(feature.edges), points, side="right")
    shares = np.bincount(cells, weights, minlength=len(feature.edges) + 1)
    with np.errstate(over="ignore"):
        quanta = np.clip(np.rint((points - feature.centre) * math.ldexp(1.0, -feature.exponent)), -_CLIP, _CLIP)
    mean = float(quanta @ weights)
    return _Look(shares, mean, math.sqrt(float((quanta - mean) ** 2 @ weights)))
