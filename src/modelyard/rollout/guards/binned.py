"""Outputs by their bins, in each step of a rollout: how often those of candidate and champion fall into some sets of bins, and what that says.

Hides that callers count where they keep to a version, and how steps are put together. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.rollout.guards import callers, evalues

if TYPE_CHECKING:
    from modelyard.rollout.guards.base import Stratum
    from modelyard.types import Array


class Hits(NamedTuple):
    """Of one version in one step: requests in each set and all of them, and by what callers who are alike divide both."""

    hits: Array
    trials: Array | float
    by: callers.OnSets


class Step(NamedTuple):
    """Both versions in one step; `is_shared`: callers keep to a version, and so steps share them."""

    counts: evalues.Two
    mine: Array
    other: Array
    is_shared: bool

    def said(self, times: float = 1.0) -> evalues.Two:
        """The counts by what they say, were there so many times as many: as if each request were its own caller's."""
        hits, trials, other_hits, other_trials = (times * np.asarray(each) for each in self.counts)
        return evalues.Two(hits / self.mine, trials / self.mine, other_hits / self.other, other_trials / self.other)


def worth(steps: Sequence[Step]) -> tuple[float, float] | None:
    """As how many requests of different callers those of candidate and champion count, of the set that says least; None where each counts."""
    said = [each.said() for each in steps]
    found = float(sum(np.min(two.trials) for two in said)), float(sum(np.min(two.other_trials) for two in said))
    return found if any(each.is_shared for each in steps) else None


def answers(stratum: Stratum) -> tuple[Mapping[str, Sequence[int]], int]:
    """The candidate's outputs, and how many requests they answered; of a shadow those of mirrored ones."""
    seen, mirror = stratum.candidate, stratum.candidate.mirror
    return (mirror.outputs, mirror.sent - mirror.failed) if stratum.is_shadow else (seen.outputs, seen.requests - seen.errors)


def step(stratum: Stratum, mine: Hits, other: Hits) -> Step:
    """Of a version of which nothing varies the other's effects hold, as far as they can. What is mirrored is drawn by request, whoever asks."""
    counts = evalues.Two(mine.hits, mine.trials, other.hits, other.trials)
    if stratum.is_shadow:
        return Step(counts, np.ones(len(mine.hits)), np.ones(len(mine.hits)), is_shared=False)
    return Step(
        counts, _effects(mine.by, other.by), _effects(other.by, mine.by), bool(stratum.candidate.callers.asked or stratum.champion.callers.asked)
    )


def _effects(own: callers.OnSets, other: callers.OnSets) -> Array:
    """Never taken for less than 1, which it is where nothing varies in either."""
    found: Array = np.fmax(1.0, np.where(np.isnan(own.effect), np.minimum(other.effect, own.most), own.effect))
    return found


def together(steps: Sequence[Step], times: float, test: Callable[[evalues.Two], Array], *, adds_up: bool = False) -> Array:
    """The evidence of all steps, set by set, had the last one so many `times` its counts; 0 where they have none, or not the same sets.

    Steps that share callers count by the one that says most. Of others the evidence is multiplied, or the counts are added up before they are tested.
    """
    if not steps or len({np.shape(each.counts.hits) for each in steps}) > 1:
        return np.zeros(1)
    said = [each.said(times if place == len(steps) - 1 else 1.0) for place, each in enumerate(steps)]
    if any(each.is_shared for each in steps):
        return callers.best_step([test(each) for each in said])
    if adds_up:
        return evalues.from_any_step(lambda first: test(evalues.Two(*map(sum, zip(*said[first:], strict=True)))), len(said))
    return evalues.from_any_step([test(each) for each in said], len(said))
