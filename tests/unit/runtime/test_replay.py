"""Replaying golden rows: passes for the model that it is, fails for another, at any batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from modelyard.errors import ModelFailed
from modelyard.runtime.replay import BATCHES, answer_in_batches, batch_bits, replay, same_bits
from modelyard.types import Schema, TensorSpec, Tolerance

SCHEMA = Schema(
    inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 2)),),
    outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),),
    layout="array",
    task="regression",
)


class Sum:
    """Adds the columns; `wrong(rows)` says by how much it errs in a batch of so many."""

    def __init__(self, wrong: Any = lambda rows: 0.0) -> None:
        self._wrong = wrong
        self.sizes: list[int] = []

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(inputs["X"])
        self.sizes.append(rows)
        return {"prediction": inputs["X"].sum(axis=1) + self._wrong(rows)}

    def close(self) -> None:
        """Holds nothing."""


class Golden:
    """Seventy rows and their sums."""

    def __init__(self) -> None:
        self.inputs = {"X": np.random.default_rng(0).normal(size=(70, 2))}
        self.outputs = {"prediction": self.inputs["X"].sum(axis=1)}


def test_the_same_model_passes_with_identical_bits_in_every_batch_size() -> None:
    runtime = Sum()
    found = replay(runtime, Golden(), SCHEMA, Tolerance())
    assert (found.verdict.outcome, found.identical_bits) == ("pass", True)
    assert 0 <= found.seconds_per_more <= found.seconds_per_row > 0
    assert set(BATCHES) < set(runtime.sizes)
    assert "identical bits" in found.verdict.evidence


def test_other_bits_within_tolerance_pass_and_are_told() -> None:
    found = replay(Sum(lambda rows: 1e-9 if rows == 7 else 0.0), Golden(), SCHEMA, Tolerance())
    assert (found.verdict.outcome, found.identical_bits) == ("pass", False)
    assert found.verdict.numbers["max_abs"] == pytest.approx(1e-9, rel=1e-3)


@pytest.mark.parametrize("size", BATCHES)
def test_an_error_at_one_batch_size_fails_and_names_it(size: int) -> None:
    found = replay(Sum(lambda rows: 0.1 if rows == size else 0.0), Golden(), SCHEMA, Tolerance())
    assert found.verdict.outcome == "fail"
    assert f"in batches of {size}:" in found.verdict.evidence
    assert "output 'prediction', row" in found.verdict.evidence


def test_a_model_that_fails_is_a_verdict_not_an_exception() -> None:
    class Broken(Sum):
        def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            raise ModelFailed("the model failed") from MemoryError()

    found = replay(Broken(), Golden(), SCHEMA, Tolerance())
    assert found.verdict.outcome == "fail"
    assert "MemoryError" in found.verdict.evidence


def test_bits_are_counted_by_row() -> None:
    golden = Golden()
    found = batch_bits(Sum(lambda rows: 1e-16 if rows == 2 else 0.0), golden.inputs, golden.outputs)
    assert found["1"].rows == 0
    assert 0 < found["2"].rows <= 70
    assert found["2"].max_abs < 1e-15


def test_same_bits() -> None:
    assert same_bits(np.array([0.0, np.nan, 1.0]), np.array([-0.0, np.nan, 1.0])).tolist() == [False, True, True]
    assert same_bits(np.array(["a", "b"], object), np.array(["a", "c"], object)).tolist() == [True, False]
    assert not same_bits(np.zeros(2), np.zeros(2, np.float32)).any()


def test_answers_keep_their_rows_in_order() -> None:
    golden = Golden()
    answers, seconds = answer_in_batches(Sum(), golden.inputs, 7)
    np.testing.assert_array_equal(answers["prediction"], golden.outputs["prediction"])
    assert len(seconds) == 10
