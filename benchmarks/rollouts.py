"""What several versions of one deployment cost: a canary's share of the traffic beside one version alone.

Servers with everything on share a core, wrk has another; rounds are many and short and alternate, so that what else the machine does meets both
sides alike, and the median of their ratios counts. The processor time of a request, which the rest of the machine changes least, stands in
the notes.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.items import Item, ratio
from benchmarks.servers import Question, Running, Wrk, processor_us, v2
from benchmarks.serving import forest

CANARY_ROUNDS = 9
CONNECTIONS = 32


def canary() -> list[Item]:
    """Throughput with a tenth of the requests at a second version, and with requests that stay with their version by a header, beside one alone."""
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
        wrk = Wrk(folder)
        with home.started(row, plan="alone") as alone, home.started(row, plan="canary") as split, home.started(row, plan="sticky") as sticky:
            return [
                _beside("canary-10-percent", wrk, (split, row), (alone, row)),
                _beside("canary-sticky", wrk, (sticky, named), (alone, named)),
            ]


def _beside(name: str, wrk: Wrk, ours: tuple[Running, Question], other: tuple[Running, Question]) -> Item:
    """Requests a second of `ours` beside `other`."""
    spent: tuple[list[float], list[float]] = ([], [])

    def rate(side: tuple[Running, Question], spent_us: list[float]) -> Callable[[], float]:
        running, question = side

        def measure() -> float:
            before = sum(processor_us(running.pid))
            requests_s = wrk.load(running.port, question, CONNECTIONS, 1).requests_s
            spent_us.append((sum(processor_us(running.pid)) - before) / requests_s)
            return requests_s

        return measure

    with_it, without = rate(ours, spent[0]), rate(other, spent[1])
    for _ in range(3):
        with_it(), without()
    spent[0].clear(), spent[1].clear()
    figure, rates, others = ratio(with_it, without, rounds=CANARY_ROUNDS)
    processor = statistics.median(a / b for a, b in zip(*spent, strict=True))
    note = (
        f"requests/s, medians of {CANARY_ROUNDS} rounds: {statistics.median(rates):,.4g}, one version alone {statistics.median(others):,.4g}; "
        f"processor time a request: {statistics.median(spent[0]):,.4g} µs, {statistics.median(spent[1]):,.4g} µs, {processor:.3f} x"
    )
    return Item(name=name, figure=figure, unit="x", bar=0.97, better="higher", note=note)
