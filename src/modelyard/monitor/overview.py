"""What is told of one deployment's watch: verdicts, the alarm budget, and the course of its traffic, latency, errors, drift and performance.

Pure: what was kept and counted in, one value out, from which the terminal, the page and the API all draw. It must not judge, nor draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from modelyard.events import quantile_s
from modelyard.monitor.alerts.base import Alert
from modelyard.monitor.base import MINUTE_S, Minute
from modelyard.monitor.budget import account
from modelyard.monitor.evidence import CALLERS, summed
from modelyard.monitor.labels import Account
from modelyard.monitor.settings import Monitored
from modelyard.types import Digest, Verdict

if TYPE_CHECKING:
    from modelyard.monitor.watch import Kept

POINTS = 60
"""How many points a course has at most."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The course of one figure: values at equal steps over the span of the overview, None where there was nothing to measure.

    `unit` is `/s`, `s`, `share`, `level` (a value beside the threshold of an alarm: 1 is an alarm) or empty for a figure of the model's own.
    """

    name: str
    unit: str
    values: tuple[float | None, ...]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How often a month somebody may be woken for nothing, on average; how often somebody was in the last month, and what is left of it.

    `chance` is that of so many pages or more with nothing wrong.
    """

    false_pages_a_month: float
    spent: float
    left: float
    chance: float = 1.0


class Overview(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One deployment's watch, from `since` to before `until` (seconds since 1970, UTC).

    What was seen before `judged_through` is judged, by `judged_at`; None: not yet. `verdicts` are the latest, the most important first; those whose
    rule is in `pages` may wake somebody; `alerts` are those that are not over. `late` requests came after their minutes were judged. `labels` tells
    how complete the truth is, `settings` how it is watched.
    """

    name: str
    version: int | None
    digest: Digest | None
    since: float
    until: float
    budget: Budget
    requests: int = 0
    rows: int = 0
    judged_through: float | None = None
    judged_at: float | None = None
    verdicts: tuple[Verdict, ...] = ()
    pages: tuple[str, ...] = ()
    alerts: tuple[Alert, ...] = ()
    series: tuple[Series, ...] = ()
    late: int = 0
    labels: Account | None = None
    trouble: tuple[str, ...] = ()
    settings: Monitored = Monitored()


def courses(minutes: Sequence[Minute], track: Mapping[str, Sequence[tuple[int, float]]], *, since: float, until: float) -> tuple[Series, ...]:
    """Traffic, latency and errors of the minutes, and what was tracked, at no more than `POINTS` equal steps of whole minutes."""
    span_s = max(until - since, MINUTE_S)
    step_s = MINUTE_S * math.ceil(span_s / MINUTE_S / POINTS)
    count = math.ceil(span_s / step_s)
    parts: list[list[Minute]] = [[] for _ in range(count)]
    for minute in minutes:
        place = int((minute.start - since) // step_s)
        if 0 <= place < count:
            parts[place].append(minute)
    found = [
        Series(name="requests", unit="/s", values=tuple(sum(each.requests for each in part) / step_s for part in parts)),
        Series(name="p50", unit="s", values=tuple(_latency(part, 0.5) for part in parts)),
        Series(name="p99", unit="s", values=tuple(_latency(part, 0.99) for part in parts)),
        Series(name="errors", unit="share", values=tuple(map(_errors, parts))),
    ]
    for name, points in track.items():
        values = _resampled(points, since=since, step_s=step_s, count=count)
        if any(value is not None for value in values):
            figure = name.rpartition(":")[2] if ":" in name else ""
            found.append(Series(name=name, unit="" if figure else "level", values=values))
    return tuple(found)


def overview(
    name: str,
    kept: Kept | None,
    minutes: Sequence[Minute],
    *,
    settings: Monitored,
    span: tuple[float, float],
    alerts: Sequence[Alert] = (),
    labels: Account | None = None,
    may_page: Callable[[Verdict], bool] = lambda _: False,
    trouble: Sequence[str] = (),
) -> Overview:
    """Everything there is to tell. `kept` is what the last turn left, `minutes` those of the `span`."""
    since, until = span
    spent = account(() if kept is None else kept.paged, allowed=settings.false_pages_a_month, now=until)
    return Overview(
        name=name,
        version=None if kept is None else kept.version,
        digest=None if kept is None else kept.digest,
        since=since,
        until=until,
        budget=Budget(false_pages_a_month=spent.allowed, spent=float(spent.spent), left=spent.left, chance=spent.chance),
        alerts=tuple(alerts),
        requests=sum(minute.requests for minute in minutes),
        rows=sum(minute.rows for minute in minutes),
        judged_through=None if kept is None or not kept.judged_at else float(kept.through),
        judged_at=None if kept is None or not kept.judged_at else kept.judged_at,
        verdicts=() if kept is None else kept.verdicts,
        pages=() if kept is None else tuple(dict.fromkeys(verdict.rule for verdict in kept.verdicts if may_page(verdict))),
        series=courses(minutes, {} if kept is None else kept.track, since=since, until=until),
        late=0 if kept is None else kept.late,
        labels=labels,
        trouble=tuple(trouble),
        settings=settings,
    )


def _latency(part: Sequence[Minute], share: float) -> float | None:
    total: dict[int, int] = {}
    for minute in part:
        total = summed(total, minute.latencies)
    found = quantile_s(total, share)
    return None if math.isnan(found) else found


def _errors(part: Sequence[Minute]) -> float | None:
    """The share of requests that server or model failed; what callers caused counts nowhere."""
    failed = sum(each.requests for minute in part for code, each in minute.failures.items() if code not in CALLERS)
    asked = failed + sum(minute.requests for minute in part)
    return failed / asked if asked else None


def _resampled(points: Sequence[tuple[int, float]], *, since: float, step_s: float, count: int) -> tuple[float | None, ...]:
    """The largest value of each step, by its size."""
    values: list[float | None] = [None] * count
    for at, value in points:
        place = int((at - since) // step_s)
        if 0 <= place < count:
            before = values[place]
            values[place] = value if before is None or abs(value) > abs(before) else before
    return tuple(values)
