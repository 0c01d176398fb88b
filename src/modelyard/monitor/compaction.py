"""When minutes become hours, and hours days: months of windows in few bytes.

Hides which windows are due, and how much is done of it at a time: the intake must not stand still for it. Sums are exact (`Windows.roll`), so what is
told of a span does not change by it; only how finely it can be cut. It must not drop anything: retention does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from modelyard.monitor.windows import DAY_S, HOUR_S, WINDOW_S, Rollable, Windows

if TYPE_CHECKING:
    from modelyard.config import Settings

AT_ONCE = 16
"""Windows that are made in one go; an hour of a hundred features takes a few milliseconds."""


class Ages(NamedTuple):
    """For how long windows stay as fine as they are: minutes with their counters, minutes with their profiles, and hours of both."""

    counters_s: float
    profiles_s: float
    hours_s: float


def ages(settings: Settings) -> Ages:
    """As a home's settings say."""
    return Ages(
        counters_s=settings.minute_counters_hours * HOUR_S,
        profiles_s=settings.minute_profiles_hours * HOUR_S,
        hours_s=settings.hour_windows_days * DAY_S,
    )


def compact(windows: Windows, *, now: float, kept: Ages, at_once: int = AT_ONCE) -> bool:
    """Roll up to `at_once` windows that are due at `now`, the oldest of each deployment first; whether more may be due."""
    made = 0
    while made < at_once:
        found = list(due(windows, now=now, kept=kept))[: at_once - made]
        if not found:
            return False
        for table, name, start, span, into in found:
            windows.roll(table, name, start, span=span, into=into)
        made += len(found)
    return True


def due(windows: Windows, *, now: float, kept: Ages) -> Iterator[tuple[Rollable, str, int, int, int]]:
    """The oldest window to be made of each deployment, table and span: which, where it begins, of what span, into what span."""
    fine: dict[Rollable, float] = {"windows": kept.counters_s, "profiles": kept.profiles_s}
    for table, age_s in fine.items():
        minutes = windows.oldest(table, WINDOW_S)
        for span, into, oldest_s in ((WINDOW_S, HOUR_S, age_s), (HOUR_S, DAY_S, max(kept.hours_s, age_s))):
            for name, start in (minutes if span == WINDOW_S else windows.oldest(table, span)).items():
                first = start - start % into
                is_whole = span == WINDOW_S or minutes.get(name, first + into) >= first + into
                if first + into <= now - oldest_s and is_whole:
                    yield table, name, first, span, into
