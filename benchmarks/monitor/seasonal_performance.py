"""Pages of performance on the days and weeks of `seasonal`: bikes rented, and whether it were many, by labels that come within the hour.

The bound is the one that ships: what the reference's own days reached, less the smallest loss. On the season's other days, drawn so that nothing
changes, the mean over a week keeps it, while the rush hours of every day break it: whatever pages is false. Then, from a Thursday on, errors are half
as large again, which is little beyond the bound, or twice as large (of the classifier so many more answers are wrong): the hours until somebody is
woken are told beside those that the same errors take in any order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.items import Item
from benchmarks.monitor.estimate_numbers import DAY, FILE, INPUTS, TRUTH
from benchmarks.monitor.seasonal import MANY, MONTH_WEEKS, SEEDS, SHARE, WEEKS, Season, seasons, stream

RATES = {1: SEEDS, MANY: SEEDS, 200: 1}
"""Labels an hour, and how many streams of each season."""
WORSE = (1.5, 2.0)
WORSE_FROM = (3 * 7 + 3) * 24
"""The hour from which on errors are larger."""
_HOURS = 168
WITHIN = 28 * 24
"""Hours in which that is to be seen."""
DELAY_HOURS = 7 * 24
FIRST_HOUR = 7
"""Of every other stream the first day begins here, before a rush hour."""


class Watched(NamedTuple):
    """What came of one stream: pages, the share of hours with an alarm, and the hours from the change to an alarm (infinite: none came in time)."""

    pages: int
    held: float
    delay: float


def run(data: Path) -> list[Item]:
    """False pages ÷ what the budget allows, and hours until larger errors page."""
    found = _classified(seasons(data), data)
    items = []
    for kind, measure in (("", _errors), ("-class", _answers)):
        for an_hour, seeds in RATES.items():
            items += _items(found, kind, measure, an_hour, seeds)
    return items


def _items(found: list[Season], kind: str, measure: Any, an_hour: int, seeds: int) -> list[Item]:
    quiet, broken = list[Watched](), 0
    late: dict[float, list[float]] = {worse: [] for worse in WORSE}
    mixed: dict[float, list[float]] = {worse: [] for worse in WORSE}
    for place, season in enumerate(found):
        for seed in range(seeds):
            rng = np.random.default_rng([place, seed])
            chosen, times = (each[FIRST_HOUR * an_hour * ((place + seed) % 2) :] for each in stream(season.others, rng, an_hour=an_hour))
            given = measure(season, chosen, times, rng, 1.0)
            broken += given.is_broken
            quiet.append(_watched(given, an_hour))
            last = (WORSE_FROM + WITHIN) * an_hour
            for worse in WORSE:
                given = measure(season, chosen[:last], times[:last], rng, worse)
                late[worse].append(_watched(given, an_hour, is_late=True).delay)
                mixed[worse].append(_watched(given.mixed(rng, an_hour), an_hour, is_late=True).delay)
    weeks = WEEKS * len(quiet)
    pages, held = sum(each.pages for each in quiet), float(np.mean([each.held for each in quiet]))
    allowed = weeks / MONTH_WEEKS * SHARE
    note = f"{pages} in {weeks} weeks, where {allowed:.1f} are allowed; an alarm stands {held:.1%} of the time; {broken} of {len(quiet)} streams"
    note += f" break the bound over all; an alarm every 100 rows: {weeks * 168 * an_hour // 100:,}"
    name = f"seasonal-performance{kind}-{an_hour}"
    said = "; ".join(f"{worse:g} times as large {_hours(late[worse])}, in any order {_hours(mixed[worse])}" for worse in WORSE)
    found_late = f"an alarm after a change, medians of {len(quiet)}: {said}"
    items = [Item(name=name, figure=pages / allowed, unit="x", bar=1, better="lower", note=f"{note}; {found_late}")]
    if an_hour >= MANY:  # of fewer it takes weeks in any order
        hours = float(np.median(late[WORSE[-1]]))
        items.append(Item(name=f"{name}-delay", figure=hours, unit="h", bar=DELAY_HOURS, better="lower", note=found_late))
    return items


def _hours(delays: list[float]) -> str:
    return f"{np.median(delays):g} h ({sum(each < WITHIN for each in delays)} within {WITHIN // 24} days)"


class Given(NamedTuple):
    """One stream of labelled predictions beside what the reference reached."""

    schema: Any
    quality: dict[str, float]
    labelled: Any
    is_broken: bool

    def mixed(self, rng: np.random.Generator, an_hour: int) -> Given:
        """The same in any order, before the change and after it."""
        from modelyard.monitor.base import Labelled

        first = WORSE_FROM * an_hour
        order = np.concatenate([rng.permutation(first), first + rng.permutation(len(self.labelled.times) - first)])
        _, truth, predicted, probability, *_ = self.labelled
        there = probability[order] if len(probability) else probability
        return self._replace(labelled=Labelled(self.labelled.times, truth[order], predicted[order], there))


def _errors(season: Season, chosen: np.ndarray, times: np.ndarray, rng: np.random.Generator, worse: float) -> Given:
    from modelyard.monitor.base import Labelled
    from modelyard.types import Schema, TensorSpec

    outputs = (TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),)
    schema = Schema(inputs=(TensorSpec(name="hr", datatype="FP64", shape=(-1, 1)),), outputs=outputs, layout="frame", task="regression")
    usual = (season.reference["prediction"] - season.reference[TRUTH]).abs().to_numpy()
    quality = {"mae": float(usual.mean()), "rmse": float((usual**2).mean()) ** 0.5}
    predicted, truth = (season.others[name].to_numpy(np.float64)[chosen] for name in ("prediction", TRUTH))
    since = times >= times[0] + 3600 * WORSE_FROM
    truth = np.where(since, predicted + worse * (truth - predicted), truth)
    errors = np.abs(predicted - truth)
    is_broken = bool(errors.mean() > 1.25 * quality["mae"] or (errors**2).mean() ** 0.5 > 1.25 * quality["rmse"])
    return Given(schema, quality, Labelled(times, truth, predicted, np.zeros((0, 0))), is_broken)


def _answers(season: Season, chosen: np.ndarray, times: np.ndarray, rng: np.random.Generator, worse: float) -> Given:
    from modelyard.monitor.base import Labelled
    from modelyard.types import Schema, TensorSpec

    outputs = (TensorSpec(name="label", datatype="INT64", shape=(-1,)),)
    inputs = (TensorSpec(name="hr", datatype="FP64", shape=(-1, 1)),)
    schema = Schema(inputs=inputs, outputs=outputs, layout="frame", task="classification", classes=(0, 1))
    quality = {"accuracy": float((season.reference["said"] == season.reference["many"]).mean())}
    predicted, truth = (season.others[name].to_numpy(np.int64)[chosen] for name in ("said", "many"))
    wrong, since = (predicted != truth), times >= times[0] + 3600 * WORSE_FROM
    # as many more as `worse` says, at the hours that have the most wrong: a right answer beside a wrong one of its hour
    share = np.bincount(season.others["hr"], weights=season.others["said"] != season.others["many"]) / np.bincount(season.others["hr"])
    hourly = np.clip(share[season.others["hr"].to_numpy()[chosen]], 0, 0.9)
    turned = ~wrong & since & (rng.random(len(wrong)) < (worse - 1) * hourly / (1 - hourly))
    truth = np.where(turned, 1 - truth, truth)
    is_broken = bool((predicted != truth).mean() > 1 - quality["accuracy"] + 0.05)
    return Given(schema, quality, Labelled(times, truth, predicted, np.zeros((0, 0))), is_broken)


def _classified(found: list[Season], data: Path) -> list[Season]:
    """With each row whether bikes were more than the median (`many`), and what a forest that saw none of these days says (`said`)."""
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier

    rows = pd.read_csv(data / FILE)
    taken = {day for season in found for days in season for day in days[DAY]}
    rest, median = rows[~rows[DAY].isin(taken)], rows[TRUTH].median()
    model = RandomForestClassifier(60, min_samples_leaf=3, random_state=0, n_jobs=1)
    model.fit(rest[list(INPUTS)].to_numpy(), (rest[TRUTH] > median).to_numpy())

    def judged(days: Any) -> Any:
        return days.assign(many=(days[TRUTH] > median).astype(int), said=model.predict(days[list(INPUTS)].to_numpy()).astype(int))

    return [Season(*map(judged, season)) for season in found]


def _watched(given: Given, an_hour: int, *, is_late: bool = False) -> Watched:
    """As it ships, an hour at a time; of a stream that `is_late` to break its bound until that is seen."""
    from modelyard.monitor import performance, risk
    from modelyard.monitor.base import Labelled
    from modelyard.monitor.settings import Monitored
    from modelyard.types import Digest

    labelled = given.labelled
    demands = performance.demanded(Monitored(), given.quality, performance.figure_names(given.schema))
    between = MONTH_WEEKS * _HOURS * an_hour / SHARE * len(demands)
    terms = {name: risk.Terms(rows_between=between, bound=performance.bound(name, each)) for name, each in demands.items()}
    state = performance.State(format=performance.FORMAT, digest=Digest("sha256:" + "b" * 64))
    raised, pages, was = list[bool](), 0, set[str]()
    for hour, first in enumerate(range(0, len(labelled.times), an_hour)):
        part = slice(first, first + an_hour)
        rows = Labelled(labelled.times[part], labelled.truth[part], labelled.predicted[part], labelled.probability)
        state = performance.fed(state, rows, demands, terms)
        now = {name for name, test in state.tests.items() if test.is_raised}
        pages, was = pages + len(now - was), now
        raised.append(bool(now))
        if is_late and now and hour >= WORSE_FROM:
            return Watched(pages, float(np.mean(raised)), hour - WORSE_FROM + 1.0)
    return Watched(pages, float(np.mean(raised)), np.inf)
