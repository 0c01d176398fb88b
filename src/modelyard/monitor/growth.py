"""Whether a figure grows and does not come down again, as memory does that leaks: too slowly for any five minutes to be strange.

Hides that each hour is held against the same hour of the day before, which takes the cycle of the day out, and what tells a leak from what else
makes memory grow. A release that warms up has no day before; a step, or a cache that fills, lies above the day before for a day and for as long as it
took; a leak goes on. How large a growth that goes on is usual is learnt (`anomalies.Tail`). Pure. It must not know what grows.
"""

from __future__ import annotations

import math
from statistics import median

import msgspec

from modelyard.monitor.anomalies import LEAST, RARE, Tail

HOUR_S = 3600
DAY = 24
LASTING = 48
"""Growth of so many hours goes on: a step makes a day of them, the rest is for how long one may take, and for another that follows it."""
ODD = 2
"""So many of them may be odd: a worker that has begun anew, say."""
GAP = 3
"""Hours of which nothing is known, after which it begins anew."""
FLOOR = 0.02
"""Less in a day is no growth, on a scale on which 1 is twice as much."""
_SLOWLY = 0.1


class Growth(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The course of one figure, by its logarithm to the base 2. Whoever judges owns it.

    `hour` (since 1970) is not over, `held` are its values; `hours` the medians of the last day by their hour, `level` the latest; `grown` the last
    differences to the day before, up to the hour `last`. `run` counts the hours for which growth has gone on, `most` is the largest of them. `tail`
    knows how often growth that goes on was how large, and `chance` is that of the last hour's. `gaps` counts how often in a row a gap came before
    that could be told.
    """

    hour: int = 0
    held: list[float] = []
    hours: dict[int, float] = {}
    level: float = 0.0
    grown: list[float] = []
    last: int = 0
    run: int = 0
    most: float = 0.0
    chance: float = 1.0
    gaps: int = 0
    tail: Tail = msgspec.field(default_factory=Tail)

    @property
    def lasting(self) -> float:
        """What nearly every one of the last hours has grown by in a day, at least; 0 before that can be told."""
        return sorted(self.grown)[ODD] if len(self.grown) == LASTING else 0.0

    @property
    def latest(self) -> float:
        """What it was when it was last seen, also in an hour that is not over."""
        return median(self.held) if self.held else self.level

    @property
    def a_day(self) -> float:
        """By how much it has grown in a day, in the middle of the last day's hours."""
        return median(self.grown[-DAY:]) if self.grown else 0.0

    @property
    def total(self) -> float:
        """By how much it has grown since it began to go on; the cycle of the day taken out."""
        return self.a_day * (LASTING + self.run) / DAY if self.run else 0.0

    @property
    def began(self) -> int:
        """The hour from which on it has grown, where it does."""
        return self.last - LASTING - self.run + 1

    def silent(self, time_s: float) -> int:
        """How many whole hours before a time nothing was seen in, where they are a gap; else 0."""
        hours = int(time_s // HOUR_S) - self.hour - 1
        return hours if self.hour and hours > GAP else 0

    @property
    def is_known(self) -> bool:
        """Whether enough is known of what is usual."""
        return self.tail.seen >= LEAST

    def see(self, time_s: float, value: float) -> None:
        """Take in a value; what lies before the hour that is not over is passed over."""
        hour = int(time_s // HOUR_S)
        if not math.isfinite(value) or hour < self.hour:
            return
        if hour > self.hour and self.held:
            self._close()
        self.hour = hour
        self.held.append(value)

    def begin(self) -> None:
        """Something else grows from now on, such as the processes of a new release; what is usual is still known."""
        self.hour, self.held, self.hours, self.grown, self.run, self.last, self.most, self.chance, self.gaps = 0, [], {}, [], 0, 0, 0.0, 1.0, 0

    def _close(self) -> None:
        """The hour is over."""
        self.level = median(self.held)
        before = self.hours.get(self.hour - DAY)
        self.hours = {hour: level for hour, level in self.hours.items() if hour > self.hour - DAY} | {self.hour: self.level}
        self.held = []
        if before is None:
            return
        if self.hour - self.last > GAP:
            self.gaps += bool(self.grown)
            self.grown, self.run, self.most, self.chance = [], 0, 0.0, 1.0
        self.last = self.hour
        self.grown = [*self.grown, self.level - before][-LASTING:]
        if len(self.grown) == LASTING:
            self.gaps = 0
            self._judge(max(self.lasting, FLOOR))

    def _judge(self, size: float) -> None:
        """How rare growth of this size is. It is learnt when it is over: a leak must not become usual by its first hours."""
        if size > FLOOR:
            self.run, self.most = self.run + 1, max(self.most, size)
            self.chance = self.tail.chance(size) if self.is_known else 1.0
            return
        usual = self.tail.chance(self.most) > RARE or not self.is_known
        for _ in range(self.run):
            self.tail.add(self.most, share=1.0 if usual else _SLOWLY)
        self.tail.add(FLOOR)
        self.run, self.most, self.chance = 0, 0.0, 1.0
