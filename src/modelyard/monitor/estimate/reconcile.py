"""Estimates beside what came true: how far they were off lately, and how much of that to take off the next one.

Hides the weighing. An error that the windows with labels do not bear out is not corrected: of their mean only what exceeds its own chance is
(positive-part James and Stein 1961). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LEAST_WINDOWS = 3
LEAST_LABELS = 30
"""A window with fewer labels does not count: its figure is mostly chance."""


class Pair(NamedTuple):
    """One figure of one window: estimated, and come true on so many `labels`, each with its variance."""

    estimated: float
    realised: float
    labels: int
    variance: float
    """Of their difference, were the estimate right: the chance in the truths and what the estimate itself may be off."""


class Reconciled(NamedTuple):
    """Over `windows` with labels: the mean of come true less estimated, its standard error, and the share of it that is to be corrected."""

    windows: int
    bias: float
    error: float
    weight: float

    @property
    def correction(self) -> float:
        """What is to be added to the next estimate."""
        return self.weight * self.bias

    @property
    def variance(self) -> float:
        """What the correction adds to the estimate's variance."""
        return self.weight**2 * self.error**2


NONE = Reconciled(0, 0.0, 0.0, 0.0)


def reconcile(pairs: Sequence[Pair]) -> Reconciled:
    """How far the estimates of these windows were off; nothing is corrected by fewer than `LEAST_WINDOWS`.

    Windows are weighed by their certainty. Where they differ among themselves by more than chance, the mean's error says so.
    """
    known = [each for each in pairs if each.labels >= LEAST_LABELS and 0 < each.variance < math.inf and math.isfinite(each.realised - each.estimated)]
    if not known:
        return NONE
    weights = [1.0 / each.variance for each in known]
    whole = math.fsum(weights)
    bias = math.fsum(weight * (each.realised - each.estimated) for weight, each in zip(weights, known, strict=True)) / whole
    spread = math.fsum(weight * (each.realised - each.estimated - bias) ** 2 for weight, each in zip(weights, known, strict=True))
    excess = max(1.0, spread / (len(known) - 1)) if len(known) > 1 else 1.0
    error = math.sqrt(excess / whole)
    weight = max(0.0, 1.0 - error**2 / bias**2) if bias and len(known) >= LEAST_WINDOWS else 0.0
    return Reconciled(len(known), bias, error, weight)
