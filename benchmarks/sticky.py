"""Whether guards on answers judge right where callers keep to a version: two hundred sticky canaries at a time, drawn at random.

As `benchmarks.experiments`: callers are dealt to two versions, whose answers lack a value, or fall into other bins, as their callers' do. What they
asked is counted by groups, as the data plane does, and judged by the product's own guards, twenty times; beside it without the groups, as it was
before, which takes requests for independent.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from benchmarks.experiments import ARM, LOOKS, WORLDS, World, callers_of
from benchmarks.items import Item
from modelyard.events import GROUPS, OUTPUT_GROUPS, Callers
from modelyard.monitor.evidence import Seen
from modelyard.rollout.guards import Stratum, evalues, parse
from modelyard.rollout.guards.missing import UNASKED, missing
from modelyard.rollout.guards.shift import prediction_shift

CANARIES = 200
NEAR = 2.0
"""Without groups, the evidence at the champion's own share is no less than that with them by more than this."""


class Sort(NamedTuple):
    """A guard at its level, what share of answers falls into each bin (the missing ones last), and which share of the first a worse candidate moves
    into the bin `into`.
    """

    guard: str
    level: float
    finds: Any
    line: float
    shares: tuple[float, ...]
    moves: float
    into: int
    worse: str


SORTS = (
    Sort(UNASKED, 0.001, missing, 0.01, (0.95, 0.05), 0.05 / 0.95, -1, "5 more of 100 without a value"),
    Sort("prediction_shift<0.1", 0.05, prediction_shift, 0.1, (0.5, 0.3, 0.2, 0.0, 0.0), 0.4, 1, "a fifth in another bin"),
)


class Sent(NamedTuple):
    """What share of the candidates was sent back by callers, and by requests as before; after how many looks half of all were, by callers."""

    ours: float
    before: float
    half: float


@functools.cache
def sent_back(world: World, sort: Sort, *, is_worse: bool, seed: int = 3) -> Sent:
    """Of `CANARIES` at half of the callers."""
    rng = np.random.default_rng(seed)
    guard, needed = parse(sort.guard), math.log(1 / sort.level)
    found = np.full((2, CANARIES), math.inf)
    for look, counts in islice(enumerate(_answered(rng, world, sort, is_worse=is_worse), 1), 1, None, 2):
        for place in np.flatnonzero(_may_fail(counts, sort) >= needed - NEAR):
            both = [_seen(each) for each in counts[place]]
            for side, seen in enumerate((both, [Seen(requests=each.requests, outputs=each.outputs) for each in both])):
                if math.isinf(found[side, place]) and sort.finds(guard, [Stratum(seen[1], seen[0])], sort.level).failing(1.0) >= needed:
                    found[side, place] = look
    return Sent(*(float(np.isfinite(each).mean()) for each in found), half=float(np.median(found[0])))


def _may_fail(counts: Any, sort: Sort) -> Any:
    """An upper bound on the evidence without groups, by canary: what is to be judged whole."""
    bins = counts.sum(axis=2)
    sets = bins[..., -1:] if sort.finds is missing else np.concatenate([bins, np.cumsum(bins, axis=-1)[..., 1:-2]], axis=-1)
    trials = np.broadcast_to(bins.sum(axis=-1, keepdims=True), sets.shape)
    most = np.full(len(counts), -math.inf)
    for hits in (sets, trials - sets) if sort.finds is prediction_shift else (sets,):
        two = evalues.Two(hits[:, 0], trials[:, 0], hits[:, 1], trials[:, 1])
        other = np.minimum(hits[:, 1] / np.maximum(trials[:, 1], 1), 1 - sort.line)
        most = np.maximum(most, evalues.at_share(other, two, (1.0, sort.line)).max(axis=-1))
    return most


def _seen(counts: Any) -> Seen:
    """One version's, of [group, bin]."""
    asked = {group: int(rows) for group, rows in enumerate(counts.sum(axis=1)) if rows}
    callers = Callers(asked=asked, outputs={"answer": tuple(counts.ravel().astype(int).tolist())})
    return Seen(requests=sum(asked.values()), outputs={"answer": tuple(counts.sum(axis=0).astype(int).tolist())}, callers=callers)


def _answered(rng: Any, world: World, sort: Sort, *, is_worse: bool) -> Iterator[Any]:
    """At each look what was answered so far: [canary, version, group, bin]."""
    shares = np.array(sort.shares)
    counts = np.zeros((CANARIES, 2, OUTPUT_GROUPS, len(shares)))
    moves = np.array([sort.moves * is_worse, 0.0])
    if not world.callers:
        own = np.array([_moved(shares, each, sort.into) for each in moves])
        for _ in range(LOOKS):
            counts += rng.poisson(ARM / LOOKS / OUTPUT_GROUPS * own[:, None], counts.shape)
            yield counts
        return
    version, cells, come, often = callers_of(rng, world, CANARIES)
    cells = cells // GROUPS * OUTPUT_GROUPS + cells % OUTPUT_GROUPS
    own = np.broadcast_to(shares, (*often.shape, len(shares)))
    if math.isfinite(world.alike):
        own = rng.gamma(world.alike * own)
        own /= np.maximum(own.sum(axis=-1, keepdims=True), 1e-300)
    own = _moved(own, moves[version], sort.into)
    for look in range(LOOKS):
        for place in np.flatnonzero(shares):
            new = rng.poisson(often * own[..., place]) * (come <= look)
            counts[..., place] += np.bincount(cells, new.ravel(), minlength=counts[..., place].size).reshape(counts.shape[:-1])
        yield counts


def _moved(own: Any, share: Any, into: int) -> Any:
    moved = np.array(own)
    moved[..., into] += share * own[..., 0]
    moved[..., 0] -= share * own[..., 0]
    return moved


def run() -> list[Item]:
    """Each guard against the level of a rollout where an equal candidate is sent back most often."""
    items = []
    for sort in SORTS:
        wrong = {world.name: sent_back(world, sort, is_worse=False).ours for world in WORLDS}
        worst = max(wrong, key=lambda name: wrong[name])
        name = f"sticky-wrong-{sort.finds.__name__}"
        items.append(Item(name=name, figure=100 * wrong[worst], unit="%", bar=5.0, better="lower", note=worst))
    return items


def table() -> str:
    """Worlds against the guards of now and of before, as Markdown."""
    told = [f"`{sort.guard}`: equal sent back | by requests | {sort.worse}: sent back | half of them by" for sort in SORTS]
    return f"| who asks | {' | '.join(told)} |\n|---|{'---:|' * 4 * len(SORTS)}\n" + "\n".join(map(_row, WORLDS))


def _row(world: World) -> str:
    cells = []
    for sort in SORTS:
        equal, worse = (sent_back(world, sort, is_worse=is_worse) for is_worse in (False, True))
        half = f"{worse.half * ARM / LOOKS:,.0f}" if math.isfinite(worse.half) else "never"
        cells += [*(f"{100 * each:.1f} %" for each in (equal.ours, equal.before, worse.ours)), half]
    return f"| {world.name} | {' | '.join(cells)} |"
