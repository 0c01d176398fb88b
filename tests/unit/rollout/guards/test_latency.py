"""Quantiles known by bucket: claims hold wherever in its bucket a latency lies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from judging import buckets, seconds

from modelyard.events import bucket_edge_s
from modelyard.rollout.guards import latency


def counted(*samples) -> tuple[np.ndarray, int]:
    return latency.filled([buckets(sample) for sample in samples])


def test_a_quantile_is_estimated_within_its_bucket() -> None:
    rng = np.random.default_rng(1)
    values = 0.01 * np.exp(0.5 * rng.normal(size=50_000))
    counts, first = counted(values)
    for share in (0.5, 0.9, 0.99):
        assert latency.quantile(counts[0], first, share) == pytest.approx(np.quantile(values, share), rel=0.03)
        low, high = latency.limits(counts[0], first, share, 0.05)
        assert low < np.quantile(values, share) < high < 1.4 * low
    assert math.isnan(latency.quantile(np.zeros(3), 0, 0.5))
    assert latency.limits(np.zeros(3), 50, 0.5, 0.05) == (0.0, math.inf)


def test_a_bound_inside_a_bucket_is_neither_broken_nor_kept_by_what_lies_in_that_bucket() -> None:
    low, high = bucket_edge_s(100), bucket_edge_s(101)
    counts, first = counted(np.full(1000, (low + high) / 2))
    assert latency.slower(counts[0], first, 0.5, low) > 100
    assert latency.slower(counts[0], first, 0.5, low * 1.01) < 0
    assert latency.faster(counts[0], first, 0.5, high) > 100
    assert latency.faster(counts[0], first, 0.5, high * 0.99) < 0


def by_second(*samples) -> tuple[np.ndarray, latency.Blocks, int]:
    seen = seconds(*samples)
    counts, first = latency.filled([seen.latencies])
    sums = [np.array([each.get(first + place, 0) for place in range(counts.shape[1])]) for each in (seen.blocks.squares, seen.blocks.products)]
    return counts[0], latency.Blocks(seen.blocks.count, *sums), first


def test_a_slow_second_is_one_slow_second_however_many_requests_it_has() -> None:
    rng = np.random.default_rng(8)
    usual = [0.01 * np.exp(0.5 * rng.normal(size=300)) for _ in range(30)]
    counts, blocks, first = by_second(*usual[:-1], 3 * usual[-1])
    assert latency.slower(counts, first, 0.99, 0.035) > 5, "to requests that had nothing to do with one another it would be evidence"
    assert latency.slower_by_blocks(counts, blocks, first, 0.99, 0.035) < 1
    counts, blocks, first = by_second(*(1.5 * each for each in usual))
    assert latency.slower_by_blocks(counts, blocks, first, 0.5, 0.0125) > 5, "of slow seconds one after the other it is evidence"
    assert latency.slower_by_blocks(counts, blocks, first, 0.5, 0.02) < 0
    assert latency.faster_by_blocks(counts, blocks, first, 0.5, 0.0175) > 5
    assert latency.faster_by_blocks(counts, blocks, first, 0.5, 0.0125) < 0


def test_of_few_seconds_nothing_is_said() -> None:
    counts, blocks, first = by_second(*[np.full(500, 0.1)] * (latency.LEAST_BLOCKS - 1))
    assert latency.slower_by_blocks(counts, blocks, first, 0.5, 0.01) == 0
    counts, blocks, first = by_second(*[np.full(500, 0.1)] * latency.LEAST_BLOCKS)
    assert latency.slower_by_blocks(counts, blocks, first, 0.5, 0.01) > 5
    nothing = latency.Blocks(0, np.zeros(3), np.zeros(3))
    assert latency.slower_by_blocks(np.zeros(3), nothing, 0, 0.5, 0.01) == latency.faster_by_blocks(np.zeros(3), nothing, 0, 0.5, 0.01) == 0


def test_a_comparison_holds_for_any_place_within_the_buckets() -> None:
    # all at the top of bucket 100, against all at the bottom of bucket 103: twice a bucket's width apart (1.044), though three buckets
    champion, candidate = bucket_edge_s(101) * 0.999, bucket_edge_s(103) * 1.001
    counts, first = counted(np.full(5000, candidate), np.full(5000, champion))
    assert candidate / champion < 1.05
    assert latency.slower_than(counts[0], counts[1], first, 0.5, lambda s: 1.05 * s) < 0
    assert latency.slower_than(counts[0], counts[1], first, 0.5, lambda s: 1.04 * s) > 100
    # and the other way: the bottom of bucket 100 against the top of 103 might be 1.0905
    assert latency.faster_than(counts[0], counts[1], first, 0.5, lambda s: 1.09 * s) < 0
    assert latency.faster_than(counts[0], counts[1], first, 0.5, lambda s: 1.092 * s) > 100


def test_a_difference_of_seconds_is_a_bound_like_any_other() -> None:
    rng = np.random.default_rng(2)
    champion, slow = 0.01 * np.exp(0.3 * rng.normal(size=20_000)), 0.02 * np.exp(0.3 * rng.normal(size=2_000))
    counts, first = counted(slow, champion)
    assert latency.slower_than(counts[0], counts[1], first, 0.5, lambda s: s + 0.005) > 20
    assert latency.faster_than(counts[0], counts[1], first, 0.5, lambda s: s + 0.02) > 20
    assert latency.slower_than(counts[0], counts[1], first, 0.5, lambda s: s + 0.02) < 0
    assert latency.faster_than(counts[0], counts[1], first, 0.5, lambda s: s - 0.02) < 0  # a time below nothing cannot be kept


def test_the_axes_before_the_buckets_are_free() -> None:
    counts, first = counted(np.full(500, 0.02), np.full(500, 0.01))
    many = np.stack([counts[0]] * 3), np.stack([counts[1]] * 3)
    found = latency.slower_than(*many, first, 0.5, lambda s: 1.2 * s)
    assert found.shape == (3,)
    assert found[0] == latency.slower_than(counts[0], counts[1], first, 0.5, lambda s: 1.2 * s)


def test_nothing_seen_says_nothing() -> None:
    counts, first = latency.filled([{}, {}])
    assert latency.slower_than(counts[0], counts[1], first, 0.5, lambda s: 1.2 * s) <= 0
    assert latency.slower(counts[0], first, 0.5, 0.01) == pytest.approx(0)
