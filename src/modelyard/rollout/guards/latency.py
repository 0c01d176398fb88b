"""Evidence on quantiles of latencies that are known by bucket only.

Hides where in a bucket a latency, a quantile or a bound may lie: whatever is claimed holds for every place. Pure; numpy only. Everything is a
natural logarithm; `counts[..., b]` are those of bucket `b` (`events.Latencies`), over whatever leading axes.

A quantile is a share: that the q-quantile is above v says that more than 1 - q of the requests take longer than v. So evidence on quantiles is
evidence on shares (Howard and Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm identification", Bernoulli
2022), for any distribution, and a comparison of two is the least of a product over every value that the champion's quantile may have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.events import bucket_edge_s, bucket_place
from modelyard.rollout.guards.evalues import above, below, hedged, mean_exceeds

if TYPE_CHECKING:
    from modelyard.types import Array

Moved = Callable[[float], float]
"""From the champion's quantile to the bound on the candidate's, in seconds; never falling."""

LEAST_BLOCKS = 10
"""Of fewer blocks nothing is known of how far blocks differ."""

TUNED_AT_BLOCKS = 30.0
"""A fault is looked for within the first minutes of a step."""


class Blocks(NamedTuple):
    """Of so many blocks of a second: sums by bucket (`monitor.evidence.Blocks`)."""

    number: float
    squares: Array
    products: Array


def filled(buckets: Sequence[Mapping[int, int]]) -> tuple[Array, int]:
    """Counts of each mapping [mapping, bucket] over the buckets that any of them has, and the number of the first."""
    used = [bucket for each in buckets for bucket in each]
    first = min(used, default=0)
    counts = np.zeros((len(buckets), max(used, default=0) - first + 1))
    for row, each in enumerate(buckets):
        counts[row, [bucket - first for bucket in each]] = list(each.values())
    return counts, first


def slower(counts: Array, first: int, share: float, bound_s: float) -> Array:
    """Evidence that the `share`-quantile is above `bound_s`, against: it is not. Only buckets that lie wholly above the bound count as above."""
    return above(_from(counts, math.ceil(bucket_place(bound_s)) - first), counts.sum(axis=-1), 1 - share)


def faster(counts: Array, first: int, share: float, bound_s: float) -> Array:
    """Evidence that the `share`-quantile is below `bound_s`, against: it is not. The bucket in which the bound lies counts as above."""
    return below(_from(counts, math.floor(bucket_place(bound_s)) - first), counts.sum(axis=-1), 1 - share)


def slower_by_blocks(counts: Array, blocks: Blocks, first: int, share: float, bound_s: float) -> float:
    """As `slower`, whatever the requests of one block have to do with one another; asymptotic in the number of blocks, 0 for few."""
    return _by_blocks(counts, blocks, math.ceil(bucket_place(bound_s)) - first, 1 - share, is_slower=True)


def faster_by_blocks(counts: Array, blocks: Blocks, first: int, share: float, bound_s: float) -> float:
    """As `faster`, whatever the requests of one block have to do with one another; asymptotic in the number of blocks, 0 for few."""
    return _by_blocks(counts, blocks, math.floor(bucket_place(bound_s)) - first, 1 - share, is_slower=False)


def _by_blocks(counts: Array, blocks: Blocks, place: int, bound: float, *, is_slower: bool) -> float:
    """Of the share of requests above, a ratio of sums over blocks: its variance is that of what each block has more than it should by that share.

    Never taken for less than that of independent requests at the bound: of few blocks some are alike by chance.
    """
    total = float(counts.sum())
    if blocks.number < LEAST_BLOCKS or not total:
        return 0.0
    hits, squares, products = (float(_from(each, place)) for each in (counts, blocks.squares, blocks.products))
    rate = hits / total
    spread = squares - 2 * rate * products + rate * rate * float(blocks.products.sum())
    variance = max(spread * blocks.number / (blocks.number - 1) / total**2, bound * (1 - bound) / total)
    excess = rate - bound if is_slower else bound - rate
    return mean_exceeds(excess, variance, blocks.number, TUNED_AT_BLOCKS)


def slower_than(counts: Array, other: Array, first: int, share: float, moved: Moved) -> Array:
    """Evidence that the `share`-quantile of `counts` is above `moved` of that of `other`, against: it is not.

    For a quantile v of the other in bucket b: its requests at v or above are at most those of buckets from b on, and ours above moved(v) are at least
    those of the buckets wholly above moved(the end of b). The least over all b holds for every v.
    """
    cells = _cells(first, counts.shape[-1], moved)
    mine = _tails(counts, [math.ceil(bucket_place(moved(bucket_edge_s(cell + 1)))) - first for cell in cells])
    theirs = _tails(other, [cell - first for cell in cells])
    mine_all, other_all = counts.sum(axis=-1)[..., None], other.sum(axis=-1)[..., None]
    least: Array = (above(mine, mine_all, 1 - share) + hedged(below(theirs, other_all, 1 - share))).min(axis=-1)
    return least


def faster_than(counts: Array, other: Array, first: int, share: float, moved: Moved) -> Array:
    """Evidence that the `share`-quantile of `counts` is below `moved` of that of `other`, against: it is not. Widened as `slower_than` is."""
    cells = _cells(first, counts.shape[-1], moved)
    mine = _tails(counts, [math.floor(bucket_place(moved(bucket_edge_s(cell)))) - first for cell in cells])
    theirs = _tails(other, [cell + 1 - first for cell in cells])
    mine_all, other_all = counts.sum(axis=-1)[..., None], other.sum(axis=-1)[..., None]
    least: Array = (below(mine, mine_all, 1 - share) + hedged(above(theirs, other_all, 1 - share))).min(axis=-1)
    return least


def quantile(counts: Array, first: int, share: float) -> Array:
    """The estimated `share`-quantile in seconds, between the ends of its bucket in proportion; NaN without requests."""
    reached = np.cumsum(counts, axis=-1)
    total = reached[..., -1:]
    place = np.minimum((reached < share * total).sum(axis=-1, keepdims=True), counts.shape[-1] - 1)
    there = np.take_along_axis(counts, place, axis=-1)
    before = np.take_along_axis(reached, place, axis=-1) - there
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = ((share * total - before) / there)[..., 0]
    ends = _ends(first, counts.shape[-1])
    low, high = ends[place[..., 0]], ends[place[..., 0] + 1]
    found: Array = np.where(low > 0, low ** (1 - inside) * high**inside, high * inside)
    return found


@lru_cache(maxsize=64)
def _ends(first: int, size: int) -> Array:
    """Of so many buckets."""
    return np.array([bucket_edge_s(first + each) for each in range(size + 1)])


def limits(counts: Array, first: int, share: float, alpha: float) -> tuple[float, float]:
    """Ends of buckets, in seconds, between which the quantile lies at all times with a chance of 1 - `alpha`; 0 and infinity: nothing is known."""
    ends = [bucket_edge_s(first + place) for place in range(counts.shape[-1] + 1)]
    needed = math.log(2 / alpha)
    low = [end for end in ends if float(slower(counts, first, share, end)) >= needed]
    high = [end for end in ends if float(faster(counts, first, share, end)) >= needed]
    return max(low, default=0.0), min(high, default=math.inf)


def _cells(first: int, size: int, moved: Moved) -> range:
    """The buckets in which the champion's quantile may lie to any effect: beyond them nothing changes any more."""
    edges = [bucket_edge_s(first), bucket_edge_s(first + size)]
    shift = max(abs(bucket_place(max(moved(edge), 1e-9)) - bucket_place(edge)) for edge in edges if edge > 0)
    pad = min(math.ceil(shift), 300) + 2
    return range(max(0, first - pad), first + size + pad)


def _from(counts: Array, place: int) -> Array:
    found: Array = counts[..., max(0, place) :].sum(axis=-1)
    return found


def _tails(counts: Array, places: Sequence[int]) -> Array:
    """How many lie in the buckets from each place on."""
    sums = np.zeros((*counts.shape[:-1], counts.shape[-1] + 1))
    sums[..., :-1] = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return sums[..., np.clip(places, 0, counts.shape[-1])]
