"""Beside bar 5: what the operations detector pages in a quiet month, and how soon it pages when something happens.

Made-up months of minutes of one deployment: traffic with a day and a week in it, latencies that rise with the traffic and have a long tail, failures
now and then, memory that wanders, a night job that takes processor time. Nothing is wrong in them until something is made to be.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.items import Item
from modelyard.events import Failures, Latencies, Use
from modelyard.monitor.base import Evidence, Minute, Reference
from modelyard.monitor.growth import Growth
from modelyard.monitor.operations import GROWTH, METRICS, MONTH_HOURS, Operations, growing
from modelyard.monitor.profile import Profile
from modelyard.types import Digest, Schema

SEEDS = 5
DAYS, DAY = 30, 1440
BEGIN = 1_699_920_000  # a Tuesday, at midnight
BUDGET = 0.2
"""The detector's share of one false page a month, of five detectors that page."""
AT = 20 * DAY + DAY // 2
"""When something begins to be wrong: at noon of the twenty-first day."""
RELEASE = 15 * DAY + 480
"""When a release comes in the months of memory."""
DIGEST = Digest("sha256:" + "0" * 64)
REFERENCE = Reference(DIGEST, Schema(inputs=(), outputs=(), layout="tensors", task="other"), Profile(features=()), {}, {})


class Wrong(NamedTuple):
    """What is wrong from `at` on, as factors of what is usual; `failing` is added to the share of failures."""

    at: int = DAYS * DAY
    slow: float = 1.0
    failing: float = 0.0
    cpu: float = 1.0
    memory: float = 1.0
    queued: float = 0.0
    traffic: float = 1.0


WRONGS: dict[str, Wrong] = {
    "latency_p50": Wrong(slow=3.0),
    "error_rate": Wrong(failing=0.3),
    "queue": Wrong(queued=50.0),
    "cpu": Wrong(cpu=3.0),
    "memory": Wrong(memory=1.8),
    "throughput": Wrong(traffic=0.0),
}


def run(data: Path) -> list[Item]:
    """Quiet months, then each wrong by itself, after twenty quiet days. The data is made up; `data` holds none of it."""
    pages = [quiet(seed) for seed in range(SEEDS)]
    worst = max(pages, key=sum)
    dummy = DAYS * DAY / 100
    known = _pages(minutes(SEEDS, Wrong(), until=AT))[2]
    delays = {name: delay(name, wrong._replace(at=AT), known) for name, wrong in WRONGS.items()}
    told = ", ".join(f"{name} {minutes:.0f}" for name, minutes in delays.items())
    by_metric = ", ".join(f"{name} {count}" for name, count in zip((*METRICS, GROWTH), np.sum(pages, axis=0), strict=True) if count)
    return [
        Item(
            name="operations_quiet",
            figure=sum(map(sum, pages)) / SEEDS,
            unit=" pages/month",
            bar=BUDGET,
            better="lower",
            note=f"{SEEDS} months of {len(METRICS) + 1} metrics; the worst has {sum(worst)}{f' ({by_metric})' if by_metric else ''}; "
            f"an alarm every 100 minutes {dummy:.0f}",
        ),
        Item(
            name="operations_delay",
            figure=max(delays.values()),
            unit=" minutes",
            bar=5,
            better="lower",
            note=f"until it pages, by what is wrong: {told}; an alarm every 100 minutes 50 on average",
        ),
        *leaks(),
    ]


def leaks() -> list[Item]:
    """Months in which memory goes up and down, and such with a leak of a hundredth an hour: from noon of the twenty-first day, and of a release."""
    pages = [_grows(memory(seed)) for seed in range(SEEDS)]
    late = [_grows(memory(seed, leak_at=AT)) for seed in range(SEEDS)]
    fresh = [_grows(memory(seed, leak_at=RELEASE), released=RELEASE) for seed in range(SEEDS)]
    found = [(min((when for when in each if when > at), default=math.inf) - at) / 60 for at, all_ in ((AT, late), (RELEASE, fresh)) for each in all_]
    return [
        Item(
            name="operations_leak_quiet",
            figure=sum(map(len, pages)) / SEEDS,
            unit=" pages/month",
            bar=BUDGET / (len(METRICS) + 1),
            better="lower",
            note=f"{SEEDS} months with warm-ups, a cycle of the day and one of the week, a cache that fills for six hours, and wandering",
        ),
        Item(
            name="operations_leak_delay",
            figure=max(found),
            unit=" hours",
            bar=72,
            better="lower",
            note=f"until 1 % an hour pages: in a release that served {', '.join(f'{each:.0f}' for each in found[:SEEDS])}; "
            f"of one that leaks from its start {', '.join(f'{each:.0f}' for each in found[SEEDS:])}",
        ),
    ]


def memory(seed: int, *, leak_at: int = DAYS * DAY, rate: float = 1.01) -> np.ndarray:
    """Resident bytes of a worker by the minute of a month: it warms up, follows the day and the week, fills a cache, wanders, and leaks."""
    rng = np.random.default_rng(seed)
    at = np.arange(DAYS * DAY)
    weekend = (at // DAY + 1) % 7 >= 5
    warm = -0.4 * np.exp(-at / 300) - 0.4 * np.where(at >= RELEASE, np.exp(-(at - RELEASE) / 300), 0.0)
    cache = 0.3 * np.clip((at - 12 * DAY - 600) / 360, 0.0, 1.0)
    wander = np.zeros(len(at))
    for minute, step in enumerate(rng.normal(scale=0.002, size=len(at)).tolist()):
        wander[minute] = 0.998 * wander[minute - 1] + step
    day = 0.12 * np.sin(2 * np.pi * (at % DAY) / DAY - np.pi / 2) - 0.1 * weekend
    leaked = np.log(rate) * np.maximum(0, at - leak_at) / 60
    return np.asarray(3e8 * np.exp(warm + cache + wander + day + leaked + rng.normal(scale=0.01, size=len(at))))


def _grows(memory: np.ndarray, *, released: int = RELEASE) -> list[int]:
    """At which minutes the growth of memory begins to fail; a release comes at minute `released`."""
    growth, before, found = Growth(), False, []
    for at, size in enumerate(np.log2(memory).tolist()):
        if at == released:
            growth.begin()
        growth.see(60.0 * at, size)
        if at % 60 == 0:
            fails = growing(growth, BUDGET / (len(METRICS) + 1) / MONTH_HOURS).outcome == "fail"
            if fails and not before:
                found.append(at)
            before = fails
    return found


def quiet(seed: int) -> list[int]:
    """How often each metric begins to fail in a month."""
    return _pages(minutes(seed, Wrong(), until=DAYS * DAY))[0]


def delay(name: str, wrong: Wrong, known: bytes) -> float:
    """How many minutes after it began the metric `name` pages, to one who has judged all before; infinite where it does not within an hour."""
    failing = _pages(minutes(SEEDS, wrong, since=wrong.at, until=wrong.at + 60), known, turn=1)[1]
    found = [at for at, metrics in failing.items() if name in metrics]
    return min(found) + 1 if found else math.inf


def _pages(course: list[Minute], state: bytes = b"", *, turn: int = 10) -> tuple[list[int], dict[int, set[str]], bytes]:
    """The beginnings of failures by metric, what fails by minute, and the state; so many minutes are judged together."""
    detector = Operations()
    before: set[str] = set()
    began = dict.fromkeys((*METRICS, GROWTH), 0)
    failing: dict[int, set[str]] = {}
    for at in range(turn - 1, len(course), turn):
        fresh = [minute for minute in course[at - turn + 1 : at + 1] if minute.requests or minute.failures]
        now = course[at].start + (90.0 if fresh else 180.0)
        judged = detector.judge(Evidence("m", REFERENCE, fresh, fresh, None, BUDGET, now), state)
        state = judged.state
        failing[at] = {verdict.rule.partition(":")[2] for verdict in judged.verdicts if verdict.outcome == "fail"}
        for name in failing[at] - before:
            began[name] += 1
        before = failing[at]
    return list(began.values()), failing, state


def minutes(seed: int, wrong: Wrong, *, since: int = 0, until: int) -> list[Minute]:
    """The minutes of one deployment; those before it are the same whatever is wrong from `wrong.at` on."""
    rng = np.random.default_rng(seed)
    at = np.arange(until)
    day = np.sin(2 * np.pi * (at % DAY) / DAY - np.pi / 2)
    weekend = (at // DAY + 1) % 7 >= 5
    walks = np.cumsum(rng.normal(size=(until, 2)), axis=0)
    load = np.exp(5.5 + 1.2 * day - 0.5 * weekend + 0.002 * walks[:, 0])
    memory = 3e8 * np.exp(0.02 * np.sin(0.02 * walks[:, 1]))
    night = (at % DAY >= 180) & (at % DAY < 200)
    is_wrong = at >= wrong.at
    load = np.where(is_wrong, load * wrong.traffic, load)
    found = []
    for minute in range(since, until):
        rng = np.random.default_rng((seed, minute))
        count = int(rng.poisson(load[minute] * rng.lognormal(sigma=0.05)))
        slow = wrong.slow if is_wrong[minute] else 1.0
        busy = 0.003 * (1 + load[minute] / 2000) * slow * rng.lognormal(sigma=0.03)
        sampled = np.minimum(busy * rng.lognormal(sigma=0.4, size=min(count, 400)) * (1 + rng.pareto(3, size=min(count, 400)) * 0.1), 10.0)
        latencies = Latencies()
        latencies.add(sampled.tolist())
        share = 1e-4 + (wrong.failing if is_wrong[minute] else 0.0) + (0.02 if rng.random() < 1e-3 else 0.0)
        bad = int(rng.binomial(count, share))
        cpu = 900 * (wrong.cpu if is_wrong[minute] else 1.0) * (1.3 if night[minute] else 1.0) * rng.lognormal(sigma=0.05)
        use = Use(
            looks=120,
            cpu_us=int(count * cpu + 5e4),
            resident_bytes=int(120 * memory[minute] * (wrong.memory if is_wrong[minute] else 1.0)),
            queued=int(rng.poisson(120 * (0.02 * load[minute] / 300 + (wrong.queued if is_wrong[minute] else 0.0)))),
        )
        failures = {"model_failed": Failures(requests=bad, seconds=0.0)} if bad else {}
        found.append(Minute(BEGIN + 60 * minute, 1, DIGEST, count - bad, count, latencies.buckets(), failures, {}, None, use))
    return found
