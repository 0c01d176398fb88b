"""Scores without the cycle of the day and the week: what goes up and down by the hour is levelled, so that a rush hour is no change of the concept.

Hides how the shape of the week is learnt: what each of its hours' scores were over about the last month of days that are over. An hour of the week is
held to be like that hour of its kind of day (working days, weekends), but for what its weekday has at all hours; that like the hour on all days, and
that like all hours: by as much as how far such means lie apart says beside how well each is known (empirical Bayes). Only the shape counts: a score
becomes what has the mean of all hours where it has its own hour's mean, and stays between 0 and 1. Nothing is done before one day's hours surely
resemble another's: what happens once is no cycle. Hours are of UTC. Pure: state in, state out. It must not know what a score means, nor judge.

Law: `levelled(a + b)` is `levelled(a)`, then `levelled(b)`. Held by `tests/unit/monitor/test_levels.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array

DAYS = 7
HOURS = 24
DAY_S = 86_400
BEHIND_DAYS = 31
"""A row that is so many days older than the latest is of a clock that was put back."""
KEPT = 2.0 ** (-1 / 28)
"""What a day more leaves of what days before it count."""
SURE = 4.0
"""By how many deviations of chance the hours of days must resemble those of days before to be levelled."""
DOUBTFUL = 1.5
"""By so many they may well."""
COMPARED_HOURS = 18
"""Before so many hours were compared with the same of days before, nobody can say within the first week."""
WEEK = 7
"""After so many days the shape is known well enough to be levelled by as it will be later; of a stream of an hour a day, that there is none."""
_ALIKE = 1e-12
"""Scores of one hour that vary by no more than this differ by rounding alone."""
_NONE = (0.0,) * (DAYS * HOURS)
_WEEKEND = np.arange(DAYS) >= 5


class Levels(msgspec.Struct, frozen=True, array_like=True):
    """Of scores by hour of the week (from Monday on): rows, their sum and, of all, the sum of squares; of the days that are over, and of the latest,
    `day`, alone. `closed` counts the days that are over, `compared` the hours that were compared with those of days before: `alike` is how much they
    went the same way, `chance` the square of by how much they would if they had nothing in common."""

    day: int = -1
    rows: tuple[float, ...] = _NONE
    total: tuple[float, ...] = _NONE
    squares: float = 0.0
    today_rows: tuple[float, ...] = _NONE
    today_total: tuple[float, ...] = _NONE
    today_squares: float = 0.0
    closed: int = 0
    compared: int = 0
    alike: float = 0.0
    chance: float = 0.0

    @property
    def is_sure(self) -> bool:
        """Whether hours surely differ."""
        return self.alike > SURE * math.sqrt(self.chance)

    @property
    def is_unknown(self) -> bool:
        """Whether a cycle may be there that is not known: it was seen for less than a week, and too few hours were compared, or it shows."""
        return self.closed < WEEK and (self.compared < COMPARED_HOURS or self.alike > DOUBTFUL * math.sqrt(self.chance))

    @property
    def hours(self) -> int:
        """How many hours of the week were seen so far."""
        return int(np.count_nonzero(np.array(self.rows) + np.array(self.today_rows)))


def levelled(levels: Levels, scores: Array, times: Array, *, together: tuple[float, float] = (1.0, 1.0)) -> tuple[Levels, Array]:
    """The state after these rows, in the order in which they are judged, and their scores without the cycle, by what was known before each day.

    So many rows as go `together` say as much as one: those of one hour of its mean, those of one day of its weekday's.
    """
    if not len(scores):
        return levels, scores
    hours, found = cells(times), scores.copy()
    for part, day in by_day(levels, times):
        levels = begun(levels, day)
        means = _means(levels, together)
        given, at = scores[part], hours[part]
        if means is not None:
            own, whole = means[at], float(np.dot(means, levels.rows) / sum(levels.rows))
            with np.errstate(divide="ignore", invalid="ignore"):  # the other side of the choice
                found[part] = np.where(own > whole, given * whole / own, 1 - (1 - given) * (1 - whole) / (1 - own))
        rows, total = np.array(levels.today_rows), np.array(levels.today_total)
        np.add.at(rows, at, 1.0)
        np.add.at(total, at, given)
        levels = msgspec.structs.replace(
            levels, today_rows=tuple(rows.tolist()), today_total=tuple(total.tolist()), today_squares=levels.today_squares + float((given**2).sum())
        )
    return levels, found


def begun(levels: Levels, day: int) -> Levels:
    """With the latest day over, if `day` is another."""
    return levels if day == levels.day else _closed(levels, day)


def cells(times: Array) -> Array:
    """The hour of the week of each, from Monday on."""
    found: Array = ((times // DAY_S + 3) % DAYS * HOURS + times % DAY_S // 3600).astype(np.int64)  # 1970 began on a Thursday
    return found


def by_day(levels: Levels, times: Array) -> list[tuple[slice, int]]:
    """The rows by the day to which they count, one after another: the latest so far, unless they are far behind it."""
    if not len(times):
        return []
    days = (times // DAY_S).astype(np.int64)
    latest, found = levels.day, list[tuple[slice, int]]()
    begins = np.flatnonzero(np.diff(days, prepend=days[0] - 1))
    for first, last in zip(begins.tolist(), [*begins[1:].tolist(), len(days)], strict=True):
        day = int(days[first])
        latest = day if day > latest or day < latest - BEHIND_DAYS else latest
        found.append((slice(first, last), latest))
    return found


def _closed(levels: Levels, day: int) -> Levels:
    """The latest day is over; `day` begins."""

    def more(kept: tuple[float, ...], today: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(KEPT * before + new for before, new in zip(kept, today, strict=True))

    compared, alike, chance = _resemblance(levels)
    return Levels(
        day=day,
        rows=more(levels.rows, levels.today_rows),
        total=more(levels.total, levels.today_total),
        squares=KEPT * levels.squares + levels.today_squares,
        closed=levels.closed + (levels.day >= 0),
        compared=levels.compared + compared,
        alike=KEPT * levels.alike + alike,
        chance=KEPT * levels.chance + chance,
    )


def _resemblance(levels: Levels) -> tuple[int, float, float]:
    """How many hours of the latest day were seen before; the sum, over them, of how far each lay from its day times how far it lay from the mean
    before; and the sum of the squares of these, which is what chance makes of the square of the sum."""
    today, kept = (_hourly(rows, total) for rows, total in ((levels.today_rows, levels.today_total), (levels.rows, levels.total)))
    seen = (today[0] > 0) & (kept[0] > 0)
    if seen.sum() < 2:
        return 0, 0.0, 0.0
    rows, before = today[0][seen], kept[0][seen]
    apart, apart_before = (sums[seen] / count[seen] - sums[seen].sum() / count[seen].sum() for count, sums in (today, kept))
    each = apart * apart_before * rows * before / (rows + before)
    return int(seen.sum()), float(each.sum()), float((each**2).sum())


def _hourly(rows: tuple[float, ...], total: tuple[float, ...]) -> tuple[Array, Array]:
    return np.array(rows).reshape(DAYS, HOURS).sum(axis=0), np.array(total).reshape(DAYS, HOURS).sum(axis=0)


def _means(levels: Levels, together: tuple[float, float]) -> Array | None:
    """The mean score of each hour of the week; None where hours do not surely differ."""
    if not levels.is_sure:
        return None
    rows, total = (np.array(each).reshape(DAYS, HOURS) for each in (levels.rows, levels.total))
    by_hour, sums = rows.sum(axis=0), total.sum(axis=0)
    within = _within(rows, total, levels.squares)
    if within <= _ALIKE:
        return None
    chance = together[0] * within
    hourly = _shrunk(by_hour, sums, np.full(HOURS, sums.sum() / by_hour.sum()), chance)
    kinds = [(rows[kind].sum(axis=0), total[kind].sum(axis=0)) for kind in (~_WEEKEND, _WEEKEND)]
    of_kind = _shrunk(np.array([each[0] for each in kinds]), np.array([each[1] for each in kinds]), np.tile(hourly, (2, 1)), chance)
    parents = of_kind[_WEEKEND.astype(np.int64)]
    shifts = _shrunk(rows.sum(axis=1), (total - rows * parents).sum(axis=1), np.zeros(DAYS), together[1] * within)
    found: Array = _shrunk(rows, total, np.clip(parents + shifts[:, None], 0.0, 1.0), chance).reshape(-1)
    return found


def _within(rows: Array, total: Array, squares: float) -> float:
    """The variance of scores of one hour of the week, or of one hour of the day while weeks are few."""
    for count, sums in ((rows, total), (rows.sum(axis=0), total.sum(axis=0))):
        seen = count > 0
        freedom = float(count.sum()) - int(seen.sum())
        if freedom >= int(seen.sum()):
            return (squares - float((sums[seen] ** 2 / count[seen]).sum())) / freedom
    return 0.0


def _shrunk(rows: Array, total: Array, parents: Array, chance: float) -> Array:
    """The mean of each cell, held to be like its parent's by as many rows as say as much of a mean as that cells of one parent are no further apart.

    `chance` is the variance of what one row says.
    """
    seen = rows > 0
    apart = float((rows[seen] * (total[seen] / rows[seen] - parents[seen]) ** 2).sum())
    excess = apart - chance * int(seen.sum())
    if excess <= 0:
        return parents
    like = chance * float(rows.sum()) / excess
    found: Array = (total + like * parents) / (rows + like)
    return found
