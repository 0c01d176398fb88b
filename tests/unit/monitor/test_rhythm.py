"""The rhythm of a stream: what is allowed for while it is not known, and what is told of rows when it is."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from modelyard.monitor.rhythm import HOURS, MARGIN_OF_DAYS, MARGIN_OF_HOURS, MARGIN_OF_WEEK, Part, Rhythm, moved, pieces, taken

DAY_S = 86_400
MONDAY = 20_458 * DAY_S


def stream(rng: np.random.Generator, days: float, *, swing: float, an_hour: int = 60, begin_s: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    at = MONDAY + begin_s + np.arange(int(days * 24 * an_hour)) * (3600.0 / an_hour)
    return (rng.random(len(at)) < 0.3 + swing * np.sin(at / DAY_S * 2 * np.pi)).astype(np.float64), at


def parts(rhythm: Rhythm, scores: np.ndarray, at: np.ndarray) -> tuple[Rhythm, list[Part]]:
    found = []
    for rows, day in pieces(rhythm, at):
        rhythm, part = taken(rhythm, scores[rows], at[rows], day)
        found.append(part)
    return rhythm, found


def rows(found: list[Part]) -> np.ndarray:
    """Each row as it is told."""
    return np.concatenate([np.column_stack(np.broadcast_arrays(part.scores, part.together, part.margin)) for part in found])


def margins(found: list) -> list[float]:
    return [part.margin for part in found]


def test_without_a_cycle_two_days_are_doubtful_and_a_week_a_little() -> None:
    _, found = parts(Rhythm(), *stream(np.random.default_rng(12), 10, swing=0.0))
    assert margins(found) == [MARGIN_OF_HOURS, MARGIN_OF_DAYS, MARGIN_OF_DAYS, *[MARGIN_OF_WEEK] * 5, 1.0, 1.0, 1.0]
    assert len(found[0].scores) == HOURS * 60
    assert not any(part.is_known for part in found) and {part.together for part in found} == {1.0}


def test_a_cycle_is_learnt_for_a_week_and_then_known_once() -> None:
    scores, at = stream(np.random.default_rng(2), 10, swing=0.2)
    rhythm, found = parts(Rhythm(), scores, at)
    assert margins(found) == [MARGIN_OF_HOURS, *[MARGIN_OF_DAYS] * 7, 1.0, 1.0, 1.0]
    assert [part.is_known for part in found] == [False] * 8 + [True, False, False]
    assert rhythm.levels.is_sure and np.array_equal(rows(found[:3])[:, 0], scores[: 48 * 60])
    assert not np.array_equal(found[-1].scores, scores[-24 * 60 :])


def test_a_first_day_of_a_few_hours_is_not_a_day_that_is_known() -> None:
    _, found = parts(Rhythm(), *stream(np.random.default_rng(3), 3, swing=0.2, begin_s=22.5 * 3600))
    assert margins(found)[:3] == [MARGIN_OF_HOURS, MARGIN_OF_DAYS, MARGIN_OF_DAYS]


def test_of_one_hour_a_day_nobody_learns_a_cycle_and_after_a_week_nothing_is_allowed() -> None:
    scores, at = stream(np.random.default_rng(3), 10, swing=0.2)
    batch = at % DAY_S // 3600 == 2
    _, found = parts(Rhythm(), scores[batch], at[batch])
    assert margins(found) == [MARGIN_OF_HOURS, *[MARGIN_OF_DAYS] * 6, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("size", [1, 59, 1_000])
def test_portions_of_any_size_are_told_the_same(size: int) -> None:
    rng = np.random.default_rng(4)
    scores, at = stream(rng, 9, swing=0.2, an_hour=6)
    at[700:760] -= 2 * DAY_S  # labels that came late
    at[1_200:] -= 60 * DAY_S  # a clock that was put back
    whole, found = parts(Rhythm(), scores, at)
    kept, some = Rhythm(), []
    for first in range(0, len(scores), size):
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=Rhythm)
        kept, more = parts(kept, scores[first : first + size], at[first : first + size])
        some += more
    assert np.allclose(rows(some), rows(found), rtol=0, atol=1e-9)
    assert kept.blocks.day == whole.blocks.day and kept.blocks.days.count == whole.blocks.days.count


def test_a_step_that_is_known_is_no_part_of_it() -> None:
    scores, at = stream(np.random.default_rng(6), 40, swing=0.0, an_hour=20)
    half = len(scores) // 2
    scores[half:] = 1 - scores[half:]
    before, _ = parts(Rhythm(), scores[:half], at[:half])
    assert parts(moved(before), scores[half:], at[half:])[0].together < 2 < parts(before, scores[half:], at[half:])[0].together


def test_no_rows_are_no_parts() -> None:
    assert parts(Rhythm(), np.zeros(0), np.zeros(0)) == (Rhythm(), [])
