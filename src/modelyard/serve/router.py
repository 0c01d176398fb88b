"""Who answers: the TrafficPlan of one deployment as a choice per request.

Hides how weights become choices. Pure but for the random numbers it is given; it knows no model.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

from modelyard.types import Digest, TrafficPlan


class Router:
    """Draws a digest per request by the plan's weights; immutable."""

    __slots__ = ("_bounds", "_digests", "_draw", "only")

    def __init__(self, plan: TrafficPlan, draw: Callable[[], float] = random.random) -> None:
        self._digests = tuple(plan.weights)
        self._bounds = tuple(accumulate(plan.weights.values()))
        self._draw = draw
        self.only: Digest | None = self._digests[0] if len(self._digests) == 1 else None
        """The digest that takes all traffic, where one does."""

    def pick(self) -> Digest:
        """The digest for the next request."""
        if self.only is not None:
            return self.only
        return self._digests[bisect_right(self._bounds, self._draw() * 100)]


def champion(plan: TrafficPlan) -> Digest:
    """The digest whose schema is the deployment's: the one that the plan names, else that of the largest weight, the first among equals."""
    return plan.champion or max(plan.weights, key=lambda digest: plan.weights[digest])
