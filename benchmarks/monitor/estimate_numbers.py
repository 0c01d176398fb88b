"""A regression's errors without labels beside the truth that came later: bikes rented in an hour, sorted by the hour of the day and by temperature,
and in the order of time.

A forest is trained on a third of the days, its estimator (DLE, as it ships) learnt from another, and judged on the rest; a dummy that always says
the reference's figure stands beside it. Sorted rows move the inputs alone. In the order of time the later days answer otherwise too (the system
grew), which no estimate without labels can see: that item says how far off it then is, and its bar is the dummy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.items import Item

FILE, TRUTH, DAY = "bike_sharing_hour.csv", "cnt", "dteday"
INPUTS = ("season", "hr", "holiday", "weekday", "workingday", "weathersit", "temp", "hum", "windspeed")
CHUNK = 500
SORTED = ("hr", "temp")
AT_MOST = 0.5
"""Of the dummy's error."""
COVERED = 0.88


def run(data: Path) -> list[Item]:
    """Mean error of the estimated MAE and RMSE as a share of the dummy's, and what share of the truths lie in their 95 % interval."""
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    rows = pd.read_csv(data / FILE)
    days = rows[DAY].factorize()[0]
    draw = np.random.default_rng(0).permutation(days.max() + 1) % 3
    third = draw[days]  # whole days: hours of one are neighbours
    items: list[Item] = []
    held: list[bool] = []
    found = _judged(rows, third, RandomForestRegressor(100, min_samples_leaf=3, random_state=0, n_jobs=1))
    for order in SORTED:
        items += _items(order, found, np.argsort(found.live[order], kind="stable"), AT_MOST, held)
    note = f"{sum(held)} of {len(held)} truths of both figures, in both sorted orders"
    items.append(Item(name="estimate-bikes-covered", figure=float(np.mean(held)), unit="", bar=COVERED, better="higher", note=note))
    early = days < days.max() / 2
    parts = np.where(early, draw[days] % 2, 2)  # of the first year: to train on, to learn from
    found = _judged(rows, parts, RandomForestRegressor(100, min_samples_leaf=3, random_state=0, n_jobs=1))
    return [*items, *_items("time", found, np.arange(len(found.truth)), 1.0, [])]


class _Judged:
    """Live rows with their answers and truths, and what the reference taught."""

    def __init__(self, live: dict[str, Any], answers: Any, truth: Any, learnt: Any, schema: Any) -> None:
        self.live, self.answers, self.truth, self.learnt, self.schema = live, answers, truth, learnt, schema


def _judged(rows: Any, part: Any, model: Any) -> _Judged:
    """A model trained on the rows of part 0, its estimator learnt from those of 1, answers for those of 2."""
    from modelyard.monitor import estimate
    from modelyard.monitor.profile import measure, measure_outputs
    from modelyard.types import Schema, TensorSpec

    tables = [rows[part == each] for each in range(3)]
    model.fit(tables[0][list(INPUTS)].to_numpy(), tables[0][TRUTH].to_numpy())
    specs = tuple(TensorSpec(name=name, datatype="FP64", shape=(-1, 1)) for name in INPUTS)
    outputs = (TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),)
    schema = Schema(inputs=specs, outputs=outputs, layout="frame", task="regression")
    inputs = [{name: table[name].to_numpy(np.float64)[:, None] for name in INPUTS} for table in tables]
    answers = [{"prediction": model.predict(table[list(INPUTS)].to_numpy())} for table in tables]
    truth = [table[TRUTH].to_numpy(np.float64) for table in tables]
    bins = measure(inputs[1], schema) + measure_outputs(answers[1], schema)
    learnt = estimate.learn(schema, bins, {}, estimate.Rows(inputs[1], answers[1], truth[1]), is_held_out=True)
    live = {name: values.ravel() for name, values in inputs[2].items()}
    return _Judged(live, answers[2]["prediction"], truth[2], learnt, schema)


def _items(order: str, found: _Judged, rows: Any, bar: float, all_held: list[bool]) -> list[Item]:
    """Both figures of one order; whether each truth lies in its interval is added to `all_held`."""
    from modelyard.monitor import estimate

    errors: dict[str, list[tuple[float, float]]] = {"mae": [], "rmse": []}
    held: dict[str, list[bool]] = {"mae": [], "rmse": []}
    refused = 0
    for at in range(0, len(rows) - CHUNK // 2, CHUNK):
        chunk = rows[at : at + CHUNK]
        inputs = {name: values[chunk][:, None] for name, values in found.live.items()}
        told = estimate.estimate(found.learnt.estimator, found.schema, inputs, {"prediction": found.answers[chunk]})
        lost = np.abs(found.answers[chunk] - found.truth[chunk])
        true = {"mae": float(lost.mean()), "rmse": float((lost**2).mean()) ** 0.5}
        refused += bool(told.why)
        for name, value in true.items():
            usual = found.learnt.quality[name]
            figure = told.figures.get(name)
            errors[name].append((abs((usual if figure is None else figure.value) - value), abs(usual - value)))
            if figure is not None:
                held[name].append(figure.low <= value <= figure.high)
    items = []
    for name, each in errors.items():
        ours, dummy = np.mean(each, axis=0)
        share = float(np.mean(held[name])) if held[name] else 0.0
        note = f"{len(each)} chunks of {CHUNK}, {refused} refused; off by {ours:.3g} bikes an hour, always the reference's {dummy:.3g}"
        note += f" (it is {found.learnt.quality[name]:.3g}); {share:.0%} of the truths lie in their 95 % intervals"
        items.append(Item(name=f"estimate-{name}-bikes-by-{order}", figure=float(ours / dummy), unit="x", bar=bar, better="lower", note=note))
        all_held += held[name]
    return items
