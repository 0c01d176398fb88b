"""The scorer of the anomaly benchmark: the figures of its own tests."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from benchmarks.monitor.nab import (
    ABOVE_ALL,
    Judged,
    Series,
    alarms,
    courses,
    judge,
    left_out,
    normal,
    optimum,
    raw,
    read,
    windowed_gaussian,
    worth_at,
)

FIRST, SECOND = 0.9866142981514305, 0.8482836399575131  # of a window of two rows, as NAB's own tests have them


def series(rows: int, *windows: tuple[int, int]) -> Series:
    return Series("s", list(range(rows)), [0.0] * rows, list(windows))


def whole(rows: int, scores: list[float], *windows: tuple[int, int]) -> Judged:
    """Without a probation: the rows before it are added."""
    ahead = math.ceil(rows * 0.15 / 0.85) + 1
    moved = [(first + ahead, last + ahead) for first, last in windows]
    judged = judge(series(rows + ahead, *moved), np.array([0.0] * ahead + scores))
    return Judged(*(each[-rows:] for each in judged))


def test_silence_costs_each_window() -> None:
    assert raw([whole(7, [0] * 7, (1, 2), (4, 5))], 1.0) == -2
    assert raw([whole(5, [0] * 5)], 1.0) == 0


def test_false_alarms_far_from_any_window_cost_all() -> None:
    assert raw([whole(5, [0, 1, 0, 1, 0])], 1.0) == pytest.approx(-0.22)


def test_an_alarm_behind_a_window_costs_less() -> None:
    assert worth_at(1.0) == pytest.approx(-FIRST)
    judged = whole(10, [0] * 3 + [1] + [0] * 6, (0, 2))
    assert raw([judged], 1.0) == pytest.approx(-1 + 0.11 * worth_at(0.5))


@pytest.mark.parametrize(("row", "worth"), [(1, FIRST / FIRST), (2, SECOND / FIRST)])
def test_a_window_earns_by_its_first_alarm(row: int, worth: float) -> None:
    scores = [0.0] * 7
    scores[row] = scores[2] = 1
    assert raw([whole(7, scores, (1, 2))], 1.0) == pytest.approx(worth)
    assert raw([whole(7, scores, (1, 2), (4, 5))], 1.0) == pytest.approx(worth - 1)


def test_the_probation_counts_nowhere_and_is_bounded() -> None:
    assert len(judge(series(100), np.zeros(100)).scores) == 85
    assert len(judge(series(20_000), np.zeros(20_000)).scores) == 19_250
    assert raw([judge(series(100), np.array([1.0] * 15 + [0.0] * 85))], 1.0) == 0


def test_one_threshold_serves_all_series_and_is_the_best() -> None:
    good = whole(100, [0.2] * 50 + [0.9] + [0.2] * 49, (50, 59))
    worse = whole(100, [0.2] * 20 + [0.7] + [0.2] * 29 + [0.6] + [0.2] * 49, (50, 59))
    threshold, best = optimum([good, worse], 2)
    assert threshold == 0.6
    assert best == pytest.approx(100 * (2 + 2 - 0.11) / 4)
    assert alarms([good, worse], threshold) == (2, 1)
    thresholds, totals = courses([good, worse])
    assert thresholds.tolist() == [ABOVE_ALL, 0.9, 0.7, 0.6, 0.2]
    assert totals[:4].tolist() == pytest.approx([-2, 0, -0.11, 1.89])
    assert normal(-2, [good, worse], 2) == 0
    assert left_out([good, worse], 2) == pytest.approx(raw([good], 0.6) + raw([worse], 0.9))


def test_the_gaussian_is_that_of_the_values_before() -> None:
    values = [1.0, 3.0, 2.0, 10.0]
    scores = windowed_gaussian(values)
    assert scores[0] == 0
    assert scores[2] == pytest.approx(0.5)
    assert scores[3] == pytest.approx(1 - 0.5 * math.erfc((10 - 2) / math.sqrt(2 / 3) / math.sqrt(2)))
    flat = windowed_gaussian([5.0] * 7000 + [6.0])
    assert flat[-1] == 1


def test_series_are_read_with_their_windows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("timestamp,value\n2014-01-01 00:00:00,1\n2014-01-01 00:05:00,2.5\n2014-01-01 00:10:00,3\n")
    (tmp_path / "windows.json").write_text('{"a.csv": [["2014-01-01 00:05:00.000000", "2014-01-01 00:10:00.000000"]]}')
    (found,) = read(tmp_path)
    assert found.values == [1, 2.5, 3]
    assert found.windows == [(1, 2)]
    assert found.times[1] - found.times[0] == 300
