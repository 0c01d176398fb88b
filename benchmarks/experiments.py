"""Whether A/B tests judge right where callers are drawn, and not their requests: five hundred experiments at a time, drawn at random.

Callers are dealt to two versions that are equal, or of which one is worse; how often they ask, and how unlike they are, is the world's. What they
asked is counted by groups, as the data plane does, and looked at forty times by the product's own tests; beside them by the tests of before, which
take requests for independent.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from benchmarks.items import Item
from modelyard.events import GROUPS
from modelyard.rollout.guards import callers, evalues
from modelyard.rollout.guards.labelled import LEAST

EXPERIMENTS, LOOKS, ARM, ALPHA = 500, 40, 10_000, 0.05
"""Of `ARM` requests an arm, a fortieth comes between two looks."""
RATE = 0.05
WORSE = {"error_rate": 1.4, "mae": 1.15}


class World(NamedTuple):
    """Who asks: so many callers (0: each request is another's); how many requests they have (Pareto's exponent; infinity: all as many); how unlike
    they are (their errors are drawn from a beta distribution of so many pseudo-requests; infinity: all alike); whether they come one after the other.
    """

    name: str
    callers: int
    tail: float = math.inf
    alike: float = 6.0
    come: bool = False


WORLDS = (
    World("each request another caller's", 0),
    World("2,000 callers, all alike", 2000, alike=math.inf),
    World("2,000 callers, unlike", 2000),
    World("2,000 callers, unlike, some ask far more (Pareto 1.5)", 2000, tail=1.5),
    World("2,000 callers, unlike, a few ask most (Pareto 1.1)", 2000, tail=1.1),
    World("2,000 callers, unlike, some ask far more, who come one after the other", 2000, tail=1.5, come=True),
    World("60 callers, unlike", 60),
    World("16 callers, unlike", 16),
)


class Decided(NamedTuple):
    """In what share of the experiments either version was called the better, and after how many of 40 looks half were decided for the champion."""

    candidate: float
    champion: float
    half: float


class Both(NamedTuple):
    """By callers, and by requests as before; `unknown`: in what share there were too few callers to say, at the last look."""

    ours: Decided
    before: Decided
    unknown: float


@functools.cache
def errors(world: World, worse: float = 1.0, seed: int = 1) -> Both:
    """Experiments on `error_rate`, of which the candidate fails `worse` times as often."""
    rng = np.random.default_rng(seed)
    found = np.full((2, 2, EXPERIMENTS), math.inf)
    for look, (asked, failed) in enumerate(_asked(rng, world, worse), 1):
        effects, groups = _effects(asked, failed)
        trials, hits = asked.sum(axis=2), failed.sum(axis=2)
        enough = (groups >= callers.LEAST_GROUPS).all(axis=1)
        for place, by in enumerate((effects, np.ones_like(effects))):
            two = evalues.Two(hits[:, 0] / by[:, 0], trials[:, 0] / by[:, 0], hits[:, 1] / by[:, 1], trials[:, 1] / by[:, 1])
            for side, test in enumerate((evalues.falls_short, evalues.exceeds)):
                # Of one step with a champion: half of the stake is on steps to come.
                is_decided = test(two, (1.0, 0.0)) - math.log(2) >= math.log(1 / ALPHA)
                found[place, side] = np.where(is_decided & np.isinf(found[place, side]), look, found[place, side])
    return Both(*(_decided(*sides) for sides in found), unknown=float(1 - enough.mean()))


@functools.cache
def sizes(world: World, worse: float = 1.0, seed: int = 2) -> Both:
    """Experiments on `mae`, of which the candidate's errors are `worse` times as large: each half or one and a half of what is its caller's."""
    rng = np.random.default_rng(seed)
    found = np.full((2, 2, EXPERIMENTS), math.inf)
    for look, (asked, total, squares) in enumerate(_erred(rng, world, worse), 1):
        number = np.maximum(asked.sum(axis=2), 1)
        mean = total.sum(axis=2) / number
        alone = (squares.sum(axis=2) / number - mean**2) / number
        between, groups = _between(total - mean[..., None] * asked, asked)
        enough = (groups >= callers.LEAST_GROUPS).all(axis=1)
        for place, variance in enumerate((np.maximum(alone, between), alone)):
            both, excess = np.maximum(variance.sum(axis=1), 1e-12), mean[:, 0] - mean[:, 1]
            observations = number[:, 0] * alone[:, 0] / both
            for side, sign in enumerate((-1.0, 1.0)):
                evidence = np.array([evalues.mean_exceeds(*each) for each in zip(sign * excess, both, observations, strict=True)])
                is_decided = (evidence - math.log(2) >= math.log(1 / ALPHA)) & (enough | (place == 1)) & (number.min(axis=1) >= LEAST)
                found[place, side] = np.where(is_decided & np.isinf(found[place, side]), look, found[place, side])
    return Both(*(_decided(*sides) for sides in found), unknown=float(1 - enough.mean()))


def _erred(rng: Any, world: World, worse: float) -> Any:
    """At each look how many errors there were so far, their sum and that of their squares: [experiment, version, group]."""
    larger = np.array([worse, 1.0])[:, None]
    kept = [np.zeros((EXPERIMENTS, 2, GROUPS)) for _ in range(3)]
    if not world.callers:
        for _ in range(LOOKS):
            new = rng.poisson(ARM / LOOKS / GROUPS, kept[0].shape)
            kept = [had + more for had, more in zip(kept, _two_sizes(rng, new, larger), strict=True)]
            yield kept
        return
    version, cells, come, often = callers_of(rng, world)
    own = np.ones(often.shape) if math.isinf(world.alike) else np.exp(0.7 * rng.normal(size=often.shape))
    own = np.where(version == 0, own * worse, own)
    for look in range(LOOKS):
        more = _two_sizes(rng, rng.poisson(often) * (come <= look), own)
        kept = [had + np.bincount(cells, each.ravel(), minlength=had.size).reshape(had.shape) for had, each in zip(kept, more, strict=True)]
        yield kept


def _two_sizes(rng: Any, new: Any, own: Any) -> tuple[Any, Any, Any]:
    """Of so many errors the number, the sum and the sum of squares."""
    large = rng.binomial(new, 0.5)
    return new, own * (0.5 * new + large), own**2 * (0.25 * new + 2 * large)


def _decided(candidate: Any, champion: Any) -> Decided:
    first = np.minimum(candidate, champion)
    return Decided(*(float(np.mean(np.isfinite(each) & (each == first))) for each in (candidate, champion)), half=float(np.median(champion)))


def _effects(asked: Any, failed: Any) -> tuple[Any, Any]:
    """As `callers.effects`, of all experiments at once: [experiment, version]. One of them is held against the product. Raises AssertionError."""
    total = np.maximum(asked.sum(axis=2, keepdims=True), 1)
    share = failed.sum(axis=2, keepdims=True) / total
    alone = (share * (1 - share) / total)[..., 0]
    variance, groups = _between(failed - share * asked, asked)
    with np.errstate(invalid="ignore", divide="ignore"):
        effects = np.where(alone > 0, variance / alone, np.nan)
    effects = np.where(groups < callers.LEAST_GROUPS, asked.max(axis=2), effects)
    effects = np.where(np.isnan(effects), np.minimum(effects[:, ::-1], asked.max(axis=2)), effects)
    effects = np.maximum(1.0, np.nan_to_num(effects, nan=1.0))
    told = callers.effects(*(callers.filled(asked[0, version], failed[0, version]) for version in (0, 1)))
    assert np.allclose([told.mine, told.other], effects[0]), (told, effects[0])
    return effects, groups


def _between(sums: Any, asked: Any) -> tuple[Any, Any]:
    """As `callers.spread`, of the mean over what was asked, by the sums of each group's deviations from it."""
    total = np.maximum(asked.sum(axis=2, keepdims=True), 1)
    rest = np.where(asked < total, 1 - asked / total, np.inf)
    return ((sums / total / rest) ** 2).sum(axis=2), total[..., 0] ** 2 / np.maximum((asked**2).sum(axis=2), 1)


def callers_of(rng: Any, world: World, experiments: int = EXPERIMENTS) -> tuple[Any, Any, Any, Any]:
    """Of each caller of each experiment: the version, where it is counted, at which look it comes, and how often it asks between two."""
    shape = (experiments, world.callers)
    often = np.ones(shape) if math.isinf(world.tail) else rng.pareto(world.tail, shape) + 1
    often *= 2 * ARM / LOOKS / often.sum(axis=1, keepdims=True)
    version, group = rng.integers(0, 2, shape), rng.integers(0, GROUPS, shape)
    come = rng.integers(0, LOOKS, shape) if world.come else np.zeros(shape, dtype=int)
    return version, ((np.arange(experiments)[:, None] * 2 + version) * GROUPS + group).ravel(), come, often


def _asked(rng: Any, world: World, worse: float) -> Any:
    """At each look what was asked and what failed so far: [experiment, version, group]."""
    asked, failed = (np.zeros((EXPERIMENTS, 2, GROUPS)) for _ in range(2))
    share = RATE * np.array([worse, 1.0])[:, None]
    if not world.callers:
        for _ in range(LOOKS):
            new = rng.poisson(ARM / LOOKS / GROUPS, asked.shape)
            asked += new
            failed += rng.binomial(new, share)
            yield asked, failed
        return
    version, cells, come, often = callers_of(rng, world)
    own = np.full(often.shape, RATE) if math.isinf(world.alike) else rng.beta(RATE * world.alike, (1 - RATE) * world.alike, often.shape)
    own = np.minimum(1.0, np.where(version == 0, own * worse, own))
    for look in range(LOOKS):
        new = rng.poisson(often) * (come <= look)
        asked += np.bincount(cells, new.ravel(), minlength=asked.size).reshape(asked.shape)
        failed += np.bincount(cells, rng.binomial(new, own).ravel(), minlength=asked.size).reshape(asked.shape)
        yield asked, failed


def run() -> list[Item]:
    """The most that any world has of wrong decisions either way, and what the tests cost where each request is another caller's."""
    items = []
    for metric, test in TESTS.items():
        wrong = {world.name: max(test(world).ours[:2]) for world in WORLDS}
        worst = max(wrong, key=lambda name: wrong[name])
        items.append(Item(name=f"experiments-wrong-{metric}", figure=100 * wrong[worst], unit="%", bar=100 * ALPHA, better="lower", note=worst))
        single = test(WORLDS[0], WORSE[metric])
        note = f"looks until half are decided where each request is another caller's: {single.ours.half:g}, by requests {single.before.half:g}"
        name = f"experiments-cost-{metric}"
        items.append(Item(name=name, figure=single.ours.half / single.before.half, unit="x", bar=1.15, better="lower", note=note))
    return items


def table() -> str:
    """Worlds against the tests of now and of before, as Markdown."""
    told = [
        f"`{metric}`: equal called better, worse | by requests | {WORSE[metric]:g} times as much called worse | half of them by" for metric in TESTS
    ]
    head = f"| who asks | {' | '.join(told)} | too few callers |\n|---|{'---:|' * (4 * len(TESTS) + 1)}\n"
    return head + "\n".join(map(_row, WORLDS))


def _row(world: World) -> str:
    cells, unknown = [], 0.0
    for metric, test in TESTS.items():
        equal, worse = test(world), test(world, WORSE[metric])
        cells += [f"{100 * each.candidate:.1f} %, {100 * each.champion:.1f} %" for each in (equal.ours, equal.before)]
        cells.append(f"{100 * worse.ours.champion:.1f} %")
        cells.append(f"{worse.ours.half * ARM / LOOKS:,.0f}" if math.isfinite(worse.ours.half) else "never")
        unknown = worse.unknown
    return f"| {world.name} | {' | '.join(cells)} | {100 * unknown:.0f} % |"


TESTS = {"error_rate": errors, "mae": sizes}
