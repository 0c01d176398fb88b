"""Evidence that may be looked at after every request, for ever: e-processes for shares and for means, as functions of counts alone.

An e-process starts at 1 and, while its null hypothesis holds, is at any time (stopping times included) 1 at most on average; so it ever reaches
1 / alpha with probability alpha at most (Ville). Hides the mixtures. Pure; numpy only. Everything is a natural logarithm and broadcasts over arrays.

Sources: Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences" (Annals of Statistics 2021);
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024); Turner, Ly and Grünwald, "Generic E-variables for
exact sequential k-sample tests" (2024); Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics and safe anytime-valid inference" (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array

Line = tuple[float, float]
_TILTS = np.geomspace(0.008, 7.0, 26)
"""Logarithms of the odds ratios bet on, from a hundredth more to a thousandfold; what a rollout is there to find has four times the stake."""
_GAINS = np.expm1(_TILTS)
_STAKES = np.where((_TILTS > 0.12) & (_TILTS < 3.0), 4.0, 1.0)
_STAKES = np.log(_STAKES / _STAKES.sum())
TUNED_AT = 400.0
_TURNS = 34


def above(hits: Array | float, trials: Array | float, bound: Array | float) -> Array:
    """Evidence that hits are more frequent than `bound`, against: at each trial, given all before, their chance is `bound` at most.

    The mixture over ω > 1 of ω^hits / (1 + bound·(ω - 1))^trials, where ω is the odds ratio that is bet on. By concavity of the logarithm it also
    holds where the chance changes from trial to trial and `bound` is the mean of what it may be; and hits may be shares of a trial (convexity of
    ω^x). It falls as `bound` grows, and its logarithm is convex in `bound`.
    """
    hits, trials, bound = (np.asarray(each, dtype=np.float64)[..., None] for each in (hits, trials, bound))
    return _mixed(hits * _TILTS - trials * np.log1p(bound * _GAINS) + _STAKES)


def below(hits: Array | float, trials: Array | float, bound: Array | float) -> Array:
    """Evidence that hits are rarer than `bound`, against: at each trial their chance is `bound` at least. `above` of the misses."""
    return above(np.asarray(trials) - hits, trials, 1 - np.asarray(bound))


def hedged(evidence: Array) -> Array:
    """Half the stake kept in hand: still an e-process, never below a half."""
    found: Array = np.logaddexp(0.0, evidence) - math.log(2)
    return found


class Two(NamedTuple):
    """Hits and trials of two sources, of one shape or broadcast to one."""

    hits: Array | float
    trials: Array | float
    other_hits: Array | float
    other_trials: Array | float


def exceeds(two: Two, line: Line) -> Array:
    """Evidence that the first share exceeds factor · other + shift, `line` being (factor, shift), against: it does not.

    For each share θ that the other may have, the product of two e-processes, `above` factor · θ + shift for the first and `below` θ for the other,
    is one; so their least over θ is one against the whole null. (Turner, Ly and Grünwald divide by the nearest null in blocks of fixed sizes; this
    needs only counts, in whatever order and proportion they came.) Half of the stake on θ is kept in hand, since where the other has many more trials
    there is little to be learnt about θ. The product is log-convex in θ: its least is found by bisection of the slope.
    """
    factor, shift = line
    two = Two(*np.broadcast_arrays(*(np.asarray(each, dtype=np.float64) for each in two)))
    least, most = max(0.0, -shift / factor), min(1.0, (1 - shift) / factor)
    if least >= most:  # whatever the other's share, the line lies beyond all shares
        return np.zeros(np.shape(two.hits))
    low, high = np.full(np.shape(two.hits), -28.0), np.full(np.shape(two.hits), 28.0)
    for _ in range(_TURNS):
        middle = (low + high) / 2
        rising = _slope(_share(middle, least, most), two, line) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return at_share(_share((low + high) / 2, least, most), two, line)


def at_share(theta: Array | float, two: Two, line: Line) -> Array:
    """The product of `exceeds` where the other's share is `theta`: never less than `exceeds`."""
    return above(two.hits, two.trials, line[0] * theta + line[1]) + hedged(below(two.other_hits, two.other_trials, theta))


def falls_short(two: Two, line: Line) -> Array:
    """Evidence that the first share lies below factor · other + shift, against: it does not. `exceeds` of the misses."""
    factor, shift = line
    misses = Two(np.asarray(two.trials) - two.hits, two.trials, np.asarray(two.other_trials) - two.other_hits, two.other_trials)
    return exceeds(misses, (factor, 1 - factor - shift))


def from_any_step(evidence: Callable[[int], Array] | Sequence[Array], steps: int) -> Array:
    """One e-process over the steps of a rollout, of those that count from step 0, 1, … on: `evidence(first)`, or one e-process per step, multiplied.

    A fault may come with the load of a later step, and should not first have to outweigh all that was well before. Step s begins with the stake
    1/((s+1)(s+2)); what is staked on steps to come is in hand. A weighted mean of e-processes is one; so is the product of those of disjoint steps.
    """
    if not callable(evidence):
        suffixes = list(np.cumsum(np.asarray(evidence)[::-1], axis=0)[::-1])
        return from_any_step(lambda first: suffixes[first], steps)
    parts = [np.asarray(evidence(first)) - math.log((first + 1) * (first + 2)) for first in range(steps)]
    parts.append(np.full_like(parts[0], -math.log(steps + 1)) if parts else np.zeros(()))
    found: Array = np.logaddexp.reduce(np.stack(np.broadcast_arrays(*parts)), axis=0)
    return found


def mean_of(evidence: Array) -> Array:
    """The mean of e-processes along the last axis: against a null under which all of theirs hold."""
    found: Array = np.logaddexp.reduce(evidence, axis=-1) - math.log(evidence.shape[-1])
    return found


def mean_exceeds(excess: float, variance: float, observations: float, tuned_at: float = TUNED_AT) -> float:
    """Evidence that an estimate's `excess` over its bound is above 0, from its estimated `variance`; asymptotic, see below.

    The one-sided normal mixture, of which the asymptotic confidence sequences of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Annals of
    Statistics 2024) are made: for means, and by linearisation for AUC and root mean squares, its level holds in the limit of a late first look.
    Tightest at about `tuned_at` observations.
    """
    if not variance > 0 or observations <= 0:
        return 0.0
    share = observations / (observations + tuned_at)
    z = excess / math.sqrt(variance) * math.sqrt(share)
    # The normal tail by its first term where erfc underflows.
    tail = math.log(0.5 * math.erfc(-z / math.sqrt(2))) if z > -30 else -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi))
    return math.log(2) + 0.5 * math.log1p(-share) + z * z / 2 + tail


def limits(hits: float, trials: float, alpha: float) -> tuple[float, float]:
    """The shares that neither `above` nor `below` refutes at `alpha` / 2: a confidence sequence, right at all times at once but for `alpha`."""
    needed = math.log(2 / alpha)
    if trials <= 0:
        return 0.0, 1.0
    rate = hits / trials
    return _edge(lambda b: float(above(hits, trials, b)) >= needed, 0.0, rate), _edge(lambda b: float(below(hits, trials, b)) < needed, rate, 1.0)


def _edge(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a statement that holds at `low` (if anywhere) ceases to."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def _share(position: Array, least: float, most: float) -> Array:
    share: Array = least + (most - least) / (1 + np.exp(-position))
    return share


def _slope(theta: Array, two: Two, line: Line) -> Array:
    """Of `at_share` by `theta`."""
    factor, shift = line
    misses, rest = np.asarray(two.other_trials - two.other_hits), 1 - theta
    staked = 1 / (1 + np.exp(-np.clip(above(misses, two.other_trials, rest), -700, 700)))  # how much of the whole is not in hand
    first = _tilted(np.asarray(two.hits), np.asarray(two.trials), factor * theta + shift)
    slope: Array = factor * first - staked * _tilted(misses, np.asarray(two.other_trials), rest)
    return slope


def _tilted(hits: Array, trials: Array, bound: Array) -> Array:
    """The derivative of `above` by its bound."""
    inner = bound[..., None] * _GAINS
    terms = hits[..., None] * _TILTS - trials[..., None] * np.log1p(inner) + _STAKES
    weights = np.exp(terms - terms.max(axis=-1, keepdims=True))
    slopes: Array = -trials * (weights * (_GAINS / (1 + inner))).sum(axis=-1) / weights.sum(axis=-1)
    return slopes


def _mixed(terms: Array) -> Array:
    most = terms.max(axis=-1)
    found: Array = most + np.log(np.exp(terms - most[..., None]).sum(axis=-1))
    return found
