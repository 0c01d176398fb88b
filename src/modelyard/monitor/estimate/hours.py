"""How far beyond a bound an estimated window may lie: a bound is of days as a whole, and a rush hour that breaks it every day breaks none.

Hides what is remembered of the hours of the last week, and that all figures are held as losses: 1 less what is to be high, errors as they are, and
RMSE as its square. A window is allowed what the same hours of the day were at their worst, beside the reference's figure; of the first day, what is
known to be the hour's as little as to be the model's, a few times the bound. The last day as a whole is allowed the bound. Pure. It must not know how
a figure was estimated.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from modelyard.monitor.estimate.figures import LOWER_IS_BETTER

HOUR_S = 3600
DAY = 24
WEEK = 7 * DAY
AT_FIRST = 3.0
"""So many times the bound's loss is allowed to hours that were not seen before (of a share, its odds)."""
WHOLE = 20
"""A window of so many hours is a day."""


class Hour(msgspec.Struct, frozen=True, array_like=True):
    """An hour, counted from 1970: for how long it was estimated, and the sum of the losses, each times its seconds."""

    hour: int
    seconds: float
    total: float

    @property
    def loss(self) -> float:
        """The mean."""
        return self.total / self.seconds


def loss(name: str, value: float) -> float:
    """A figure as what is to be low; of what cannot be (an error below 0) the least that can."""
    if name not in LOWER_IS_BETTER:
        return 1.0 - value
    return max(0.0, value) ** 2 if name == "rmse" else max(0.0, value)


def noted(hours: Sequence[Hour], start: float, end: float, found: float) -> tuple[Hour, ...]:
    """With a window from `start` to `end` of which `found` is the loss; what is older than a week is forgotten, and so is what lies ahead."""
    hour, span_s = _middle(start, end), max(1.0, end - start)
    kept = [each for each in hours if hour - WEEK <= each.hour <= hour]
    had = next((each for each in kept if each.hour == hour), Hour(hour, 0.0, 0.0))
    return (*(each for each in kept if each.hour != hour), Hour(hour, had.seconds + span_s, had.total + span_s * found))


def allowed(hours: Sequence[Hour], start: float, end: float, *, limit: float, usual: float, is_share: bool) -> float:
    """The loss that the window may have, by those before it; `limit` is that of the bound, `usual` that of the reference."""
    hour, span = _middle(start, end), (end - start) / HOUR_S
    if span >= WHOLE:
        return limit
    before = [each for each in hours if hour - each.hour >= DAY / 2]  # what began an hour ago excuses nothing
    near = [each.loss for each in before if _apart(each.hour, hour) <= 1 + span / 2]
    if not near or hour - min(each.hour for each in hours) < DAY:
        return AT_FIRST * limit / (1 + (AT_FIRST - 1) * limit) if is_share else AT_FIRST * limit
    times = max(1.0, max(near) / usual) if usual > 0 else 1.0
    return min(limit * times, (1 + limit) / 2) if is_share else limit * times


def of_the_day(hours: Sequence[Hour], *, usual: float, seen: Sequence[Hour]) -> float:
    """The mean loss of the last day; what was not estimated of it counts as `usual`. `seen` are the hours that had rows, estimated or not."""
    last = max(each.hour for each in hours)
    day = [each for each in hours if each.hour > last - DAY]
    seconds, total = sum(each.seconds for each in day), sum(each.total for each in day)
    whole = max(seconds, _day_s(seen))
    return (total + (whole - seconds) * usual) / whole


def _day_s(seen: Sequence[Hour]) -> float:
    """For how long a day has rows: as long as any of the last week had, so that no office's night counts; of less than a day nobody knows."""
    last, spans = max(each.hour for each in seen), [0.0] * (WEEK // DAY + 1)
    if last - min(each.hour for each in seen) < DAY:
        return float(DAY * HOUR_S)
    for each in seen:
        spans[(last - each.hour) // DAY] += each.seconds
    return min(max(spans), float(DAY * HOUR_S))


def _middle(start: float, end: float) -> int:
    return int((start + end) / 2 // HOUR_S)


def _apart(one: int, other: int) -> int:
    """By how many hours of the clock two hours differ."""
    apart = (one - other) % DAY
    return min(apart, DAY - apart)
