"""A month that is watched: nobody is woken by rows like the reference's, somebody soon by a model that fails for all to see."""

from __future__ import annotations

import numpy as np
from benchmarks.monitor import month
from minutes import DIGEST
from pytest import MonkeyPatch

from modelyard.monitor.base import Reference
from modelyard.monitor.profile import measure, measure_outputs
from modelyard.types import Schema, TensorSpec


def rows(rng: np.random.Generator, count: int) -> month.Rows:
    inputs = {"temp": rng.normal(size=count).astype(np.float32)}
    predicted = 10.0 + inputs["temp"].astype(np.float64)
    times = 1_767_571_200.0 + month.HOUR_S * np.arange(count) / 10
    return month.Rows(times, inputs, predicted, predicted + rng.normal(size=count))


def reference() -> Reference:
    known = rows(np.random.default_rng(1), 4000)
    specs = (TensorSpec(name="temp", datatype="FP32", shape=(-1, 1)),)
    schema = Schema(inputs=specs, outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),), layout="frame", task="regression")
    bins = measure({"temp": known.inputs["temp"][:, None]}, schema) + measure_outputs({"prediction": known.predicted}, schema)
    error = np.abs(known.truth - known.predicted)
    return Reference(DIGEST, schema, bins, {}, {"mae": float(error.mean()), "rmse": float((error**2).mean()) ** 0.5})


def test_who_is_woken_and_by_what(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(month, "MONTH_DAYS", 14)
    monkeypatch.setattr(month, "CHANGED_DAY", 9)
    made = rows(np.random.default_rng(3), 14 * 240)
    quiet = month.watched(reference(), made)
    assert quiet.pages == () and quiet.stood == 0
    worse = month.watched(reference(), month.worse(made))
    assert worse.changed < worse.pages[0][0] and worse.pages[0][1][0].split(":")[0] in ("concept", "performance")
    assert 0 < worse.stood < 0.5
    items = month.items_of(1, [quiet], {"worse": [worse]})
    assert [each.passed for each in items] == [True, True]
