"""False pages on a stream of days and weeks, of real hours: bikes rented, by a model that was packaged without times; and how soon real changes page.

Each stream is of one season: every day is drawn among that season's real days of the same weekday, so that nothing changes but what the hour, the
weekday and the weather bring, and whatever pages is false. Drift is given the rows of the reference's own days, a row an hour, and learns the first
week; concept drift the errors on days that neither model nor reference saw, a row an hour, and twenty. Each has a fifth of a budget of one false page
a month. What an alarm every 100 rows would come to stands beside.

Then concept drift is given the same streams with a change that lasts, on one of three days: errors that are half as large again; and a join that went
wrong one way, so that each hour is answered as the one before. Beside the time until it pages stands what the same errors take in any order, before
the change and after it, by the monitor of the risk alone: rows that share no weather, which no stream of days can have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.items import Item
from benchmarks.monitor.estimate_numbers import DAY, FILE, INPUTS, TRUTH

SHARE = 0.2
"""How many false pages a month each detector is allowed."""
WEEKS, SEEDS, CONCEPT_SEEDS, MANY = 26, 2, 4, 20
CHANGES = (60, 95, 130)
"""The days on which a change begins."""
WITHIN_DAYS = 40
"""A change that was not told in so many days counts as one that never was."""
LARGER = 1.5
HELD, SLOWER = 0.05, 3.0
"""For which share of the time a false alarm may stand, and how many times as long as in any order a change may take: our own bars."""
MONDAY = 1_767_571_200
MONTH_WEEKS = 30.4375 / 7
_HOURS = 168


class Season(NamedTuple):
    """Real days of one season: the `reference`'s, and others."""

    reference: Any
    others: Any


def run(data: Path) -> list[Item]:
    """False pages ÷ what the budget allows, of drift and of concept drift; and how soon concept drift tells of changes."""
    found = seasons(data)
    drifts = sum(_drift(season, np.random.default_rng([place, seed])) for place, season in enumerate(found) for seed in range(SEEDS))
    weeks = WEEKS * SEEDS * len(found)
    items = [_item("seasonal-drift", drifts, weeks, f"a row an hour, an alarm every 100 rows: {weeks * _HOURS // 100:,}")]
    for an_hour in (1, MANY):
        drawn = [
            _Errors(season, np.random.default_rng([place, seed]), an_hour) for place, season in enumerate(found) for seed in range(CONCEPT_SEEDS)
        ]
        items += _quiet(drawn, an_hour)
        items += [_told(drawn, an_hour, "larger", f"errors {LARGER:g} times as large"), _told(drawn, an_hour, "joined", "answers of the hour before")]
    return items


def seasons(data: Path) -> list[Season]:
    """Whole days with a forest's answers; the forest is trained on a third of all days, and these are of the other two."""
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    rows = pd.read_csv(data / FILE)
    rows["day"] = rows[DAY].factorize()[0]
    part = (np.random.default_rng(0).permutation(rows["day"].max() + 1) % 3)[rows["day"]]
    model = RandomForestRegressor(60, min_samples_leaf=3, random_state=0, n_jobs=1)
    model.fit(rows[part == 0][list(INPUTS)].to_numpy(), rows[part == 0][TRUTH].to_numpy())
    rows["prediction"] = model.predict(rows[list(INPUTS)].to_numpy())
    whole = rows.groupby("day")["hr"].transform("size") == 24
    return [Season(*(rows[whole & (rows["season"] == season) & (part == each)] for each in (1, 2))) for season in sorted(rows["season"].unique())]


def stream(days: Any, rng: np.random.Generator, *, an_hour: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of `days` come, and when. Of one an hour a whole day's are of one day, of more each is of some day."""
    by_day = {day: np.flatnonzero(days["day"].to_numpy() == day) for day in days["day"].unique()}
    weekdays = days.groupby("day")["weekday"].first()
    chosen, times = [], []
    for day in range(7 * WEEKS):
        known = weekdays.index[weekdays == (day + 1) % 7].to_numpy()
        drawn = rng.choice(known, (24, an_hour)) if an_hour > 1 else np.full((24, 1), rng.choice(known))
        chosen += [by_day[each][hour] for hour in range(24) for each in drawn[hour]]
        times += [MONDAY + day * 86_400 + hour * 3600 + place * 3600 // an_hour for hour in range(24) for place in range(an_hour)]
    return np.array(chosen), np.array(times, dtype=np.float64)


def _drift(season: Season, rng: np.random.Generator) -> int:
    """How often somebody is woken."""
    from modelyard.monitor.base import Evidence, Minute, Reference
    from modelyard.monitor.drift import Drift
    from modelyard.monitor.profile import Binner, measure, measure_outputs
    from modelyard.types import Digest, Schema, TensorSpec

    specs = tuple(TensorSpec(name=name, datatype="FP64", shape=(-1, 1)) for name in INPUTS)
    schema = Schema(inputs=specs, outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),), layout="frame", task="regression")
    days = season.reference
    inputs = {name: days[name].to_numpy(np.float64)[:, None] for name in INPUTS}
    answers = {"prediction": days["prediction"].to_numpy()}
    digest = Digest("sha256:" + "b" * 64)
    reference = Reference(digest, schema, measure(inputs, schema) + measure_outputs(answers, schema), {}, {})
    binner, counts = Binner(reference.profile), []
    for row in range(len(days)):
        one = slice(row, row + 1)
        binner.add({name: values[one] for name, values in inputs.items()}, {"prediction": answers["prediction"][one]})
        counts.append(binner.take())
    detector, state, was, pages = Drift(), b"", set[str](), 0
    chosen, times = stream(days, rng)
    for first in range(0, len(chosen), 24):
        fresh = [
            Minute(int(at), 1, digest, 1, 1, {}, {}, {}, counts[row])
            for at, row in zip(times[first : first + 24], chosen[first : first + 24], strict=True)
        ]
        judged = detector.judge(Evidence("bikes", reference, fresh, fresh, None, SHARE, fresh[-1].start + 60.0), state)
        state, told = judged.state, {verdict.rule for verdict in judged.verdicts if verdict.outcome == "fail"}
        was, pages = told, pages + len(told - was)
    return pages


class _Errors:
    """Absolute errors of one stream, as they are, `larger`, and of answers that were `joined` to the wrong hour."""

    def __init__(self, season: Season, rng: np.random.Generator, an_hour: int) -> None:
        from modelyard.monitor.risk import Terms

        chosen, self.times = stream(season.others, rng, an_hour=an_hour)
        self.scale = float((season.reference["prediction"] - season.reference[TRUTH]).abs().mean())
        said, true = (season.others[name].to_numpy(np.float64)[chosen] for name in ("prediction", TRUTH))
        self.plain = np.abs(said - true)
        self.larger = LARGER * self.plain
        self.joined = np.abs(np.concatenate([said[:an_hour], said[:-an_hour]]) - true)
        self.terms, self.rng, self.an_hour = Terms(rows_between=MONTH_WEEKS * _HOURS * an_hour / SHARE), rng, an_hour

    def scores(self, errors: np.ndarray) -> np.ndarray:
        found: np.ndarray = errors / (errors + self.scale)
        return found

    def paged(self, scores: np.ndarray) -> tuple[list[int], float]:
        """At which rows somebody is woken, as it ships, and for which share of the days an alarm stands when they end."""
        from modelyard.monitor import concept
        from modelyard.types import Digest

        state, rows, held = concept.State(format=concept.FORMAT, digest=Digest("sha256:" + "b" * 64)), list[int](), 0
        a_day = 24 * self.an_hour
        for first in range(0, len(scores), a_day):
            part = slice(first, first + a_day)
            state, alarms = concept.fed(state, scores[part], self.times[part], self.terms)
            rows += [first + alarm.place for alarm in alarms if alarm.kind == "rose"]
            held += state.risk.is_raised
        return rows, held * a_day / len(scores)

    def one_by_one(self, scores: np.ndarray) -> list[int]:
        """The same of the monitor of the risk alone."""
        from modelyard.monitor import risk

        return [alarm.place for alarm in risk.feed(risk.Risk(), scores, self.times[: len(scores)], terms=self.terms)[1] if alarm.kind == "rose"]

    def delays(self, day: int, change: str) -> tuple[float, float]:
        """Hours from a change on this day to the page: as it ships, and of the same errors in any order."""
        from_row, to_row = day * 24 * self.an_hour, (day + WITHIN_DAYS) * 24 * self.an_hour
        before, after = self.scores(self.plain[:from_row]), self.scores(getattr(self, change)[from_row:to_row])
        ours, _ = self.paged(np.concatenate([before, after]))
        others = self.one_by_one(np.concatenate([self.rng.permutation(before), self.rng.permutation(after)]))
        first, beside = (next((row + 1 - from_row for row in rows if row >= from_row), np.inf) for rows in (ours, others))
        return first / self.an_hour, beside / self.an_hour


def _quiet(drawn: list[_Errors], an_hour: int) -> list[Item]:
    """How often somebody is woken while nothing changes, and for how long."""
    weeks, dummy = WEEKS * len(drawn), WEEKS * len(drawn) * _HOURS * an_hour // 100
    scores = [each.scores(each.plain) for each in drawn]
    pages, held = zip(*(each.paged(given) for each, given in zip(drawn, scores, strict=True)), strict=True)
    plain = sum(len(each.one_by_one(given)) for each, given in zip(drawn, scores, strict=True))
    shuffled = sum(len(each.one_by_one(each.rng.permutation(given))) for each, given in zip(drawn, scores, strict=True))
    note = f"{an_hour} an hour; row by row {plain}, the same errors in any order {shuffled}, an alarm every 100 rows: {dummy:,}"
    share, most = sum(held) / len(held), max(held)
    stands = f"of the time, {most:.1%} on the worst of {len(drawn)} streams; {an_hour} an hour"
    return [
        _item(f"seasonal-concept-{an_hour}", sum(map(len, pages)), weeks, note),
        Item(name=f"seasonal-held-{an_hour}", figure=share, unit="", bar=HELD, better="lower", note=stands),
    ]


def _told(drawn: list[_Errors], an_hour: int, change: str, said: str) -> Item:
    """How soon a change is told, beside the same errors in any order."""
    ours, others = (np.array(each) for each in zip(*(each.delays(day, change) for each in drawn for day in CHANGES), strict=True))
    (low, middle, high), (beside_low, beside, beside_high) = (np.quantile(each, (0.1, 0.5, 0.9), method="lower") for each in (ours, others))
    note = f"{an_hour} an hour, {said}: told after {middle:.1f} hours (median of {len(ours)}; one in ten each way {low:.1f} and {high:.1f}), "
    note += f"in any order {beside:.1f} ({beside_low:.1f} and {beside_high:.1f}); not within {WITHIN_DAYS} days {np.isinf(ours).sum()}"
    return Item(name=f"seasonal-{change}-{an_hour}", figure=middle / beside, unit="x", bar=SLOWER, better="lower", note=note)


def _item(name: str, pages: int, weeks: int, note: str) -> Item:
    allowed = weeks / MONTH_WEEKS * SHARE
    told = f"{pages} in {weeks} weeks, {pages / weeks:.3f} a week, where {allowed / weeks:.3f} are allowed; {note}"
    return Item(name=name, figure=pages / allowed, unit="x", bar=1, better="lower", note=told)
