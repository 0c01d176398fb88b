"""How often a score of the model comes true: an isotonic curve over the reference.

Hides the pooling. From step to step the curve is a straight line, beyond the last it is level; it never reaches 0 or 1.

Source: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates" (KDD 2002).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """`shares` that came true at rising `scores`."""

    scores: tuple[float, ...]
    shares: tuple[float, ...]

    def __call__(self, score: Array) -> Array:
        """The share at each score; a missing score has that of all."""
        found = np.interp(score, self.scores, self.shares)
        return np.where(np.isnan(score), np.mean(self.shares), found)


def fit(score: Array, truth: Array) -> Curve:
    """The curve of scores (no NaN) whose `truth` is 0 or 1, at least one row."""
    distinct, inverse, rows = np.unique(score, return_inverse=True, return_counts=True)
    hits = np.bincount(inverse.reshape(-1), truth.astype(np.float64))
    weights = rows.astype(np.float64)
    shares = pool(hits / weights, weights)
    starts = np.flatnonzero(np.append(True, np.diff(shares) > 0))
    ends = np.append(starts[1:], len(shares)) - 1
    block = np.add.reduceat(weights, starts)
    least = 0.5 / (block + 1.0)
    level = np.clip(shares[starts], least, 1.0 - least)
    knots = np.unique(np.stack([starts, ends], axis=1).reshape(-1), return_index=True)
    scores, values = distinct[knots[0]], np.repeat(level, 2)[knots[1]]
    return Curve(scores=tuple(scores.tolist()), shares=_rounded(values))


def pool(values: Array, weights: Array) -> Array:
    """The nearest rising sequence in weighted squares: neighbours that fall are pooled (Ayer et al. 1955)."""
    level: list[float] = []
    weight: list[float] = []
    size: list[int] = []
    for value, heavy in zip(values.tolist(), weights.tolist(), strict=True):
        level.append(value)
        weight.append(heavy)
        size.append(1)
        while len(level) > 1 and level[-2] >= level[-1]:
            last, light, few = level.pop(), weight.pop(), size.pop()
            level[-1] = (level[-1] * weight[-1] + last * light) / (weight[-1] + light)
            weight[-1] += light
            size[-1] += few
    return np.repeat(level, size)


def _rounded(values: Array) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values.tolist())
