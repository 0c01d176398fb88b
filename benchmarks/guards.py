"""Whether guards judge right: a thousand rollouts at a time, drawn at random, each judged once a second by the product's own tests.

The champion fails 0.5 % of its requests and answers in lognormal times (deviation 0.5 of the logarithm, median about 10 ms); 500 requests arrive a
second, and the candidate's share goes 1, 10, 50, 100 % once a step has had its least time and requests and every estimate keeps to its bound. Each
rollout's median lies elsewhere in a bucket of the latency counts. All rollouts of one step are judged in one array; now and then one of them is
judged by `judge` as well, which must agree.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
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
    world = _World(rng, candidate, rollouts)
    judged = [parse(text) for text in guards]
    alpha = ALPHA / len(judged)
    ended, finished = np.full(rollouts, math.inf), np.zeros(rollouts, dtype=bool)
    alive = np.ones(rollouts, dtype=bool)
    for second in range(candidate.until_s):
        world.second(alive)
        now = world.step.copy()  # what enters a step has had none of its traffic yet
        for step in range(len(STEPS)):
            these = np.flatnonzero(alive & (now == step))
            if not len(these):
                continue
            view = world.view(these, step)
            failed, holds = np.zeros(len(these), dtype=bool), np.ones(len(these), dtype=bool)
            for guard in judged:
                found, side = _judge(guard, view, math.log(1 / alpha))
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
    """What has been counted of all rollouts, by step: requests and errors of both, latencies by bucket, rows compared and different."""

    def __init__(self, rng: np.random.Generator, candidate: Candidate, rollouts: int) -> None:
        self.rng, self.candidate = rng, candidate
        shape = (rollouts, len(STEPS))
        self.mine, self.errors, self.others, self.other_errors, self.compared, self.disagreed = (np.zeros(shape) for _ in range(6))
        self.latencies, self.other_latencies, self.squares, self.products = (np.zeros((*shape, BUCKETS)) for _ in range(4))
        self.blocks = np.zeros(shape)
        self.step, self.since = np.zeros(rollouts, dtype=int), np.zeros(rollouts, dtype=int)
        offset = rng.uniform(0, math.log(2) / 8, rollouts)
        self.chances = [_chances(offset + math.log(each)) for each in (1.0, candidate.slower)]
        self.stalled = [_chances(offset + math.log(3 * each)) for each in (1.0, candidate.slower)]

    def second(self, alive: Any) -> None:
        """One more second of traffic, of the rollouts that go on."""
        rows, rng = np.flatnonzero(alive), self.rng
        steps, made = self.step[rows], self.candidate
        mine = rng.binomial(RATE, np.array(STEPS)[steps])
        others = RATE - mine
        errors, other_errors = rng.binomial(mine, made.errors), rng.binomial(others, EQUAL.errors)
        stalled = rng.random(len(rows)) < (0.02 if made.stalls else 0.0)
        chances = [np.where(stalled[:, None], slow[rows], usual[rows]) for usual, slow in zip(self.chances, self.stalled, strict=True)]
        place = rows, steps
        self.mine[place] += mine
        self.errors[place] += errors
        self.others[place] += others
        self.other_errors[place] += other_errors
        answered = rng.multinomial(mine - errors, chances[1])
        self.latencies[place] += answered
        self.squares[place] += answered * (2 * np.cumsum(answered[:, ::-1], axis=1)[:, ::-1] - answered)
        self.products[place] += answered * answered.sum(axis=1, keepdims=True)
        self.blocks[place] += answered.any(axis=1)
        self.other_latencies[place] += rng.multinomial(others - other_errors, chances[0])
        compared = rng.binomial(others - other_errors, MIRROR)
        self.compared[place] += compared
        self.disagreed[place] += rng.binomial(compared, made.disagrees)
        self.since[rows] += 1

    def view(self, rows: Any, step: int) -> _View:
        """Of some rollouts that are at one step: [step so far, rollout]."""
        pick = np.ix_(rows, range(step + 1))
        return _View(
            *(each[pick].T for each in (self.errors, self.mine, self.other_errors, self.others, self.disagreed, self.compared)),
            *(np.swapaxes(each[pick], 0, 1) for each in (self.latencies, self.other_latencies, self.squares, self.products)),
            self.blocks[pick].T,
        )


class _View(NamedTuple):
    errors: Any
    mine: Any
    other_errors: Any
    others: Any
    disagreed: Any
    compared: Any
    latencies: Any
    other_latencies: Any
    squares: Any
    products: Any
    blocks: Any


def _chances(log_median: Any) -> Any:
    """Of each bucket, for medians of 10 ms · exp(log_median)."""
    ends = np.log([bucket_edge_s(FIRST + place) for place in range(1, BUCKETS)])
    z = (ends - (math.log(0.01) + log_median)[:, None]) / 0.5
    below = np.vectorize(lambda each: 0.5 * math.erfc(-each / math.sqrt(2)))(z)
    edges = np.concatenate([np.zeros((len(below), 1)), below, np.ones((len(below), 1))], axis=1)
    return np.diff(edges, axis=1)


def _judge(guard: Guard, view: _View, needed: float) -> tuple[Any, Any]:
    """Which rollouts the guard fails, and of which the estimate holds."""
    if guard.metric.startswith("p"):
        return _judge_latency(guard, view, needed)
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
        holds = hits[last] / np.maximum(trials[last], 1) < line[0] * two.other_hits[last] / np.maximum(two.other_trials[last], 1) + line[1]
        return _exceeds(two, line, needed), holds
    steps = range(len(hits))
    failed = evalues.from_any_step(lambda first: evalues.above(hits[first:].sum(axis=0), trials[first:].sum(axis=0), line[1]), len(steps)) >= needed
    if guard.metric != "disagreement":
        doubted = np.flatnonzero(failed & (champion > line[1]))
        if len(doubted):
            failed[doubted] = _exceeds(evalues.Two(*(each[:, doubted] for each in two)), (1.0, 0.0), needed)
    return failed, estimate < line[1]


def _exceeds(two: evalues.Two, line: evalues.Line, needed: float) -> Any:
    """Which reach the evidence: the product at the champion's own share is never less than the least, so most need no search."""
    theta = np.clip((two.other_hits + 0.5) / (two.other_trials + 1), 1e-9, 1 - 1e-9)
    found = evalues.from_any_step(list(evalues.at_share(theta, two, line)), len(two.hits)) >= needed
    near = np.flatnonzero(found)
    if len(near):
        close = evalues.Two(*(each[:, near] for each in two))
        found[near] = evalues.from_any_step(list(evalues.exceeds(close, line)), len(two.hits)) >= needed
    return found


def _judge_latency(guard: Guard, view: _View, needed: float) -> tuple[Any, Any]:
    share = int(guard.metric[1:]) / 100
    mine, other = view.latencies, view.other_latencies
    last = -2 if guard.compares and len(mine) == len(STEPS) else -1
    champion = latency.quantile(other[last], FIRST, share)
    bound = np.full(mine.shape[1], guard.limit)
    if guard.compares:
        bound = guard.limit * champion if guard.form == "ratio" else guard.limit + champion
    holds = latency.quantile(mine[last], FIRST, share) < bound
    if not guard.compares:
        found = evalues.from_any_step(lambda first: latency.slower(mine[first:].sum(axis=0), FIRST, share, guard.limit), len(mine)) >= needed
        for row in np.flatnonzero(found):
            found[row] = _by_seconds(view, row, share, guard.limit) >= needed
        doubted = np.flatnonzero(found & (np.where(other[-1].any(axis=1), champion, latency.quantile(other.sum(axis=0), FIRST, share)) > guard.limit))
        if len(doubted):
            steps = [
                latency.slower_than(mine[step, doubted], other[step, doubted], FIRST, share, lambda seconds: seconds) for step in range(len(mine))
            ]
            found[doubted] = evalues.from_any_step(steps, len(mine)) >= needed
        return found, holds
    found = evalues.from_any_step([_at_champion(mine[step], other[step], share, guard) for step in range(len(mine))], len(mine)) >= needed
    near = np.flatnonzero(found)
    if len(near):
        steps = [latency.slower_than(mine[step, near], other[step, near], FIRST, share, guard.bound) for step in range(len(mine))]
        found[near] = evalues.from_any_step(steps, len(mine)) >= needed
    return found, holds


def _by_seconds(view: _View, row: int, share: float, limit: float) -> float:
    """The evidence of one rollout by what its seconds have to do with one another."""

    def since(first: int) -> Any:
        blocks = latency.Blocks(*(each[first:, row].sum(axis=0) for each in (view.blocks, view.squares, view.products)))
        return np.asarray(latency.slower_by_blocks(view.latencies[first:, row].sum(axis=0), blocks, FIRST, share, limit))

    return float(evalues.from_any_step(since, len(view.mine)))


def _at_champion(mine: Any, other: Any, share: float, guard: Guard) -> Any:
    """The product of `slower_than` at the champion's own quantile alone: never less than the least, so most rollouts need no search."""
    moved = [math.ceil(bucket_place(guard.bound(bucket_edge_s(FIRST + cell + 1)))) - FIRST for cell in range(BUCKETS)]
    tails, other_tails = (np.concatenate([np.cumsum(each[:, ::-1], axis=1)[:, ::-1], np.zeros((len(each), 1))], axis=1) for each in (mine, other))
    cell = np.minimum((np.cumsum(other, axis=1) < share * other.sum(axis=1, keepdims=True)).sum(axis=1), BUCKETS - 1)
    rows = np.arange(len(mine))
    hits = tails[rows, np.clip(np.array(moved)[cell], 0, BUCKETS)]
    first = evalues.above(hits, mine.sum(axis=1), 1 - share)
    product = first + evalues.hedged(evalues.below(other_tails[rows, cell], other.sum(axis=1), 1 - share))
    return np.where(other.any(axis=1), product, 0.0)  # without the champion the least is nothing


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
    strata = []
    for step in range(len(view.mine)):
        compared = int(view.compared[step, row])
        mirror = _Mirror(compared, 0, compared, int(view.disagreed[step, row]), {}, {})
        counts = [
            {FIRST + place: int(count) for place, count in enumerate(each[step, row]) if count} for each in (view.latencies, view.other_latencies)
        ]
        sums = ({FIRST + place: int(value) for place, value in enumerate(each[step, row]) if value} for each in (view.squares, view.products))
        blocks = Blocks(count=int(view.blocks[step, row]), squares=next(sums), products=next(sums))
        strata.append(
            Stratum(
                _Seen(int(view.others[step, row]), int(view.other_errors[step, row]), counts[1], {}, mirror),
                _Seen(int(view.mine[step, row]), int(view.errors[step, row]), counts[0], {}, mirror, blocks),
            )
        )
    verdict = judge(guard, strata, alpha=alpha)
    assert (verdict.outcome == "fail") == failed[row], (guard, verdict)
    assert (verdict.numbers.get("holds", 0.0) == 1.0) == holds[row], (guard, verdict)


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
