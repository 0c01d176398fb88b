"""The hop to a model that is code: one row of 30 floats there and back, alone and in the crowd.

The model adds up 30 numbers. Alone: one question at a time from the event loop, the model's own time taken off. In the crowd: 32 callers in this
process, each asking again as soon as it is answered, through the very queue that serving has (`Batcher`: schema check, batches by tick, answers told
apart again); all of it counts, by the row.
"""

from __future__ import annotations

import asyncio
import statistics
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import uvloop

from benchmarks.items import Item, spread
from modelyard.runtime.isolated import Isolated, Isolation
from modelyard.runtime.isolated.pool import Code
from modelyard.runtime.validate import Checker
from modelyard.serve.admission import NORMAL
from modelyard.serve.batching import Batcher, Limits, Ran, Threads
from modelyard.types import InferenceRequest, Schema, TensorSpec

SOURCE = b"""
class Model:
    def predict(self, inputs):
        return inputs["X"].sum(axis=1)
"""
SCHEMA = Schema(
    inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 30)),),
    outputs=(TensorSpec(name="prediction", datatype="FP32", shape=(-1,)),),
    layout="array",
    task="regression",
)
ROUNDS = 5
ALONE = 3000
CALLERS = 32
CROWD = 40_000


class Asked:
    """One call of the crowd."""

    priority = NORMAL
    is_open = True

    def __init__(self, row: np.ndarray) -> None:
        self.request = InferenceRequest({"X": row}, 1)
        self.received_s = monotonic()
        self.deadline_s = self.received_s + 30


async def alone(runtime: Isolated, row: np.ndarray) -> float:
    """Median µs of one question's way there and back, without the model's own."""
    runtime.attach()
    loop = asyncio.get_running_loop()
    times: list[float] = []
    for _ in range(ALONE):
        arrived = loop.create_future()
        start = perf_counter()

        def done(outputs: Any, error: Any, seconds: float, start: float = start, arrived: asyncio.Future[None] = arrived) -> None:
            times.append(perf_counter() - start - seconds)
            arrived.set_exception(error) if outputs is None else arrived.set_result(None)

        runtime.submit({"X": row}, done, deadline_s=monotonic() + 30)
        await arrived
    return statistics.median(times[ALONE // 10 :]) * 1e6


async def crowd(runtime: Isolated, row: np.ndarray) -> float:
    """µs a row with 32 callers who ask again as soon as they are answered."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    left, answered = CROWD, 0

    def ran(run: Ran) -> None:
        nonlocal left, answered
        answered += run.rows
        for _ in run.calls:
            if left:
                left -= 1
                loop.call_soon(batcher.add, Asked(row))
        if answered == CROWD:
            finished.set_result(None)

    limits = Limits(batch_rows=1024, queue_rows=8192, inline_s=0.0003, concurrency=256)
    threads = Threads(ThreadPoolExecutor(1), 1)

    def failed(_: Any, error: Exception) -> None:
        finished.set_exception(error)

    batcher = Batcher(runtime, Checker(SCHEMA).check, limits, threads, on_ran=ran, on_failed=failed, on_left=lambda _: None)
    start = perf_counter()
    for _ in range(CALLERS):
        left -= 1
        batcher.add(Asked(row))
    await finished
    return (perf_counter() - start) / CROWD * 1e6


def run() -> list[Item]:
    """The hop alone and in the crowd."""
    row = np.random.default_rng(0).random((1, 30), np.float32)
    runtime = Isolated(Code(kind="python", entry="model:Model"), {"code/model.py": SOURCE}, SCHEMA, Isolation())

    async def measure() -> tuple[list[float], list[float]]:
        await alone(runtime, row)  # warm
        return [await alone(runtime, row) for _ in range(ROUNDS)], [await crowd(runtime, row) for _ in range(ROUNDS)]

    try:
        singles, rows = uvloop.run(measure())
    finally:
        runtime.close()
    return [
        Item(
            name="isolated-hop-idle",
            figure=statistics.median(singles),
            unit="us",
            bar=100,
            better="lower",
            note=f"one row of 30 floats, one at a time: {spread(singles, ' µs')}",
        ),
        Item(
            name="isolated-row-loaded",
            figure=statistics.median(rows),
            unit="us",
            bar=30,
            better="lower",
            note=f"{CALLERS} callers, schema check and batching included: {spread(rows, ' µs')}",
        ),
    ]
