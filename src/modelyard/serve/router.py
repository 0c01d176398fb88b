"""Who answers: the TrafficPlan of one deployment as a choice per request.

Hides how weights become choices. Pure but for the random numbers it is given; it knows no model.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from itertools import accumulate, chain

from modelyard.events import GROUPS
from modelyard.types import Digest, TrafficPlan

DRAWN = 256
"""Requests for which a digest is drawn at a time."""


class Router:
    """Chooses a digest per request by the plan's weights; immutable.

    A value has a place that depends on it and on the deployment's name alone, so it gets the same digest in every process and on every host. The
    champion's places lie in front of the others': as a candidate's weight grows it keeps the values that it has.
    """

    __slots__ = ("_bounds", "_digests", "_draw", "_named", "only")

    def __init__(self, plan: TrafficPlan, draw: Callable[[], float] = random.random) -> None:
        first = champion(plan)
        self._digests = tuple(sorted(plan.weights, key=lambda digest: (digest != first, digest)))
        self._bounds = tuple(accumulate(plan.weights[digest] for digest in self._digests))
        self._draw = draw
        self._named = blake2b(plan.name.encode() + b"\0", digest_size=8)
        self.only: Digest | None = self._digests[0] if len(self._digests) == 1 else None
        """The digest that takes all traffic, where one does."""

    def pick(self, count: int) -> list[Digest]:
        """The digests for the next requests, each drawn for itself; many at once cost less."""
        if self.only is not None:
            return [self.only] * count
        digests, bounds, draw = self._digests, self._bounds, self._draw
        if len(digests) == 2:  # nearly every plan that draws, in half the time
            (first, second), bound = digests, bounds[0] / 100
            return [first if draw() < bound else second for _ in range(count)]
        return [digests[bisect_right(bounds, draw() * 100)] for _ in range(count)]

    def draws(self) -> Iterator[Digest]:
        """What `pick` gives, one by one and without end; no Python of ours runs for each."""
        return chain.from_iterable(iter(partial(self.pick, DRAWN), None))

    def place(self, value: bytes) -> tuple[Digest, int]:
        """The digest for every request with this value, and the value's group (`events.Callers`).

        The group is the hash's last byte, the digest is chosen by the first ones: so which version a group's callers have is drawn anew for each.
        """
        hashed = self._named.copy()
        hashed.update(value)
        placed = int.from_bytes(hashed.digest())
        return self._digests[bisect_right(self._bounds, (placed * 100) >> 64)], placed % GROUPS


def champion(plan: TrafficPlan) -> Digest:
    """The digest whose schema is the deployment's: the one that the plan names, else that of the largest weight, the first among equals."""
    return plan.champion or max(plan.weights, key=lambda digest: plan.weights[digest])
