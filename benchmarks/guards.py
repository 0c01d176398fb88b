"""Whether guards judge right: a thousand rollouts at a time, drawn at random, each judged once a second by the product's own tests.

The champion fails 0.5 % of its requests and answers in lognormal times (deviation 0.5 of the logarithm, median about 10 ms); 500 requests arrive a
second, and the candidate's share goes 1, 10, 50, 100 % once a step has had its least time and requests and every estimate keeps to its bound. Each
rollout's median lies elsewhere in a bucket of the latency counts. All rollouts of one step are judged in one array; now and then one of them is
judged by `judge` as well, which must agree.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.items import Item
from modelyard.events import Callers, bucket_edge_s, bucket_place
from modelyard.monitor.evidence import Blocks
from modelyard.rollout.guards import Guard, evalues, judge, latency, parse
from modelyard.rollout.guards.base import Stratum
from modelyard.rollout.guards.shares import _line

ROLLOUTS, RATE = 1000, 500
STEPS, LEAST_S, LEAST_REQUESTS = (0.01, 0.1, 0.5, 1.0), 60, 100
ALPHA, MIRROR = 0.05, 0.05
FIRST, BUCKETS = 312, 256  # from 0.86 ms to 0.22 s
OCTAVE = 32 / math.log(2)
"""Buckets to a unit of the logarithm."""
ENDS = np.array([bucket_edge_s(FIRST + place) for place in range(BUCKETS + 1)])
SETS = {
    "mixed": ("error_rate<0.5%", "p50<1.15x", "p99<1.2x", "disagreement<3%"),
    "ratios": ("error_rate<1.5x", "p50<1.2x", "p95<1.2x", "p99<1.2x"),
    "absolute": ("error_rate<1%", "p50<13ms", "p95<30ms", "p99<50ms"),
    "differences": ("error_rate<champion+0.5%", "p50<champion+2ms", "p95<champion+10ms", "disagreement<3%"),
}


class Candidate(NamedTuple):
    """What a candidate does: how often it fails and disagrees, how much slower it is. `stalls`: in one second of fifty both take thrice as long."""

    name: str
    errors: float = 0.005
    slower: float = 1.0
    disagrees: float = 0.02
    stalls: bool = False
    until_s: int = 1200


EQUAL = Candidate("equal to the champion")
STALLS = Candidate("equal, one second in fifty slow for both", stalls=True)
FAILING = Candidate("fails 2.5 % of its requests", errors=0.025)
SLOW = Candidate("median latency 1.5 times", slower=1.5)
HALF = Candidate("fails 1 % of its requests", errors=0.01)
QUARTER = Candidate("median latency 1.25 times", slower=1.25)


class Ended(NamedTuple):
    """How the rollouts of one candidate ended: the candidate's requests when each was rolled back (infinity: never), and which reached the end."""

    requests: Any
    finished: Any

    def caught(self, within: float = math.inf) -> float:
        """The share rolled back."""
        return float(np.mean(np.isfinite(self.requests) & (self.requests <= within)))

    @property
    def median(self) -> float:
        """The candidate's requests at which half of all rollouts had been rolled back."""
        return float(np.median(self.requests))


@functools.cache
def simulate(guards: tuple[str, ...], candidate: Candidate, seed: int = 1, rollouts: int = ROLLOUTS) -> Ended:
    """Rollouts to their end, or for so long."""
    rng = np.random.default_rng(seed)
    judged = [parse(text) for text in guards]
    world = _World(rng, candidate, rollouts, has_seconds=any(guard.metric.startswith("p") and not guard.compares for guard in judged))
    alpha = ALPHA / len(judged)
    ended, finished = np.full(rollouts, math.inf), np.zeros(rollouts, dtype=bool)
    alive = np.ones(rollouts, dtype=bool)
    kept = [np.zeros((rollouts, len(STEPS))) for _ in judged]  # evidence of each step by what is never less than it; a step that is over stays
    for second in range(candidate.until_s):
        world.second(alive)
        now = world.step.copy()  # what enters a step has had none of its traffic yet
        for step in range(len(STEPS)):
            these = np.flatnonzero(alive & (now == step))
            if not len(these):
                continue
            view = _View(world, these, step)
            failed, holds = np.zeros(len(these), dtype=bool), np.ones(len(these), dtype=bool)
            for guard, steps in zip(judged, kept, strict=True):
                found, side = _judge(guard, view, math.log(1 / alpha), steps)
                failed |= found
                holds &= side
                if second % 97 == 0:
                    _compare_with_judge(guard, view, alpha, found, side, int(rng.integers(len(these))))
            ended[these[failed]] = world.mine[these[failed]].sum(axis=1)
            alive[these[failed]] = False
            earned = ~failed & holds & (world.since[these] >= LEAST_S) & (world.mine[these, step] >= LEAST_REQUESTS)
            if step == len(STEPS) - 1:
                finished[these[earned]] = True
                alive[these[earned]] = False
            else:
                world.step[these[earned]] += 1
                world.since[these[earned]] = 0
        if not alive.any():
            break
    return Ended(ended, finished)


class _World:
    """What has been counted of all rollouts, by step: requests and errors of both, latencies by bucket and above, rows compared and different.

    `has_seconds`: how the latencies of a second lie together is counted too.
    """

    def __init__(self, rng: np.random.Generator, candidate: Candidate, rollouts: int, *, has_seconds: bool) -> None:
        self.rng, self.candidate, self.has_seconds = rng, candidate, has_seconds
        shape = (rollouts, len(STEPS))
        self.mine, self.errors, self.others, self.other_errors, self.compared, self.disagreed = (np.zeros(shape) for _ in range(6))
        self.tails, self.other_tails = (np.zeros((*shape, BUCKETS + 1)) for _ in range(2))
        self.squares, self.products = (np.zeros((*shape, BUCKETS)) for _ in range(2))
        self.blocks = np.zeros(shape)
        self.step, self.since = np.zeros(rollouts, dtype=int), np.zeros(rollouts, dtype=int)
        self.offset = rng.uniform(0, math.log(2) / 8, rollouts)
        # Deviations in buckets, from which each second takes its own stretch: drawing new ones would be most of the time that all this takes.
        self.pool = rng.standard_normal((1 << 22) + rollouts * RATE, dtype=np.float32) * np.float32(0.5 * OCTAVE)

    def second(self, alive: Any) -> None:
        """One more second of traffic, of the rollouts that go on."""
        rows, rng = np.flatnonzero(alive), self.rng
        steps, made = self.step[rows], self.candidate
        mine = rng.binomial(RATE, np.array(STEPS)[steps])
        others = RATE - mine
        errors, other_errors = rng.binomial(mine, made.errors), rng.binomial(others, EQUAL.errors)
        stalled = rng.random(len(rows)) < (0.02 if made.stalls else 0.0)
        medians = self.offset[rows] + np.where(stalled, math.log(3), 0.0)
        place = rows, steps
        self.mine[place] += mine
        self.errors[place] += errors
        self.others[place] += others
        self.other_errors[place] += other_errors
        answered, tails = self._answered(medians + math.log(made.slower), mine - errors)
        self.tails[place] += tails
        if self.has_seconds:
            self.squares[place] += answered * (2 * tails[:, :-1] - answered)
            self.products[place] += answered * tails[:, :1]
            self.blocks[place] += tails[:, 0] > 0
        self.other_tails[place] += self._answered(medians, others - other_errors)[1]
        compared = rng.binomial(others - other_errors, MIRROR)
        self.compared[place] += compared
        self.disagreed[place] += rng.binomial(compared, made.disagrees)
        self.since[rows] += 1

    def _answered(self, log_median: Any, counts: Any) -> tuple[Any, Any]:
        """So many requests of each rollout, by bucket, and how many lie in each bucket or above; their medians are 10 ms · exp(log_median)."""
        first = ((math.log(0.01 * 1e6) + log_median) * OCTAVE - FIRST).astype(np.float32)
        wide = int(counts.max(initial=1))
        start = int(self.rng.integers(len(self.pool) - wide * len(counts)))
        places = self.pool[start : start + wide * len(counts)].reshape(-1, wide) + first[:, None]
        np.clip(places, 0, BUCKETS - 1, out=places)
        cells = places.astype(np.int32)
        cells[np.arange(wide) >= counts[:, None]] = BUCKETS  # of nobody
        cells += (np.arange(len(counts), dtype=np.int32) * (BUCKETS + 1))[:, None]
        found = np.bincount(cells.ravel(), minlength=len(counts) * (BUCKETS + 1)).reshape(len(counts), BUCKETS + 1)[:, :BUCKETS]
        tails = np.zeros((len(counts), BUCKETS + 1))
        np.cumsum(found[:, ::-1], axis=1, out=tails[:, -2::-1])
        return found, tails


class _View:
    """Some rollouts that are at one step. Counts are [step so far, rollout]; what lies in buckets is fetched where it is looked at."""

    def __init__(self, world: _World, rows: Any, step: int) -> None:
        self.world, self.rows, self.step = world, rows, step
        each = (world.errors, world.mine, world.other_errors, world.others, world.disagreed, world.compared)
        self.errors, self.mine, self.other_errors, self.others, self.disagreed, self.compared = (counts[rows, : step + 1].T for counts in each)

    def counts(self, tails: Any, chosen: Any) -> Any:
        """By bucket, of the chosen rollouts: [step so far, rollout, bucket]."""
        return -np.diff(self.buckets(tails, chosen), axis=2)

    def buckets(self, kept: Any, chosen: Any) -> Any:
        """As they are kept, of the chosen rollouts: [step so far, rollout, bucket]."""
        return np.swapaxes(kept[self.rows[chosen], : self.step + 1], 0, 1)


def _judge(guard: Guard, view: _View, needed: float, kept: Any) -> tuple[Any, Any]:
    """Which rollouts the guard fails, and of which the estimate holds."""
    if guard.metric.startswith("p"):
        return _judge_latency(guard, view, needed, kept)
    hits, trials = (view.disagreed, view.compared) if guard.metric == "disagreement" else (view.errors, view.mine)
    two, line = evalues.Two(hits, trials, view.other_errors, view.others), _line(guard)
    with np.errstate(invalid="ignore", divide="ignore"):
        champion = two.other_hits[-1] / two.other_trials[-1]
        whole = two.other_hits.sum(axis=0) / two.other_trials.sum(axis=0)
        champion = np.where(two.other_trials[-1] > 0, champion, whole)
        last = -2 if guard.metric == "disagreement" and len(hits) == len(STEPS) else -1  # at 100 % nothing is mirrored
        estimate = hits[last] / trials[last]
    if guard.compares:
        last = -2 if len(hits) == len(STEPS) else -1  # at 100 % there is no champion beside it
        rate, other = hits[last] / np.maximum(trials[last], 1), two.other_hits[last] / np.maximum(two.other_trials[last], 1)
        holds = (rate < line[0] * other + line[1]) | ((guard.form == "ratio") & (rate == 0) & (other == 0))  # two zeros keep to any ratio
        kept[view.rows, view.step] = _at_shares(evalues.Two(*(each[-1] for each in two)), line, np.zeros(1))

        def closer(near: Any) -> Sequence[Any]:
            return list(_at_shares(evalues.Two(*(each[:, near] for each in two)), line, np.linspace(-0.6, 0.6, 13)))

        def exact(near: Any) -> Sequence[Any]:
            return list(evalues.exceeds(evalues.Two(*(each[:, near] for each in two)), line))

        return _confirmed(view, kept, needed, (closer, exact)), holds
    steps = range(len(hits))
    failed = evalues.from_any_step(lambda first: evalues.above(hits[first:].sum(axis=0), trials[first:].sum(axis=0), line[1]), len(steps)) >= needed
    if guard.metric != "disagreement":
        doubted = np.flatnonzero(failed & (champion > line[1]))
        if len(doubted):
            worse = evalues.exceeds(evalues.Two(*(each[:, doubted] for each in two)), (1.0, 0.0))
            failed[doubted] = evalues.from_any_step(list(worse), len(hits)) >= needed
    return failed, estimate < line[1]


def _at_shares(two: evalues.Two, line: evalues.Line, around: Any) -> Any:
    """The product at shares around the champion's own (on the scale of logarithms): never less than the least over all."""
    theta = (np.asarray(two.other_hits) + 0.5) / (np.asarray(two.other_trials) + 1)
    shares = np.clip(theta[..., None] * np.exp(around), 1e-9, 1 - 1e-9)
    return evalues.at_share(shares, evalues.Two(*(np.asarray(each)[..., None] for each in two)), line).min(axis=-1)


def _confirmed(view: _View, kept: Any, needed: float, closer: Sequence[Callable[[Any], Sequence[Any]]]) -> Any:
    """Which reach the evidence: those that may, by what is kept of their steps, are looked at closer, the last time by the evidence itself."""
    steps = view.step + 1
    found = evalues.from_any_step(list(kept[view.rows, :steps].T), steps) >= needed
    for look in closer:
        near = np.flatnonzero(found)
        if len(near):
            found[near] = evalues.from_any_step(look(near), steps) >= needed
    return found


def _judge_latency(guard: Guard, view: _View, needed: float, kept: Any) -> tuple[Any, Any]:
    share, world, rows, step = int(guard.metric[1:]) / 100, view.world, view.rows, view.step
    last = step - 1 if guard.compares and step == len(STEPS) - 1 else step
    champion = _quantile(world.other_tails, rows, last, share)
    holds_at = guard.bound(champion)
    holds = _quantile(world.tails, rows, last, share) < holds_at
    if guard.compares:
        kept[rows, step] = _at_cells(view, rows, step, share, guard, np.zeros(1, dtype=int))

        def closer(near: Any) -> Sequence[Any]:
            return [_at_cells(view, rows[near], each, share, guard, np.arange(-12, 13)) for each in range(step + 1)]

        def exact(near: Any) -> Sequence[Any]:
            mine, other = view.counts(world.tails, near), view.counts(world.other_tails, near)
            return [latency.slower_than(mine[each], other[each], FIRST, share, guard.bound) for each in range(step + 1)]

        return _confirmed(view, kept, needed, (closer, exact)), holds
    place = max(0, math.ceil(bucket_place(guard.limit)) - FIRST)
    hits, trials = (world.tails[rows, : step + 1, each].T for each in (place, 0))
    found = evalues.from_any_step(lambda first: evalues.above(hits[first:].sum(axis=0), trials[first:].sum(axis=0), 1 - share), step + 1) >= needed
    for row in np.flatnonzero(found):
        found[row] = _by_seconds(view, row, share, guard.limit) >= needed
    here = np.flatnonzero(found)
    if len(here):
        mine, other = view.counts(world.tails, here), view.counts(world.other_tails, here)
        before = np.where(other[-1].any(axis=1), champion[here], latency.quantile(other.sum(axis=0), FIRST, share))
        doubted = np.flatnonzero(before > guard.limit)
        if len(doubted):
            steps = [
                latency.slower_than(mine[each, doubted], other[each, doubted], FIRST, share, lambda seconds: seconds) for each in range(step + 1)
            ]
            found[here[doubted]] = evalues.from_any_step(steps, step + 1) >= needed
    return found, holds


def _by_seconds(view: _View, row: int, share: float, limit: float) -> float:
    """The evidence of one rollout by what its seconds have to do with one another."""
    world, of = view.world, [row]
    counts, squares, products = view.counts(world.tails, of)[:, 0], *(view.buckets(each, of)[:, 0] for each in (world.squares, world.products))
    numbers = world.blocks[view.rows[row], : view.step + 1]

    def since(first: int) -> Any:
        blocks = latency.Blocks(numbers[first:].sum(), *(each[first:].sum(axis=0) for each in (squares, products)))
        return np.asarray(latency.slower_by_blocks(counts[first:].sum(axis=0), blocks, FIRST, share, limit))

    return float(evalues.from_any_step(since, view.step + 1))


def _cell(tails: Any, rows: Any, step: int, share: float) -> Any:
    """The bucket in which the quantile of each rollout lies, by halving."""
    total = tails[rows, step, 0]
    low, high = np.zeros(len(rows), dtype=int), np.full(len(rows), BUCKETS - 1)
    while (low < high).any():
        middle = (low + high) // 2
        is_before = total - tails[rows, step, middle + 1] < share * total
        low, high = np.where(is_before, middle + 1, low), np.where(is_before, high, middle)
    return low


def _quantile(tails: Any, rows: Any, step: int, share: float) -> Any:
    """As `latency.quantile`, of one step."""
    total, place = tails[rows, step, 0], _cell(tails, rows, step, share)
    before = total - tails[rows, step, place]
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = (share * total - before) / (tails[rows, step, place] - tails[rows, step, place + 1])
    return ENDS[place] ** (1 - inside) * ENDS[place + 1] ** inside


@functools.cache
def _moved(guard: Guard) -> Any:
    """From the champion's bucket to the first one of the candidate's that lies wholly above the bound."""
    moved = [math.ceil(bucket_place(guard.bound(bucket_edge_s(FIRST + cell + 1)))) - FIRST for cell in range(BUCKETS)]
    return np.clip(moved, 0, BUCKETS)


def _at_cells(view: _View, rows: Any, step: int, share: float, guard: Guard, around: Any) -> Any:
    """The product of `slower_than` in a step at buckets around the champion's own quantile: never less than the least over all."""
    tails, others = view.world.tails, view.world.other_tails
    cells = np.clip(_cell(others, rows, step, share)[:, None] + around, 0, BUCKETS - 1)
    mine, other = tails[rows, step, :1], others[rows, step, :1]
    first = evalues.above(tails[rows[:, None], step, _moved(guard)[cells]], mine, 1 - share)
    product = first + evalues.hedged(evalues.below(others[rows[:, None], step, cells], other, 1 - share))
    return np.where(other[:, 0] > 0, product.min(axis=1), 0.0)  # without the champion the least is nothing


class _Mirror(NamedTuple):
    sent: int
    failed: int
    rows: int
    disagreed: int
    latencies: dict[int, int]
    outputs: dict[str, tuple[int, ...]]


class _Seen(NamedTuple):
    requests: int
    errors: int
    latencies: dict[int, int]
    outputs: dict[str, tuple[int, ...]]
    mirror: _Mirror
    blocks: Blocks = Blocks()
    callers: Callers = Callers()


def _compare_with_judge(guard: Guard, view: _View, alpha: float, failed: Any, holds: Any, row: int) -> None:
    """One of the rollouts, by the product itself. Raises AssertionError where it finds another."""
    strata, world, of = [], view.world, [row]
    latencies, others = (view.counts(each, of)[:, 0] for each in (world.tails, world.other_tails))
    squares, products = (view.buckets(each, of)[:, 0] for each in (world.squares, world.products))
    for step in range(len(view.mine)):
        compared = int(view.compared[step, row])
        mirror = _Mirror(compared, 0, compared, int(view.disagreed[step, row]), {}, {})
        sums = [_by_bucket(each[step]) for each in (latencies, others, squares, products)]
        blocks = Blocks(count=int(world.blocks[view.rows[row], step]), squares=sums[2], products=sums[3])
        strata.append(
            Stratum(
                _Seen(int(view.others[step, row]), int(view.other_errors[step, row]), sums[1], {}, mirror),
                _Seen(int(view.mine[step, row]), int(view.errors[step, row]), sums[0], {}, mirror, blocks),
            )
        )
    verdict = judge(guard, strata, alpha=alpha)
    assert (verdict.outcome == "fail") == failed[row], (guard, verdict)
    assert (verdict.numbers.get("holds", 0.0) == 1.0) == holds[row], (guard, verdict)


def _by_bucket(counts: Any) -> dict[int, int]:
    return {FIRST + place: int(count) for place, count in enumerate(counts) if count}


def run() -> list[Item]:
    """The issue's three figures on the first set of guards, and false alarms on the others."""
    mixed = SETS["mixed"]
    items = []
    for name, guards in SETS.items():
        found = simulate(guards, EQUAL)
        note = f"{', '.join(guards)}; {found.finished.mean():.0%} reached 100 %"
        items.append(_item(f"rollouts-equal-rolled-back-{name}", 100 * found.caught(), 5, "lower", note))
    failing, slow = simulate(mixed, FAILING), simulate(mixed, SLOW)
    items.append(_item("rollouts-errors-caught-in-2000", 100 * failing.caught(2000), 95, "higher", f"median {failing.median:,.0f} requests"))
    items.append(_item("rollouts-slow-caught-in-500", 100 * slow.caught(500), 95, "higher", f"median {slow.median:,.0f} requests"))
    return items


def _item(name: str, figure: float, bar: float, better: Any, note: str) -> Item:
    return Item(name=name, figure=figure, unit="%", bar=bar, better=better, note=note)


def table() -> str:
    """Sets of guards against candidates, as Markdown."""
    head = "| guards | candidate | rolled back | within 500 of its requests | within 2,000 | half of all by | reached the end |\n"
    head += "|---|---|---:|---:|---:|---:|---:|\n"
    candidates = (EQUAL, STALLS, FAILING, HALF, SLOW, QUARTER)
    rows = [_row(guards, candidate, simulate(guards, candidate)) for guards in SETS.values() for candidate in candidates]
    return head + "\n".join(rows)


def _row(guards: Sequence[str], candidate: Candidate, found: Ended) -> str:
    half = f"{found.median:,.0f}" if math.isfinite(found.median) else "never"
    shares = [100 * found.caught(), 100 * found.caught(500), 100 * found.caught(2000)]
    told = " | ".join(f"{share:.1f} %" for share in shares)
    return f"| `{'`, `'.join(guards)}` | {candidate.name} | {told} | {half} | {100 * found.finished.mean():.1f} % |"
