from __future__ import annotations

import numpy as np
import pytest
from minutes import BEGINS, OTHER, draw, minute, minutes, reference

from modelyard.monitor.series import Series, onset


def test_minutes_stand_in_order_with_their_rows() -> None:
    known = reference()
    made = minutes(known, 5, rows=40)
    series = Series(known, list(reversed(made)))
    assert len(series) == 5
    assert series.starts.tolist() == [each.start for each in made]
    assert series.rows.tolist() == [40] * 5
    assert series.window == (BEGINS, BEGINS + 300)
    assert series.since(0).rows == 200 and series.since(3).rows == 80 and series.since(1, 2).rows == 40


def test_cells_are_the_counts_with_missing_ones_last() -> None:
    known = reference()
    rows = draw(50, np.random.default_rng(3))
    rows["age"][:7] = np.nan
    cells = Series(known, [minute(known, 0, rows)]).cells(0)
    assert cells.shape == (1, len(known.profile.features[0].counts) + 1)
    assert cells[0, -1] == 7 and cells.sum() == 50


def test_minutes_of_others_and_of_other_bins_are_left_out() -> None:
    known = reference()
    ours = minutes(known, 2)
    foreign = ours[0]._replace(counts=np.ones(3, dtype=np.int64))
    empty = ours[1]._replace(counts=None)
    series = Series(known, [*ours, ours[0]._replace(digest=OTHER), foreign, empty])
    assert len(series) == 2 and series.foreign == 1


def test_no_minute_is_an_empty_series() -> None:
    assert len(Series(reference(), [])) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_first_bad_minute_is_found(seed: int) -> None:
    known = reference()
    made = minutes(known, 60, lambda place, rows: {**rows, "age": rows["age"] + 8 * (place >= 37)}, seed=seed)
    found = Series(known, made).onset(0)
    assert found.is_seen and abs(found.first - 37) <= 1 and found.last == 60


def test_a_break_that_ended_has_an_end() -> None:
    known = reference()
    made = minutes(known, 60, lambda place, rows: {**rows, "age": rows["age"] + 30 * (20 <= place < 30)})
    found = Series(known, made).onset(0)
    assert (found.first, found.last, found.is_seen) == (20, 30, True)


def test_where_nothing_changed_within_the_window_it_was_bad_from_the_start() -> None:
    known = reference()
    made = minutes(known, 30, lambda _, rows: {**rows, "age": rows["age"] + 30})
    assert Series(known, made).onset(0) == (0, 30, False)


def test_by_chance_alone_few_windows_have_an_onset() -> None:
    rng = np.random.default_rng(1)
    shares = np.full(10, 0.1)
    found = [onset(shares * 5000, rng.multinomial(100, shares, size=60).astype(float)).is_seen for _ in range(200)]
    assert sum(found) <= 8


def test_one_minute_or_one_cell_has_no_onset() -> None:
    assert not onset(np.ones(3), np.ones((1, 3))).is_seen
    assert not onset(np.ones(1), np.ones((5, 1))).is_seen


def test_a_minute_of_what_no_count_can_be_is_left_out() -> None:
    known = reference()
    good, bad = minutes(known, 2)
    assert bad.counts is not None
    counts = bad.counts.copy()
    counts[1] = -1
    found = Series(known, [good, bad._replace(counts=counts)])
    assert (len(found), found.foreign) == (1, 1) and len(Series(known, [good, bad])) == 2
