"""monitor.estimate.reconcile: an error is corrected as far as labels bear it out."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.monitor.estimate.reconcile import NONE, Pair, reconcile


def pairs(bias: float, count: int = 12, seed: int = 0, deviation: float = 0.01) -> list[Pair]:
    draw = np.random.default_rng(seed)
    return [Pair(0.9, 0.9 + bias + draw.normal(0, deviation), 500, deviation**2) for _ in range(count)]


def test_a_lasting_error_is_found_and_corrected() -> None:
    found = reconcile(pairs(-0.05))
    assert found.windows == 12 and found.bias == pytest.approx(-0.05, abs=0.01)
    assert found.correction == pytest.approx(-0.05, abs=0.01) and found.error == pytest.approx(0.01 / 12**0.5, rel=0.7)


def test_chance_is_hardly_corrected() -> None:
    corrected = [abs(reconcile(pairs(0.0, seed=seed)).correction) for seed in range(200)]
    assert np.mean(corrected) < 0.0025, "the mean's own error is .0029"
    mended = [abs(reconcile(pairs(-0.03, seed=seed)).correction + 0.03) for seed in range(200)]
    assert np.mean(mended) < 0.01, "negative control: what is there is corrected"


def test_few_windows_are_shown_and_correct_nothing() -> None:
    found = reconcile(pairs(-0.05, count=2))
    assert found.windows == 2 and found.bias < -0.03 and found.correction == 0


def test_windows_that_disagree_make_it_less_certain() -> None:
    draw = np.random.default_rng(0)
    wild = [Pair(0.9, 0.9 + draw.normal(0, 0.1), 500, 1e-4) for _ in range(12)]
    assert reconcile(wild).error > 5 * reconcile(pairs(0.0)).error


@pytest.mark.parametrize(
    "pair", [Pair(0.9, 0.8, 5, 0.01), Pair(0.9, float("nan"), 500, 0.01), Pair(0.9, 0.8, 500, 0.0), Pair(0.9, 0.8, 500, float("inf"))]
)
def test_windows_that_say_nothing_do_not_count(pair: Pair) -> None:
    assert reconcile([pair]) == NONE == reconcile([])
