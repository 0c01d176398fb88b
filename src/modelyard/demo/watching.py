"""Hours that were replayed, judged as they would have been at their time, until somebody is woken by what the model costs, and by its inputs: when,
why, in what words.

Hides that months pass in seconds: each hour is handed to the very turn that the control process makes once a minute, with the clock of the data. It
must not judge: the detectors do, as they are shipped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.demo import bikes
from modelyard.errors import Unavailable

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.monitor.alerts import Alert
    from modelyard.monitor.base import Labelled, Logged, Minute
    from modelyard.types import Array

DAY_S = 86_400
WINDOW_S = 14.0 * DAY_S
"""An hour is one row here: reports look back on two weeks, not on the six hours of a busy service."""
LABELLED_AFTER_S = DAY_S
"""How long after its hour the true count is known."""
TOLERATED = 3.0
"""The error at which somebody wants to be woken, beside that on hours out of bag: it stands in the deployment's monitor.toml."""


class Paged(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody would have been woken for: on which day, by which rule, what was found and what explains it."""

    at: str
    rule: str
    evidence: str
    columns: tuple[str, ...]
    harm: float | None
    cause: str
    why: str


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What watching found: the first page by the `error`, with its `message` as it is delivered, and the first by `drift`.

    By that of the error the monitor had seen so many `hours`, and labels had shown an error above `allowed` bikes an hour.
    """

    hours: int
    allowed: float
    drift: Paged
    error: Paged
    message: str


def watch(bundle: Bundle, hours: Any, predictions: Mapping[str, float], *, error: float, progress: Callable[[str, float], None]) -> Watched:
    """Judge `hours` (a frame, in time order) by what was answered to them (`predictions`, by `date`T`hour`) until labels show that the model errs
    and inputs that they moved.

    `error` is that on hours out of bag. Raises Unavailable when nothing of that kind is found to the end.
    """
    from modelyard.control import monitoring
    from modelyard.monitor import alerts
    from modelyard.monitor import watch as turns
    from modelyard.monitor.alerts import Explained, text
    from modelyard.monitor.settings import Bound, Monitored, Performance

    settings = Monitored(window_s=WINDOW_S, bounds={"mae": Bound(most=TOLERATED * error)}, performance=Performance(window_s=WINDOW_S))
    detectors = turns.load()
    reference = monitoring.reference(bundle)
    times = np.array([_time(date, hour) for date, hour in zip(hours["date"], hours["hour"], strict=True)])
    seen = _Seen(bundle, hours, times, predictions)
    rules = alerts.Rules(pages=frozenset(rule for rule, detector in detectors.items() if detector.pages))
    kept = turns.begin(bundle.digest, 1, settings=settings, now=float(times[0]))
    state, drift, woken = alerts.State(), None, None
    first, last = int(times[0] // DAY_S), int(times[-1] // DAY_S)
    for day in range(first, last + 1):
        end = (day + 1) * DAY_S
        progress(_day(end), (day - first) / (last - first))
        span = turns.span(kept, settings=settings, closed=end)
        gathered = turns.Seen(
            name=bikes.NAME,
            reference=reference,
            minutes=seen.minutes(span.since, span.until),
            labelled=seen.labelled(end - WINDOW_S, end - LABELLED_AFTER_S),
            span=span,
            now=end + turns.GRACE_S,
            logged=seen.logged(end - WINDOW_S, end),
        )
        kept = turns.turn(kept, gathered, detectors, settings=settings, pages=settings.false_pages_a_month)
        causes = {(bikes.NAME, rule): Explained(each.kind, each.said, each.advice) for rule, each in kept.causes.items()}
        state, told = alerts.step(state, {bikes.NAME: kept.verdicts}, rules=rules, now=end + turns.GRACE_S, causes=causes)
        for notification in told:
            for alert in notification.firing:
                if notification.severity != "page" or alert.id not in notification.news:
                    continue
                if drift is None and alert.rule.startswith("drift:"):
                    drift = _paged(alert, end)
                if woken is None and alert.rule.partition(":")[0] in ("concept", "performance"):
                    message = text.plain(msgspec.structs.replace(notification, firing=(alert,), also=()))
                    woken = bisect_left(times, end), _paged(alert, end), message
        if drift is not None and woken is not None:
            count, paged, message = woken
            return Watched(hours=count, allowed=TOLERATED * error, drift=drift, error=paged, message=message)
    raise Unavailable("the monitor found nothing to wake somebody for")


class _Seen:
    """The hours as the monitor is handed them: a minute each, labelled and logged rows of a span."""

    def __init__(self, bundle: Bundle, hours: Any, times: Array, predictions: Mapping[str, float]) -> None:
        from modelyard.monitor import profile
        from modelyard.monitor.base import Minute
        from modelyard.runtime import data, schema

        keys = [f"{date}T{hour:02}" for date, hour in zip(hours["date"], hours["hour"], strict=True)]
        self._times = times
        self._predicted = np.array([predictions.get(key, np.nan) for key in keys])
        self._truth = hours[bikes.TARGET].to_numpy(np.float64)
        self._inputs = schema.conform(bundle.schema, data.read(hours[list(bikes.FEATURES)])[0].columns)
        binner = profile.Binner(profile.reference(bundle))
        self._minutes: list[Minute] = []
        for place, start in enumerate(times.astype(int).tolist()):
            row = slice(place, place + 1)
            binner.add({name: values[row] for name, values in self._inputs.items()}, {"prediction": self._predicted[row]})
            counts = binner.take()
            answered = Minute(
                start=start, version=1, digest=bundle.digest, requests=1, rows=1, latencies={320: 1}, failures={}, dropped={}, counts=counts
            )
            self._minutes.append(answered)

    def _between(self, since: float, until: float) -> slice:
        return slice(bisect_left(self._times, since), bisect_left(self._times, until))

    def minutes(self, since: float, until: float) -> list[Minute]:
        """Those that begin from `since` to before `until`."""
        return self._minutes[self._between(since, until)]

    def labelled(self, since: float, until: float) -> Labelled | None:
        """The hours of a span with their true counts."""
        from modelyard.monitor.base import Labelled

        rows = self._between(since, until)
        if rows.start >= rows.stop:
            return None
        return Labelled(
            times=self._times[rows],
            truth=self._truth[rows],
            predicted=self._predicted[rows],
            probability=np.zeros((0, 0)),
            numbers=np.arange(rows.start, rows.stop) + 1,
        )

    def logged(self, since: float, until: float) -> Logged | None:
        """The hours of a span with inputs and answers."""
        from modelyard.monitor.base import Logged

        rows = self._between(since, until)
        if rows.start >= rows.stop:
            return None
        inputs = {name: values[rows].reshape(-1) for name, values in self._inputs.items()}
        return Logged(times=self._times[rows], inputs=inputs, outputs={"prediction": self._predicted[rows]})


def _paged(alert: Alert, end: float) -> Paged:
    verdict = alert.verdict
    return Paged(
        at=_day(end - 1), rule=alert.rule, evidence=verdict.evidence, columns=verdict.columns, harm=verdict.harm, cause=alert.cause, why=alert.why
    )


def _time(date: str, hour: int) -> float:
    return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() + 3600.0 * hour


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
