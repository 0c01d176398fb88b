"""How many scores go together as one: those of an hour, of a day, of a week share its weather, and say less of a change than as many alone.

The design effect of blocks: by how much the mean of a block differs from that of those before it, beside how much it would if rows were independent
of one another. It is learnt from blocks that are over, of scores as they were judged then, so that what levelling missed is in it. What is known to
be a change is left out (`moved`), and no difference counts for more than a large one. Hides the sums, and how little is known of few blocks. Pure:
state in, state out. It must not know what a score means, nor judge.

Law: `grown(a + b)` is `grown(a)`, then `grown(b)`. Held by `tests/unit/monitor/test_blocks.py`.

Source: Kish, "Survey Sampling" (1965), for the design effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array

HOURS = 24
KEPT = 2.0 ** (-1 / 28)
"""What a day more leaves of what hours and days before it count."""
KEPT_OF_WEEKS = 2.0 ** (-1 / 13)
"""What a week more leaves of weeks."""
RECENT = 0.75
"""What a block more leaves of those before it, where the next is held against these: so long weather may last and not be taken for none."""
MOST = 8.0
"""No difference counts for more than so many times what was expected of it."""
LIKE_SHORTER = 4.0
"""So many differences of blocks are held to be as the shorter ones say."""
PERSISTENCE = 2.0
"""While weeks are few, days beside one another are held to share their weather: so many times as much goes together in a week as in a day."""
SURE = 2.0
"""By how many deviations of chance blocks must differ where nothing else speaks for a cycle."""
_CHANCE = 3.0
"""The relative variance of the mean of so many squared differences, which overlap, times how many they are."""


class Sums(msgspec.Struct, frozen=True, array_like=True):
    """Rows, the sum of their scores and that of the squares."""

    rows: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def apart(self, mean: float) -> float:
        """The sum of the squares of how far scores lie from this."""
        return max(0.0, self.squares - 2 * mean * self.total + self.rows * mean**2)


class Spread(msgspec.Struct, frozen=True, array_like=True):
    """Of blocks of one length: how many differences there were, their squares, and what these are by chance; the blocks before the next, and the
    square of by how much their sum lies off by chance."""

    count: float = 0.0
    found: float = 0.0
    expected: float = 0.0
    recent: Sums = Sums()
    chance: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times what rows alone account for; 1 where that is nothing."""
        return self.found / self.expected if self.expected > 0 else 1.0


class Blocks(msgspec.Struct, frozen=True, array_like=True):
    """The state: the latest day by its hours, the sums of its week so far, about the last month, and what blocks of each length showed."""

    day: int = -1
    rows: tuple[float, ...] = (0.0,) * HOURS
    total: tuple[float, ...] = (0.0,) * HOURS
    squares: tuple[float, ...] = (0.0,) * HOURS
    this_week: Sums = Sums()
    month: Sums = Sums()
    hours: Spread = Spread()
    days: Spread = Spread()
    weeks: Spread = Spread()


def begun(blocks: Blocks, day: int) -> Blocks:
    """With the latest day over, if `day` is another."""
    return blocks if day == blocks.day else _closed(blocks, day)


def grown(blocks: Blocks, scores: Array, times: Array, day: int) -> Blocks:
    """With these rows, all of which count to `day`."""
    blocks = begun(blocks, day)
    hours = (times % 86_400 // 3600).astype(np.int64)

    def more(kept: tuple[float, ...], new: Array) -> tuple[float, ...]:
        found = np.array(kept)
        np.add.at(found, hours, new)  # one after another: portions of any size give the same, to the bit
        return tuple(found.tolist())

    rows, total, squares = more(blocks.rows, np.ones(len(scores))), more(blocks.total, scores), more(blocks.squares, scores**2)
    return msgspec.structs.replace(blocks, rows=rows, total=total, squares=squares)


def moved(blocks: Blocks) -> Blocks:
    """With the scores at another level from now on: blocks before are no measure of those to come, and the latest are of both."""
    hours, days, weeks = (msgspec.structs.replace(each, recent=Sums(), chance=0.0) for each in (blocks.hours, blocks.days, blocks.weeks))
    return Blocks(day=blocks.day, month=blocks.month, hours=hours, days=days, weeks=weeks)


def together(blocks: Blocks, *, has_cycle: bool) -> float:
    """So many rows say as much as one: by the blocks of that length of which it is most, and at least 1; 1 where blocks differ by chance alone.

    A stream that `has_cycle` is believed to have blocks sooner.
    """
    found = most = 1.0
    for place, spread in enumerate((blocks.hours, blocks.days, blocks.weeks)):
        if place == 2:
            found = 1 + PERSISTENCE * (found - 1)
        if has_cycle or (spread.count > 0 and spread.ratio > 1 + SURE * (_CHANCE / spread.count) ** 0.5):
            found = max(1.0, _believed(spread, found))
        most = max(most, found)
    return most


def of_hours(blocks: Blocks) -> float:
    """So many rows of one hour say as much of it as one."""
    return max(1.0, _believed(blocks.hours, 1.0))


def _believed(spread: Spread, shorter: float) -> float:
    return (LIKE_SHORTER * shorter + spread.count * spread.ratio) / (LIKE_SHORTER + spread.count)


def _closed(blocks: Blocks, day: int) -> Blocks:
    rows, total, squares = (np.array(each) for each in (blocks.rows, blocks.total, blocks.squares))
    whole = Sums(float(rows.sum()), float(total.sum()), float(squares.sum()))
    if not whole.rows:
        return msgspec.structs.replace(blocks, day=day)
    month, week = _more(blocks.month, whole, KEPT), _more(blocks.this_week, whole)
    mean = month.total / month.rows
    hours, seen = blocks.hours, np.flatnonzero(rows)
    for place in seen.tolist():
        hours = _compared(hours, Sums(float(rows[place]), float(total[place]), float(squares[place])), mean, 1.0)
    hours = msgspec.structs.replace(hours, count=KEPT * hours.count, found=KEPT * hours.found, expected=KEPT * hours.expected)
    days, weeks = _compared(blocks.days, whole, mean, KEPT), blocks.weeks
    if (day + 3) // 7 != (blocks.day + 3) // 7:
        week, weeks = Sums(), _compared(weeks, week, mean, KEPT_OF_WEEKS)
    return Blocks(day=day, this_week=week, month=month, hours=hours, days=days, weeks=weeks)


def _compared(spread: Spread, block: Sums, mean: float, kept: float) -> Spread:
    """With one block more, and its difference from those before it."""
    before, before_chance, chance = spread.recent, spread.chance, block.apart(mean) / block.rows**2
    recent = _more(before, block, RECENT)
    spread = msgspec.structs.replace(spread, recent=recent, chance=RECENT**2 * spread.chance + block.apart(mean))
    if not before.rows:
        return spread
    apart = block.total / block.rows - before.total / before.rows
    chance += before_chance / before.rows**2
    weight = 1 / (1 / block.rows + 1 / before.rows)
    found = weight * min(apart**2, MOST * max(1.0, _believed(spread, 1.0)) * chance)
    return msgspec.structs.replace(
        spread, count=kept * spread.count + 1, found=kept * spread.found + found, expected=kept * spread.expected + weight * chance
    )


def _more(kept: Sums, new: Sums, share: float = 1.0) -> Sums:
    return Sums(share * kept.rows + new.rows, share * kept.total + new.total, share * kept.squares + new.squares)
