"""How many rows go together as one: found where days share their weather, 1 where they do not, and not moved by a change that lasts."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest

from modelyard.monitor.blocks import Blocks, Spread, grown, moved, of_hours, together

MONDAY = 20_458


def fed(scores: np.ndarray, an_hour: int, blocks: Blocks | None = None) -> Blocks:
    blocks = blocks or Blocks(day=MONDAY - 1)
    for day, part in enumerate(scores.reshape(-1, 24 * an_hour), blocks.day + 1):
        blocks = grown(blocks, part, day * 86_400.0 + np.arange(len(part)) * (3600.0 / an_hour), day)
    return blocks


def drawn(rng: np.random.Generator, days: int, an_hour: int, *, hours: float = 0.0, weather: float = 0.0, weeks: float = 0.0) -> np.ndarray:
    """Scores around a half whose hours, days and weeks lie apart by so many standard deviations of a row."""
    shared = np.repeat(rng.normal(0.0, 1.0, days * 24), an_hour) * hours
    shared += np.repeat(rng.normal(0.0, 1.0, days), 24 * an_hour) * weather
    shared += np.repeat(rng.normal(0.0, 1.0, -(-days // 7)), 7 * 24 * an_hour)[: len(shared)] * weeks
    return np.clip(0.5 + 0.1 * (rng.normal(0.0, 1.0, len(shared)) + shared), 0.0, 1.0)


def test_rows_that_are_independent_stand_for_themselves() -> None:
    found = [together(fed(drawn(np.random.default_rng(seed), 60, 10), 10), has_cycle=False) for seed in range(20)]
    assert sum(each == 1.0 for each in found) >= 16 and max(found) < 2.5


@pytest.mark.parametrize(("an_hour", "apart", "expected"), [(10, {"hours": 0.7}, 5.9), (10, {"weather": 0.2}, 10.6), (1, {"weather": 0.5}, 7.0)])
def test_what_hours_and_days_share_is_found(an_hour: int, apart: dict[str, float], expected: float) -> None:
    """1 + rows of a block, by the square of how far these lie apart."""
    found = [together(fed(drawn(np.random.default_rng(seed), 90, an_hour, **apart), an_hour), has_cycle=False) for seed in range(8)]
    assert np.median(found) == pytest.approx(expected, rel=0.35)


def test_what_a_week_shares_is_found_though_its_days_hardly_differ() -> None:
    found = [together(fed(drawn(np.random.default_rng(seed), 26 * 7, 4, weeks=0.3), 4), has_cycle=False) for seed in range(6)]
    assert np.median(found) > 15
    scores = drawn(np.random.default_rng(0), 26 * 7, 4, weeks=0.3)
    alone = msgspec.structs.replace(fed(scores, 4), weeks=Spread())
    assert together(alone, has_cycle=False) < 15, "by hours and days alone"


def test_a_change_that_is_known_is_no_weather() -> None:
    for seed in range(6):
        scores = drawn(np.random.default_rng(seed), 60, 10)
        half = len(scores) // 2
        scores[half:] = np.clip(scores[half:] + 0.1, 0.0, 1.0)  # a whole standard deviation of a row: fifteen of a day's mean
        assert together(fed(scores[half:], 10, moved(fed(scores[:half], 10))), has_cycle=False) < 2.0
        assert together(fed(scores, 10), has_cycle=False) > 4.0, "that nobody told of"


def test_while_little_is_known_the_shorter_blocks_are_believed() -> None:
    rng = np.random.default_rng(1)
    young = fed(drawn(rng, 3, 10, hours=0.7), 10)
    assert young.days.count == 1.0 and together(young, has_cycle=True) >= of_hours(young) > 3.0
    assert together(Blocks(), has_cycle=True) == of_hours(Blocks()) == Spread().ratio == 1.0


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_scores_that_never_vary_go_no_further_together(score: float) -> None:
    assert together(fed(np.full(40 * 24 * 5, score), 5), has_cycle=True) == pytest.approx(1.0)


def test_portions_of_any_size_teach_the_same() -> None:
    rng = np.random.default_rng(2)
    scores = drawn(rng, 20, 10, weather=0.3)
    whole, parts = fed(scores, 10), Blocks(day=MONDAY - 1)
    at = MONDAY * 86_400.0 + np.arange(len(scores)) * 360.0
    edges = sorted({*rng.integers(0, len(scores), 60).tolist(), *range(0, len(scores) + 1, 240)})
    for first, last in itertools.pairwise(edges):
        parts = msgspec.msgpack.decode(msgspec.msgpack.encode(parts), type=Blocks)
        parts = grown(parts, scores[first:last], at[first:last], int(at[first] // 86_400))
    assert parts == whole
