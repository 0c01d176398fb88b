"""Evidence on a mean, or an area, of which what was seen does not vary: two exact models, errors that are all alike, classes that are wholly apart.

Hides the betting. A variance of nothing says nothing about what has not been seen yet, so what counts here is how much a loss can be at most: between
none and `reach`, the distance of the farthest two among all truths and predictions of both versions. Then each loss is a share of a trial, and
evidence on shares is evidence on its mean, without any limit of many labels. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from modelyard.rollout.guards import evalues

NEGLIGIBLE = 0.001
"""Of the reach: losses that do not vary and are shown to be less on average pass any ratio that they do not fail, as a rate of errors does."""
_SHARES = 1 / (1 + np.exp(-np.linspace(-28.0, 28.0, 2241)))

Bound = Callable[[float], float]
"""From the champion's loss to the bound on the candidate's, both as shares of the reach; never falling."""


class Losses(NamedTuple):
    """The mean loss as a share of the reach, and of how many independent ones."""

    share: float
    trials: float


def above(mine: Losses, other: Losses | None, bound: Bound) -> float:
    """Evidence that the candidate's mean loss is above its bound, against: it is not. Without `other` the bound is what it gives for 0.

    As `evalues.exceeds`, over shares of the champion's that lie a fortieth of their odds apart, since not every bound is a line.
    """
    return _least(mine, other, bound)


def below(mine: Losses, other: Losses | None, bound: Bound) -> float:
    """Evidence that the candidate's mean loss is below its bound, against: it is not. `above` of what is not lost."""
    return _least(_rest(mine), None if other is None else _rest(other), lambda kept: 1 - bound(1 - kept))


def limits(mine: Losses, alpha: float) -> tuple[float, float]:
    """The shares that neither refutes, at all times at once."""
    return evalues.limits(mine.share * mine.trials, mine.trials, alpha)


def reach(values: Sequence[np.ndarray]) -> float:
    """How far the farthest two of all `values` lie apart; 1 where they are all the same."""
    some = [each for each in values if len(each)]
    found = float(max(each.max() for each in some) - min(each.min() for each in some)) if some else 0.0
    return found if found > 0 else 1.0


def _rest(losses: Losses) -> Losses:
    return Losses(1 - losses.share, losses.trials)


def _least(mine: Losses, other: Losses | None, bound: Bound) -> float:
    hits = mine.share * mine.trials
    if other is None:
        return float(evalues.above(hits, mine.trials, min(1.0, max(0.0, bound(0.0)))))
    bounds = np.array([bound(share) for share in _SHARES.tolist()])
    possible = bounds >= 0  # a share below none is no hypothesis
    if not possible.any():
        return 0.0
    shares, bounds = _SHARES[possible], np.minimum(bounds[possible], 1.0)
    product = evalues.above(hits, mine.trials, bounds) + evalues.hedged(evalues.below(other.share * other.trials, other.trials, shares))
    return float(product.min())
