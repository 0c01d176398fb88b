"""The alarm budget: how often a month somebody may be woken for nothing, divided among everything that may wake them, and what is left of it.

Hides how shares follow from importance and how a share becomes a time between false pages. Pure. It must not know what any detector looks at.

Law: the shares of `split` sum to the whole, so that detectors which each keep to theirs together keep to the budget, however they hang together
(expectations add up; no independence is asked). What has no weight has no share and can never page. Held by `tests/unit/monitor/test_budget.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard.monitor.profile import FeatureProfile

MONTH_S = 30.4375 * 86_400
OUTPUT_WEIGHT = 2.0
"""Tests of a model's outputs alone beat all tests of its inputs (Rabanser, Günnemann and Lipton, "Failing Loudly", 2019), so each counts double."""

K = TypeVar("K")


class Account(NamedTuple):
    """Pages of the last month beside the budget. `left` is never negative; `chance` is that of so many pages or more with nothing wrong."""

    allowed: float
    spent: int
    left: float
    chance: float


def split(total: float, weights: Mapping[K, float]) -> dict[K, float]:
    """`total` in proportion to `weights`; negative or unknown (NaN) weights count as none. All zero where nothing has weight."""
    sane = {key: weight if math.isfinite(weight) and weight > 0 else 0.0 for key, weight in weights.items()}
    whole = math.fsum(sane.values())
    return {key: total * (weight / whole) if whole else 0.0 for key, weight in sane.items()}


def shares(total: float, needs: Mapping[K, float | None]) -> dict[K, float]:
    """`total` among those that page: each what it needs, where that is known and no more than its equal part; the others share the rest alike."""
    equal = total / len(needs) if needs else 0.0
    own = {key: min(need, equal) for key, need in needs.items() if need is not None}
    rest = (total - math.fsum(own.values())) / max(1, len(needs) - len(own))
    return {key: own.get(key, rest) for key in needs}


def stream_weights(features: Sequence[FeatureProfile], importance: Mapping[str, float]) -> list[float]:
    """How much of a budget each input and output deserves, in the order of `features`.

    An input weighs as its importance does beside the mean of those that have any (unknown importance: all alike; not named: none), an output
    `OUTPUT_WEIGHT` such inputs.
    """
    inputs = [feature for feature in features if feature.role == "input"]
    known = {feature.name: max(0.0, importance.get(feature.name, 0.0)) for feature in inputs} if importance else {}
    used = [weight for weight in known.values() if weight > 0]
    mean = math.fsum(used) / len(used) if used else 1.0
    return [OUTPUT_WEIGHT if feature.role == "output" else known.get(feature.name, 0.0) / mean if importance else 1.0 for feature in features]


def blocks_between(false_pages: float, *, block_s: float = 60.0) -> float:
    """How many blocks must lie between two false pages on average, that there be `false_pages` a month; infinite for none."""
    return MONTH_S / block_s / false_pages if false_pages > 0 else math.inf


def account(pages: Iterable[float], *, allowed: float, now: float) -> Account:
    """Of the times of all pages, those of the last month. Leave out the ones that somebody has called true: they were not spent."""
    spent = sum(now - MONTH_S < at <= now for at in pages)
    return Account(allowed=allowed, spent=spent, left=max(0.0, allowed - spent), chance=_at_least(spent, allowed))


def _at_least(count: int, mean: float) -> float:
    """The chance that Poisson with `mean` is `count` or more."""
    term = below = math.exp(-mean)
    if not count:
        return 1.0
    for step in range(1, count):
        term *= mean / step
        below += term
    return max(0.0, 1.0 - below)
