"""The rhythm of a stream of scores between 0 and 1, so that days and their weather are no change.

Scores are levelled (`monitor.levels`), and how many go together as one is told (`monitor.blocks`), for what judges them (`monitor.risk`). Hides what
is learnt when: of one day what was known before it. While a rhythm may be there that is not known yet, a margin is told, which what judges is to
allow for. Pure: state in, state out. It must not know what a score means.

Law: rows in portions of any size, by `pieces` and `taken`, come to the same. Held by `tests/unit/monitor/test_rhythm.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from modelyard.monitor import blocks, levels
from modelyard.monitor.blocks import Blocks
from modelyard.monitor.levels import Levels

if TYPE_CHECKING:
    from modelyard.types import Array

HOURS = 2
"""The first hours: within so few of the clock errors move little."""
MARGIN_OF_HOURS = 2.0
"""By so many times the odds at most."""
MARGIN_OF_DAYS = 8.0
"""By so many times where a cycle of the day may be that nobody knows, or knows well: an error of .1 that becomes one of .5 is one all the same."""
MARGIN_OF_WEEK = 1.25
"""By so many where none shows, and less than a week was seen."""


class Rhythm(msgspec.Struct, frozen=True, array_like=True):
    """The state."""

    levels: Levels = Levels()
    blocks: Blocks = Blocks()

    @property
    def together(self) -> float:
        """So many rows of this day say as much as one."""
        return blocks.together(self.blocks, has_cycle=self.levels.is_sure)

    @property
    def margin(self) -> float:
        """How many times the odds may lie off this day by what is not known."""
        if not self.levels.closed and self.levels.hours <= HOURS:
            return MARGIN_OF_HOURS
        if self.levels.is_unknown:
            return MARGIN_OF_DAYS
        return MARGIN_OF_WEEK if self.levels.closed < levels.WEEK else 1.0


class Part(NamedTuple):
    """Rows of one day as they are to be judged: their scores, levelled, of which so many as go `together` say as much as one, and how many times the
    odds may lie off by what is not known.

    `is_known` says that the rhythm has just been learnt: what was judged before it was judged otherwise.
    """

    scores: Array
    together: float
    margin: float
    is_known: bool


def pieces(rhythm: Rhythm, times: Array) -> list[tuple[slice, int]]:
    """Rows that are to be taken at once, and the day to which they count: a day's, and of the first day those of its first hours."""
    days = levels.by_day(rhythm.levels, times)
    if not days or rhythm.levels.closed or days[0][1] != rhythm.levels.day >= 0:
        return days
    (rows, day), seen = days[0], set(np.flatnonzero(rhythm.levels.today_rows).tolist())
    for place, hour in enumerate(levels.cells(times[rows]).tolist()):
        seen.add(hour)
        if len(seen) > HOURS:
            return [each for each in ((slice(0, place), day), (slice(place, rows.stop), day)) if each[0].stop > each[0].start] + days[1:]
    return days


def taken(rhythm: Rhythm, scores: Array, times: Array, day: int) -> tuple[Rhythm, Part]:
    """The state after the rows of one piece, and how these are to be judged."""
    shape, kept = levels.begun(rhythm.levels, day), blocks.begun(rhythm.blocks, day)
    if shape.is_sure and not rhythm.levels.is_sure and shape.closed <= levels.WEEK:
        kept = Blocks(day=day)  # what there was is of scores that were not levelled
    is_known = rhythm.levels.is_unknown and not shape.is_unknown and shape.is_sure
    together = blocks.of_hours(kept), blocks.together(kept, has_cycle=shape.is_sure)
    shape, flat = levels.levelled(shape, scores, times, together=together)
    rhythm = Rhythm(shape, blocks.grown(kept, flat, times, day))
    return rhythm, Part(flat, rhythm.together, rhythm.margin, is_known)


def moved(rhythm: Rhythm) -> Rhythm:
    """With the scores at another level from now on: that step is no part of the rhythm."""
    return msgspec.structs.replace(rhythm, blocks=blocks.moved(rhythm.blocks))
