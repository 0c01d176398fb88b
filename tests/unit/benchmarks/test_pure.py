"""False pages of quiet weeks: counted where the threshold is low, none where it is out of reach, and no more than are allowed."""

from __future__ import annotations

from benchmarks.monitor import pure

from modelyard.monitor.risk import Terms


def test_false_pages_are_counted_and_are_no_more_than_the_threshold_allows() -> None:
    often = sum(pure.false_pages(seed, 10_000, Terms(rows_between=1_000.0)) for seed in range(20))
    assert 20 < often <= 200
    assert pure.false_pages(1, 10_000, Terms(rows_between=1e12)) == 0
