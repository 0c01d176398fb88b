"""False pages on a stream of days and weeks, of real hours: bikes rented, by a model that was packaged without times.

Each stream is of one season: every day is drawn among that season's real days of the same weekday, so that nothing changes but what the hour, the
weekday and the weather bring, and whatever pages is false. Drift is given the rows of the reference's own days, a row an hour, and learns the first
week; concept drift the errors on days that neither model nor reference saw, a row an hour, and twenty. Each has a fifth of a budget of one false page
a month. What an alarm every 100 rows would come to stands beside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.items import Item
from benchmarks.monitor.estimate_numbers import DAY, FILE, INPUTS, TRUTH

SHARE = 0.2
"""How many false pages a month each detector is allowed."""
WEEKS, SEEDS, MANY = 26, 2, 20
MONDAY = 1_767_571_200
MONTH_WEEKS = 30.4375 / 7
_HOURS = 168


class Season(NamedTuple):
    """Real days of one season: the `reference`'s, and others."""

    reference: Any
    others: Any


def run(data: Path) -> list[Item]:
    """False pages ÷ what the budget allows, of drift and of concept drift."""
    found = seasons(data)
    drifts = sum(_drift(season, np.random.default_rng([place, seed])) for place, season in enumerate(found) for seed in range(SEEDS))
    weeks = WEEKS * SEEDS * len(found)
    items = [_item("seasonal-drift", drifts, weeks, f"a row an hour, an alarm every 100 rows: {weeks * _HOURS // 100:,}")]
    for an_hour in (1, MANY):
        pairs = [_concept(season, np.random.default_rng([place, seed]), an_hour) for place, season in enumerate(found) for seed in range(SEEDS)]
        ours, held, plain, shuffled = (sum(each) for each in zip(*pairs, strict=True))
        dummy = weeks * _HOURS * an_hour // 100
        note = f"{an_hour} an hour; an alarm stands {held / len(pairs):.0%} of the time; without levels {plain}, "
        note += f"the same errors in any order {shuffled}, an alarm every 100 rows: {dummy:,}"
        items.append(_item(f"seasonal-concept-{an_hour}", ours, weeks, note))
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


def _concept(season: Season, rng: np.random.Generator, an_hour: int) -> tuple[int, float, int, int]:
    """How often somebody is woken, as it ships, and for which share of the time that goes on: who is not told that an alarm is over is not woken by
    the next; how often if no hour were levelled, and by the same errors in any order.
    """
    from modelyard.monitor import concept, risk
    from modelyard.monitor.risk import Risk, Terms
    from modelyard.types import Digest

    scale = float((season.reference["prediction"] - season.reference[TRUTH]).abs().mean())
    chosen, times = stream(season.others, rng, an_hour=an_hour)
    errors = (season.others["prediction"] - season.others[TRUTH]).abs().to_numpy()[chosen]
    scores = errors / (errors + scale)
    terms = Terms(rows_between=MONTH_WEEKS * _HOURS * an_hour / SHARE)

    def pages(given: np.ndarray) -> int:
        return sum(alarm.kind == "rose" for alarm in risk.feed(Risk(), given, times, terms=terms)[1])

    state, ours, held = concept.State(format=concept.FORMAT, digest=Digest("sha256:" + "b" * 64)), 0, 0
    for first in range(0, len(scores), an_hour):
        state, alarms = concept.fed(state, scores[first : first + an_hour], times[first : first + an_hour], terms)
        ours, held = ours + sum(alarm.kind == "rose" for alarm in alarms), held + state.risk.is_raised
    return ours, held * an_hour / len(scores), pages(scores), pages(rng.permutation(scores))


def _item(name: str, pages: int, weeks: int, note: str) -> Item:
    allowed = weeks / MONTH_WEEKS * SHARE
    told = f"{pages} in {weeks} weeks, {pages / weeks:.3f} a week, where {allowed / weeks:.3f} are allowed; {note}"
    return Item(name=name, figure=pages / allowed, unit="x", bar=1, better="lower", note=told)
