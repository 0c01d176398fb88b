"""Scores without the day's cycle: what goes up and down by the hour, and at weekends, is levelled, so that a rush hour is no change of the concept.

Hides how the shape of the days is learnt: what each hour's scores were, of working days and of weekends, over about the last month of days that are
over; little seen is held to be like the hour on all days, and that like all hours. Only the shape counts: a score becomes what has the mean of all
hours where it has its own hour's mean, and stays between 0 and 1. Where hours do not differ by more than chance, nothing is done. Hours are of UTC.
Pure: state in, state out. It must not know what a score means, nor judge.

Law: `levelled(a + b)` is `levelled(a)`, then `levelled(b)`. Held by `tests/unit/monitor/test_levels.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array

HOURS = 24
DAY_S = 86_400
BEHIND_DAYS = 31
"""A row that is so many days older than the latest is of a clock that was put back."""
LIKE_OTHERS = 50.0
"""So many rows of a weekend's hour are held to be like those of the hour on all days."""
KEPT = 2.0 ** (-1 / 28)
"""What a day more leaves of what days before it count."""
SURE = 6.0
"""By how many deviations of chance hours must differ to be levelled."""
YOUNG_DAYS = 3
"""After so many days the shape is known well enough to be levelled by as it will be later; what scores were before is no measure of these."""
_ALIKE = 1e-12
"""Scores of one hour that vary by no more than this differ by rounding alone."""
_NONE = (0.0,) * (2 * HOURS)


class Levels(msgspec.Struct, frozen=True, array_like=True):
    """Of scores by hour (of working days, then of weekends): rows, their sum and, of all, the sum of squares; of the days that are over, and of the
    latest, `day`, alone. `closed` counts the days that are over."""

    day: int = -1
    rows: tuple[float, ...] = _NONE
    total: tuple[float, ...] = _NONE
    squares: float = 0.0
    today_rows: tuple[float, ...] = _NONE
    today_total: tuple[float, ...] = _NONE
    today_squares: float = 0.0
    closed: int = 0

    @property
    def is_new(self) -> bool:
        """Whether scores are levelled from this day on otherwise than before, by more than the next days will change."""
        return 0 < self.closed <= YOUNG_DAYS and _means(self) is not None


def levelled(levels: Levels, scores: Array, times: Array) -> tuple[Levels, Array]:
    """The state after these rows, in the order in which they are judged, and their scores without the cycle, by what was known before each day."""
    if not len(scores):
        return levels, scores
    days = (times // DAY_S).astype(np.int64)
    hours = (times % DAY_S // 3600).astype(np.int64) + HOURS * ((days + 3) % 7 >= 5)  # 1970 began on a Thursday
    found = scores.copy()
    for first, last, day in _stretches(levels.day, days):
        if day != levels.day:
            levels = _closed(levels, day)
        means = _means(levels)
        part, at = scores[first:last], hours[first:last]
        if means is not None:
            own, whole = means[at], float(np.dot(means, levels.rows) / sum(levels.rows))
            with np.errstate(divide="ignore", invalid="ignore"):  # the other side of the choice
                found[first:last] = np.where(own > whole, part * whole / own, 1 - (1 - part) * (1 - whole) / (1 - own))
        rows, total = np.array(levels.today_rows), np.array(levels.today_total)
        np.add.at(rows, at, 1.0)
        np.add.at(total, at, part)
        levels = msgspec.structs.replace(
            levels, today_rows=tuple(rows.tolist()), today_total=tuple(total.tolist()), today_squares=levels.today_squares + float((part**2).sum())
        )
    return levels, found


def by_day(levels: Levels, times: Array) -> list[slice]:
    """The rows by the day to which they count, one after another."""
    return [slice(first, last) for first, last, _ in _stretches(levels.day, (times // DAY_S).astype(np.int64))] if len(times) else []


def _stretches(latest: int, days: Array) -> list[tuple[int, int, int]]:
    """Where rows that count to one day begin and end, and to which: to the latest so far, unless they are far behind it."""
    found: list[tuple[int, int, int]] = []
    begins = np.flatnonzero(np.diff(days, prepend=days[0] - 1))
    for first, last in zip(begins.tolist(), [*begins[1:].tolist(), len(days)], strict=True):
        day = int(days[first])
        latest = day if day > latest or day < latest - BEHIND_DAYS else latest
        found.append((first, last, latest))
    return found


def _closed(levels: Levels, day: int) -> Levels:
    """The latest day is over; `day` begins."""

    def more(kept: tuple[float, ...], today: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(KEPT * before + new for before, new in zip(kept, today, strict=True))

    return Levels(
        day=day,
        rows=more(levels.rows, levels.today_rows),
        total=more(levels.total, levels.today_total),
        squares=KEPT * levels.squares + levels.today_squares,
        closed=levels.closed + (levels.day >= 0),
    )


def _means(levels: Levels) -> Array | None:
    """The mean score of each hour of working days and of weekends; None where hours do not surely differ."""
    rows, total = (np.array(each).reshape(2, HOURS) for each in (levels.rows, levels.total))
    by_hour, sums = rows.sum(axis=0), total.sum(axis=0)
    seen = by_hour > 0
    count, whole = int(seen.sum()), float(rows.sum())
    if count < 2 or whole < 2 * HOURS:
        return None
    mean = float(sums.sum()) / whole
    between = float((sums[seen] ** 2 / by_hour[seen]).sum())
    within = (levels.squares - between) / (whole - count) if whole > count else 0.0
    apart = between - whole * mean**2
    if within <= _ALIKE or apart / within <= count - 1 + SURE * (2 * (count - 1)) ** 0.5:
        return None
    alike = whole * within / (apart - (count - 1) * within)  # rows that say as much of an hour as that hours are no further apart
    hourly = (sums + alike * mean) / (by_hour + alike)
    means: Array = ((total + LIKE_OTHERS * hourly) / (rows + LIKE_OTHERS)).reshape(-1)
    return means
