"""What counting every prediction costs: rows of 20 numbers, one at a time (an idle endpoint) and in blocks (a busy one)."""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.items import Item, spread

FEATURES, ROUNDS = 20, 5


def run() -> list[Item]:
    """Microseconds per single row, and rows per second in batch, of one Binner on one core."""
    from modelyard.monitor import profile
    from modelyard.types import Schema, TensorSpec

    X = np.random.default_rng(0).normal(size=(10_000, FEATURES))
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, FEATURES)),), outputs=(), layout="array", task="other")
    binner = profile.Binner(profile.measure({"X": X}, schema))
    singles = [{"X": X[row : row + 1]} for row in range(5_000)]
    block = {"X": np.tile(X, (20, 1))}

    single_us, batch_rows_s = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for row in singles:
            binner.add(row, {})
        binner.take()
        single_us.append((time.perf_counter() - started) / len(singles) * 1e6)
        started = time.perf_counter()
        binner.add(block, {})
        binner.take()
        batch_rows_s.append(20 * len(X) / (time.perf_counter() - started))
    return [
        Item(name="profile-single-row", figure=statistics.median(single_us), unit="us", bar=5, better="lower", note=spread(single_us, " µs")),
        Item(
            name="profile-batch-rows",
            figure=statistics.median(batch_rows_s) / 1000,
            unit="k/s",
            bar=500,
            better="higher",
            note=spread([rows / 1000 for rows in batch_rows_s], " k/s"),
        ),
    ]
