"""What several versions of one deployment cost: a canary's share of the traffic, and a shadow of all of it, beside one version alone.

Servers with everything on share a core, wrk has another; rounds are many and short and alternate, so that what else the machine does meets both
sides alike, and the median of their ratios counts. The processor time of a request, which the rest of the machine changes least, stands in
the notes.
"""

from __future__ import annotations

import math
import re
import statistics
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.items import Item, ratio, spread
from benchmarks.servers import Load, Question, Running, Wrk, alone, processor_us, v2
from benchmarks.serving import forest

ROUNDS = 25
SHADOW_ROUNDS = 5
COST_ROUNDS = 15
SHARES = (0.1, 1.0)
CONNECTIONS = 32


def canary() -> list[Item]:
    """Throughput with a tenth of the requests at a second version, and with requests that stay with their version by a header, beside one alone.

    `canary-routing` is what choosing costs, without the second model's runs: beside both versions under names of their own, where the caller chooses.
    """
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, home = forest(folder, challengers=1)
        home.split("forest", {1: 100}, plan="alone")
        home.split("forest", {1: 90, 2: 10}, plan="canary")
        home.split("forest", {1: 90, 2: 10}, plan="sticky", sticky="header:x-user")
        row = v2("forest", load_breast_cancer().data[:1].astype(np.float32), home.authorization)
        named = row._replace(headers={**row.headers, "X-User": "ada"})
        home.serve("forest:1", "forest:2", plan="apart")
        first, second = (f"/v2/models/forest-{number}/infer" for number in (1, 2))
        chosen = row._replace(paths=[second, *[first] * 9])
        wrk = Wrk(folder)
        with ExitStack() as stack:
            alone, split, sticky = (stack.enter_context(home.started(row, plan=plan)) for plan in ("alone", "canary", "sticky"))
            apart = stack.enter_context(home.started(chosen, plan="apart"))
            return [
                _beside("canary-10-percent", wrk, (split, row), (alone, row)),
                _beside("canary-routing", wrk, (split, row), (apart, chosen), other="the caller choosing"),
                _beside("canary-sticky", wrk, (sticky, named), (alone, named)),
            ]


def shadow() -> list[Item]:
    """What a shadow of a share adds to the processor time of a request, beside the model's own run; and the live p99 at half of what a worker can.

    Both are asked by connections that pause, so that there is time to spare; a figure counts only if nearly all was mirrored. What a request takes is
    asked at a quarter of the capacity: requests that come apart take twice the time of those that come together, so at half of it a worker is all but
    busy. Last, the throughput where there is no time to spare: what a shadow takes then, it takes from callers.
    """
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, home = forest(folder, challengers=1)
        rows = load_breast_cancer().data[:1].astype(np.float32)
        np.savez(folder / "row.npz", X=rows)
        run_us = 1e6 / alone(model, folder / "row.npz", 2)
        plans = {0.0: "none", **{share: f"shadow-{share}" for share in SHARES}}
        for share, plan in plans.items():
            home.split("forest", {1: 100}, plan=plan, shadows={2: share} if share else {})
        row, wrk = v2("forest", rows, home.authorization), Wrk(folder)
        with ExitStack() as stack:
            sides = {share: stack.enter_context(home.started(row, plan=plan)) for share, plan in plans.items()}
            capacity = statistics.median(wrk.load(sides[0.0].port, row, CONNECTIONS, 1).requests_s for _ in range(3))
            half, quarter = (_Paced(wrk, row, CONNECTIONS / (capacity * part) * 1000) for part in (1 / 2, 1 / 4))
            return [
                *(_cost(share, sides[share], sides[0.0], quarter, run_us) for share in SHARES),
                _p99(sides[1.0], sides[0.0], half, capacity),
                _beside("shadow-overload", wrk, (sides[1.0], row), (sides[0.0], row)),
            ]


class _Paced:
    """Load by connections that pause."""

    def __init__(self, wrk: Wrk, question: Question, pause_ms: float) -> None:
        self._wrk, self._question, self._pause_ms = wrk, question, pause_ms

    def __call__(self, running: Running, seconds: int = 2) -> tuple[Load, float]:
        """The load, and the server's processor time a request, what it did for a shadow included."""
        before = sum(processor_us(running.pid))
        load = self._wrk.load(running.port, self._question, CONNECTIONS, seconds, pause_ms=self._pause_ms)
        return load, (sum(processor_us(running.pid)) - before) / (load.requests_s * seconds)

    def mirrored(self, running: Running) -> tuple[float, float]:
        """Requests that a shadow was asked so far, and those that were shed."""
        request = urllib.request.Request(f"http://127.0.0.1:{running.port}/metrics", headers=dict(self._question.headers))
        with urllib.request.urlopen(request) as answer:
            text = answer.read().decode()
        found = dict(re.findall(r'modelyard_mirrored_requests_total\{[^}]*outcome="(\w+)"\} (\S+)', text))
        return float(found.get("answered", 0)), float(found.get("shed", 0))


def _cost(share: float, running: Running, other: Running, ask: _Paced, run_us: float) -> Item:
    ask(running), ask(other)
    sent, shed = ask.mirrored(running)
    adds, with_it, without = [], [], []
    for number in range(COST_ROUNDS):
        mine, theirs = (ask(each)[1] for each in ((running, other) if number % 2 else (other, running)))
        if not number % 2:
            mine, theirs = theirs, mine
        with_it.append(mine), without.append(theirs)
        adds.append((mine - share * run_us) / theirs)
    now_sent, now_shed = ask.mirrored(running)
    asked, lost = now_sent - sent, now_shed - shed
    is_whole = asked > 0 and lost < 0.05 * asked
    note = (
        f"processor time a request: {statistics.median(with_it):,.4g} µs, without {statistics.median(without):,.4g} µs, less {share:g} of the "
        f"model's run of {run_us:.3g} µs; {asked:,.0f} requests mirrored, {lost:,.0f} shed"
    )
    return Item(
        name=f"shadow-cost-{share * 100:g}-percent",
        figure=statistics.median(adds) if is_whole else math.nan,
        unit="x",
        bar=1.03,
        better="lower",
        note=note,
    )


def _p99(running: Running, other: Running, ask: _Paced, capacity: float) -> Item:
    sent, shed = ask.mirrored(running)
    rates: list[float] = []

    def p99(side: Running) -> Callable[[], float]:
        def measure() -> float:
            load, _ = ask(side, 5)
            rates.append(load.requests_s)
            return load.p99_us

        return measure

    figure, mine, theirs = ratio(p99(running), p99(other), rounds=SHADOW_ROUNDS)
    now_sent, now_shed = ask.mirrored(running)
    note = (
        f"live p99 with all requests mirrored {spread(mine, '')} µs, without {spread(theirs, '')} µs, at {statistics.median(rates):,.4g} of "
        f"{capacity:,.4g} requests/s; {now_sent - sent:,.0f} mirrored, {now_shed - shed:,.0f} shed"
    )
    return Item(name="shadow-live-p99", figure=figure if now_sent > sent else math.nan, unit="x", bar=1.1, better="lower", note=note)


def _beside(name: str, wrk: Wrk, ours: tuple[Running, Question], theirs: tuple[Running, Question], *, other: str = "one version alone") -> Item:
    """Requests a second of `ours` beside `theirs`, which the note calls `other`."""
    spent: tuple[list[float], list[float]] = ([], [])

    def rate(side: tuple[Running, Question], spent_us: list[float]) -> Callable[[], float]:
        running, question = side

        def measure() -> float:
            before = sum(processor_us(running.pid))
            requests_s = wrk.load(running.port, question, CONNECTIONS, 1).requests_s
            spent_us.append((sum(processor_us(running.pid)) - before) / requests_s)
            return requests_s

        return measure

    with_it, without = rate(ours, spent[0]), rate(theirs, spent[1])
    for _ in range(3):
        with_it(), without()
    spent[0].clear(), spent[1].clear()
    figure, rates, others = ratio(with_it, without, rounds=ROUNDS)
    processor = statistics.median(a / b for a, b in zip(*spent, strict=True))
    note = (
        f"requests/s, medians of {ROUNDS} rounds: {statistics.median(rates):,.4g}, {other} {statistics.median(others):,.4g}; "
        f"processor time a request: {statistics.median(spent[0]):,.4g} µs, {statistics.median(spent[1]):,.4g} µs, {processor:.3f} x"
    )
    return Item(name=name, figure=figure, unit="x", bar=0.97, better="higher", note=note)
