"""A whole watch, as it ships, over months in which nothing changes but what hours, weekdays and weather bring: how often somebody is woken.

The other benchmarks hold one detector each against its share of the alarm budget; this one holds all of them, with the rules for alerts behind them,
against the whole: one false page a month. Each month is of one season of real hours of bikes: every day (of many rows an hour: every row) is drawn
among that season's days of the same weekday, on which the model was not trained and which the reference is of. Labels come a day late. Some months
are watched again with a change from the third week on: errors half as large again, or temperatures in another unit.
"""

from __future__ import annotations

import itertools
import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.items import Item
from benchmarks.monitor.estimate_numbers import DAY, FILE, INPUTS, TRUTH
from benchmarks.monitor.seasonal import stream
from modelyard.monitor import alerts, profile, watch
from modelyard.monitor.base import Labelled, Logged, Minute, Reference
from modelyard.monitor.settings import Concept, Monitored

MONTH_DAYS, CHANGED_DAY = 30, 14
SEEDS = {1: 4, 60: 1}
"""How many months of each season are watched, by the number of rows an hour."""
DAY_S, HOUR_S, TURN_S = 86_400, 3_600, 7_200
LABELLED_DAYS = 30
WORSE = 1.5
SOON_H = {("worse", 1): 14 * 24, ("worse", 60): 48, ("unit", 1): 24, ("unit", 60): 2}
"""In how many hours each change must wake somebody, by what it is and the rows an hour. Labels come a day late."""
LATENCY = 320
"""The bucket of every latency: operations have a benchmark of their own."""


class Rows(NamedTuple):
    """Requests of one row in the order of time: what was asked, answered and true."""

    times: np.ndarray
    inputs: Mapping[str, np.ndarray]
    predicted: np.ndarray
    truth: np.ndarray

    def between(self, since: float, until: float) -> slice:
        """Those from `since` to before `until`."""
        return slice(bisect_left(self.times, since), bisect_left(self.times, until))


class Woken(NamedTuple):
    """Each time that somebody was woken, with the rules that did; when something changed, if anything does; and for which share of
    the time an alert stood by which somebody is woken."""

    pages: tuple[tuple[float, tuple[str, ...]], ...]
    changed: float
    stood: float


def run(data: Path) -> list[Item]:
    """Pages a month by the number of rows an hour; then how soon two real changes wake somebody, in all months."""
    items = []
    seasons = list(_seasons(data))
    for rate, seeds in SEEDS.items():
        quiet, worsened, units = list[Woken](), list[Woken](), list[Woken]()
        for place, (reference, days, model) in enumerate(seasons):
            for seed in range(seeds):
                rows = _drawn(days, np.random.default_rng([place, seed, rate]), rate)
                quiet.append(watched(reference, rows))
                if not seed:
                    worsened.append(watched(reference, worse(rows)))
                    units.append(watched(reference, _unit(rows, model), until_h=SOON_H["unit", rate]))
        items += items_of(rate, quiet, {"worse": worsened, "unit": units})
    return items


def watched(reference: Reference, rows: Rows, *, until_h: int | None = None) -> Woken:
    """Judged with the shipped settings and told by the shipped rules as by the control process, but every `TURN_S` instead of each minute; where a
    change is looked for, until `until_h` hours after it. What river's detectors report, which never page, is left out.
    """
    settings, detectors = Monitored(concept=Concept(reports=False)), watch.load()
    rules = alerts.Rules(pages=frozenset(rule for rule, detector in detectors.items() if detector.pages))
    minutes = _minutes(reference, rows)
    starts = [each.start for each in minutes]
    begin = int(rows.times[0] // DAY_S) * DAY_S
    kept = watch.begin(reference.digest, 1, settings=settings, now=float(begin))
    state, pages, stood = alerts.State(), list[tuple[float, tuple[str, ...]]](), 0
    changed = begin + CHANGED_DAY * DAY_S
    turns = range(begin + TURN_S, (begin + MONTH_DAYS * DAY_S if until_h is None else changed + until_h * HOUR_S) + 1, TURN_S)
    for end in turns:
        span = watch.span(kept, settings=settings, closed=end)
        seen = watch.Seen(
            name="bikes",
            reference=reference,
            minutes=minutes[bisect_left(starts, span.since) : bisect_left(starts, span.until)],
            labelled=_labelled(rows, rows.between(end - LABELLED_DAYS * DAY_S, end - DAY_S)),
            span=span,
            now=end + watch.GRACE_S,
            logged=_logged(rows, rows.between(span.since, end)),
        )
        kept = watch.turn(kept, seen, detectors, settings=settings, pages=settings.false_pages_a_month)
        if kept.failed:
            raise RuntimeError(f"detectors failed: {kept.failed}")
        state, told = alerts.step(state, {"bikes": kept.verdicts}, rules=rules, now=seen.now)
        for each in told:
            if each.severity == "page" and each.news:
                pages.append((float(end), tuple(alert.rule for alert in each.firing if alert.id in each.news)))
        stood += any(watch.is_page(verdict, detectors, settings) for verdict in kept.verdicts)
    return Woken(tuple(pages), float(changed), stood / len(turns))


def _seasons(data: Path) -> Any:
    """Of each season the reference of a packaged forest, the days on which it was not trained, and what it answers."""
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    import modelyard
    from modelyard.monitor import reference

    rows = pd.read_csv(data / FILE)
    rows["day"] = rows[DAY].factorize()[0]
    part = (np.random.default_rng(0).permutation(rows["day"].max() + 1) % 3)[rows["day"]]
    model = RandomForestRegressor(60, min_samples_leaf=3, random_state=0, n_jobs=1)
    model.fit(rows[part == 0][list(INPUTS)].astype(np.float32), rows[part == 0][TRUTH].to_numpy())
    is_whole = rows.groupby("day")["hr"].transform("size") == 24
    for season in sorted(rows["season"].unique()):
        days = rows[is_whole & (rows["season"] == season) & (part > 0)]
        asked = days[list(INPUTS)].astype(np.float32)
        with tempfile.TemporaryDirectory() as home:
            bundle = modelyard.package(
                model, name="bikes", data=asked, labels=days[TRUTH], evaluation=asked, evaluation_labels=days[TRUTH], home=home
            )
            found = reference.read(bundle)
        yield found, days.assign(prediction=model.predict(asked)), model


def _drawn(days: Any, rng: np.random.Generator, rate: int) -> Rows:
    places, times = stream(days, rng, an_hour=rate)
    chosen = days.iloc[places[: MONTH_DAYS * 24 * rate]]
    inputs = {name: chosen[name].to_numpy(np.float32) for name in INPUTS}
    return Rows(times[: len(chosen)], inputs, chosen["prediction"].to_numpy(), chosen[TRUTH].to_numpy(np.float64))


def _is_changed(rows: Rows) -> np.ndarray:
    return rows.times >= rows.times[0] + CHANGED_DAY * DAY_S


def worse(rows: Rows) -> Rows:
    """The model errs half as much again."""
    error = rows.truth - rows.predicted
    return rows._replace(truth=rows.predicted + error * np.where(_is_changed(rows), WORSE, 1.0))


def _unit(rows: Rows, model: Any) -> Rows:
    """Temperatures come ten times as large, and the model answers by them."""
    import pandas as pd

    inputs = dict(rows.inputs) | {"temp": (rows.inputs["temp"] * np.where(_is_changed(rows), 10, 1)).astype(np.float32)}
    return rows._replace(inputs=inputs, predicted=model.predict(pd.DataFrame(inputs)[list(INPUTS)]))


def _minutes(reference: Reference, rows: Rows) -> list[Minute]:
    binner, found = profile.Binner(reference.profile), []
    starts = (rows.times // 60 * 60).astype(int)
    edges = np.flatnonzero(np.diff(starts, prepend=starts[0] - 60, append=starts[-1] + 60))
    for first, last in itertools.pairwise(edges):
        part, count = slice(first, last), int(last - first)
        binner.add({name: values[part, None] for name, values in rows.inputs.items()}, {"prediction": rows.predicted[part]})
        found.append(Minute(int(starts[first]), 1, reference.digest, count, count, {LATENCY: count}, {}, {}, binner.take()))
    return found


def _labelled(rows: Rows, part: slice) -> Labelled | None:
    if part.start >= part.stop:
        return None
    numbers = np.arange(part.start, part.stop) + 1
    return Labelled(rows.times[part], rows.truth[part], rows.predicted[part], np.zeros((0, 0)), numbers)


def _logged(rows: Rows, part: slice) -> Logged | None:
    if part.start >= part.stop:
        return None
    return Logged(rows.times[part], {name: values[part] for name, values in rows.inputs.items()}, {"prediction": rows.predicted[part]})


def items_of(rate: int, quiet: Sequence[Woken], changed: Mapping[str, Sequence[Woken]]) -> list[Item]:
    by_rule = Counter(rule for each in quiet for _, rules in each.pages for rule in rules)
    told = ", ".join(f"{rule} {count}" for rule, count in by_rule.most_common())
    stood = sum(each.stood for each in quiet) / len(quiet)
    note = f"{'/'.join(str(len(each.pages)) for each in quiet)}; an alert stands {stood:.1%} of the time{f'; {told}' if told else ''}; "
    note += f"an alarm every 100 rows: {MONTH_DAYS * 24 * rate // 100}"
    figure = sum(len(each.pages) for each in quiet) / len(quiet)
    items = [Item(name=f"month-pages-{rate}", figure=figure, unit=" pages/month", bar=1, better="lower", note=note)]
    for name, months in changed.items():
        items.append(_found(f"month-{name}-{rate}", months, bar=SOON_H[name, rate]))
    return items


def _found(name: str, months: Sequence[Woken], *, bar: float) -> Item:
    """In how many hours of a change somebody is woken, by the slowest of all months."""
    hours, rules = [], []
    for each in months:
        after = [(when - each.changed) / HOUR_S for when, _ in each.pages if when > each.changed]
        hours.append(min(after, default=np.inf))
        rules.append("+".join(next((told for when, told in each.pages if when > each.changed), ("never",))))
    note = ", ".join(f"{spent:.0f} h by {by}" for spent, by in zip(hours, rules, strict=True))
    return Item(name=name, figure=max(hours), unit=" h", bar=bar, better="lower", note=note)
