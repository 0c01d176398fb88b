"""Answers a bundle's golden rows again and judges the answers: the proof that a model is itself wherever it lands.

Hides which batch sizes are tried and how time is taken. It must not load a converter: a worker runs this before it says ready.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from modelyard.errors import ModelFailed
from modelyard.runtime.parity import BatchBits, prove
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.runtime.base import Runtime
    from modelyard.types import Array, Schema, Tolerance

BATCHES = (1, 2, 7, 64)
"""Sizes at which runtimes are known to change their path: one row, a pair, an odd few, a full tick."""


class GoldenRecords(Protocol):
    """Golden rows and the answers that were found at packaging."""

    @property
    def inputs(self) -> dict[str, Array]: ...
    @property
    def outputs(self) -> dict[str, Array]: ...


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What replaying found. `seconds_per_row` is the median of single rows, `seconds_per_more` what each row of the largest batches took beyond
    the first; `identical_bits` holds over all batch sizes.
    """

    verdict: Verdict
    seconds_per_row: float
    seconds_per_more: float = 0.0
    identical_bits: bool


def replay(runtime: Runtime, golden: GoldenRecords, schema: Schema, tolerance: Tolerance) -> Replay:
    """Answer all golden rows in batches of 1, 2, 7 and 64; pass when every answer lies within tolerance of the recorded one."""
    rows = len(next(iter(golden.inputs.values())))
    identical = True
    largest, seconds, of_many = 0.0, [], 0.0
    for size in BATCHES:
        try:
            answers, times = answer_in_batches(runtime, golden.inputs, size)
        except ModelFailed as error:
            cause = type(error.__cause__ or error).__name__
            verdict = Verdict(outcome="fail", rule="golden-replay", evidence=f"the model failed on a golden row in a batch of {size} ({cause})")
            return Replay(verdict=verdict, seconds_per_row=0.0, identical_bits=False)
        if size == 1:
            seconds = times
        elif rows >= size:
            of_many = max(0.0, min(times[: rows // size]) - min(seconds)) / (size - 1)
        parity = prove(golden.outputs, answers, schema, tolerance)
        largest = max([largest, *(difference.max_abs for difference in parity.outputs.values())])
        identical = identical and all(same_bits(golden.outputs[name], answers[name]).all() for name in answers)
        if not parity.passed:
            evidence = f"in batches of {size}: {parity.describe()}"
            numbers = {"rows": float(rows), "batch": float(size)}
            verdict = Verdict(outcome="fail", rule="golden-replay", evidence=evidence, numbers=numbers)
            return Replay(verdict=verdict, seconds_per_row=_median(seconds), identical_bits=False)
    evidence = f"{rows} golden rows answered in batches of 1, 2, 7 and 64: " + (
        "identical bits" if identical else f"largest difference {largest:.2g}"
    )
    verdict = Verdict(outcome="pass", rule="golden-replay", evidence=evidence, numbers={"rows": float(rows), "max_abs": largest})
    each = _median(seconds)
    return Replay(verdict=verdict, seconds_per_row=each, seconds_per_more=min(of_many, each) if rows > 1 else each, identical_bits=identical)


def batch_bits(runtime: Runtime, inputs: Mapping[str, Array], recorded: Mapping[str, Array]) -> dict[str, BatchBits]:
    """By how much the answers to the same rows differ from `recorded` at each batch size."""
    found = {}
    for size in BATCHES:
        answers, _ = answer_in_batches(runtime, inputs, size)
        differ = np.zeros(len(next(iter(recorded.values()))), bool)
        largest = 0.0
        for name, answer in answers.items():
            differ |= ~same_bits(recorded[name], answer)
            if answer.dtype.kind == "f":
                delta = np.abs(answer.astype(np.float64) - recorded[name].astype(np.float64))
                largest = max(largest, float(np.nan_to_num(delta).max(initial=0.0)))
        found[str(size)] = BatchBits(rows=int(differ.sum()), max_abs=largest)
    return found


def answer_in_batches(runtime: Runtime, inputs: Mapping[str, Array], size: int) -> tuple[dict[str, Array], list[float]]:
    """All answers, asked for `size` rows at a time, and the seconds of each run; one unmeasured run goes first."""
    rows = len(next(iter(inputs.values())))
    runtime.predict({name: array[:size] for name, array in inputs.items()})
    parts, seconds = [], []
    for at in range(0, rows, size):
        part = {name: array[at : at + size] for name, array in inputs.items()}
        start = time.perf_counter()
        parts.append(runtime.predict(part))
        seconds.append(time.perf_counter() - start)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, seconds


def _median(values: list[float]) -> float:
    """By hand: the library's brings fractions and random along, numpy's the masked arrays, and every start of a worker asks this once."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def same_bits(first: Array, second: Array) -> Array:
    """Per row, whether both arrays hold the same bits; NaN equals the same NaN, -0.0 is not 0.0."""
    rows = len(first)
    if first.shape != second.shape or first.dtype != second.dtype:
        return np.zeros(rows, bool)
    if first.dtype.kind == "f":
        as_bits = np.dtype(f"u{first.dtype.itemsize}")
        first, second = np.ascontiguousarray(first).view(as_bits), np.ascontiguousarray(second).view(as_bits)
    return np.asarray((first == second).reshape(rows, -1).all(axis=1))
