"""monitor.estimate.calibration: a rising curve near the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.monitor.estimate import calibration


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 10)), min_size=1, max_size=30))
def test_pooling_is_isotonic_regression(pairs: list[tuple[float, float]]) -> None:
    from scipy.optimize import isotonic_regression

    values, weights = map(np.array, zip(*pairs, strict=True))
    assert calibration.pool(values, weights) == pytest.approx(isotonic_regression(values, weights=weights).x, abs=1e-9)


def test_the_curve_finds_how_often_a_score_comes_true() -> None:
    draw = np.random.default_rng(0)
    score = draw.random(40_000)
    truth = draw.random(40_000) < score**2
    curve = calibration.fit(score, truth)
    asked = np.linspace(0.05, 0.95, 19)
    assert np.abs(curve(asked) - asked**2).max() < 0.05
    assert (np.diff(curve(np.linspace(0, 1, 999))) >= 0).all()


def test_it_never_says_never() -> None:
    curve = calibration.fit(np.linspace(0, 1, 1000), np.linspace(0, 1, 1000) > 0.5)
    assert 0 < curve(np.array([-5.0]))[0] < curve(np.array([5.0]))[0] < 1


def test_equal_scores_stand_together_and_a_missing_one_has_the_mean() -> None:
    curve = calibration.fit(np.array([0.3] * 6 + [0.8] * 4), np.array([1, 0, 0, 0, 0, 0, 1, 1, 1, 0]))
    assert curve(np.array([0.3, 0.8])) == pytest.approx([1 / 6, 3 / 4], rel=1e-5)
    assert np.isfinite(curve(np.array([np.nan]))).all()
