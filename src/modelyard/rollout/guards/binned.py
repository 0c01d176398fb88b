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
    """Of one version in one step: requests in each set and all of them, and by what callers who are alike divide both (NaN: nothing varies)."""

    hits: Array
    trials: Array | float
    effects: Array


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


def answers(stratum: Stratum) -> tuple[Mapping[str, Sequence[int]], int]:
    """The candidate's outputs, and how many requests they answered; of a shadow those of mirrored ones."""
    seen, mirror = stratum.candidate, stratum.candidate.mirror
    return (mirror.outputs, mirror.sent - mirror.failed) if stratum.is_shadow else (seen.outputs, seen.requests - seen.errors)


def step(stratum: Stratum, mine: Hits, other: Hits) -> Step:
    """Of a version of which nothing varies the other's effects hold. What is mirrored is drawn by request, whoever asks."""
    counts = evalues.Two(mine.hits, mine.trials, other.hits, other.trials)
    if stratum.is_shadow:
        return Step(counts, np.ones(len(mine.hits)), np.ones(len(mine.hits)), is_shared=False)
    first, second = np.where(np.isnan(mine.effects), other.effects, mine.effects), np.where(np.isnan(other.effects), mine.effects, other.effects)
    # Never taken for less than 1, and where nothing varies in either it is 1.
    return Step(counts, np.fmax(1.0, first), np.fmax(1.0, second), bool(stratum.candidate.callers.asked or stratum.champion.callers.asked))


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
