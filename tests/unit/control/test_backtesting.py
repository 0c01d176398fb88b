"""Backtests of real bundles: rows of a file's form, and rows that the home has logged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from watching import deployed

from modelyard import config, events
from modelyard.control import backtesting, monitoring
from modelyard.control.plane import ControlPlane
from modelyard.errors import InvalidInput, NotFound, SchemaMismatch
from modelyard.events import Rows as Kept
from modelyard.monitor.backtest import Settings
from modelyard.monitor.injections import Rows
from modelyard.monitor.intake import log_path
from modelyard.monitor.labels import Ledger, labels_path
from modelyard.monitor.log import PredictionLog
from modelyard.monitor.settings import Monitored, Quality
from modelyard.monitor.windows import Staged
from modelyard.types import Digest
from serving import Home, golden

QUICK = Settings(quiet_rows=600, horizon_rows=400, runs=1, features=1)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    home = Home(tmp_path / "home")
    home.add("line")
    home.add("grid")
    with ControlPlane(config.load({"home": tmp_path / "home"})) as plane:
        deployed(plane, "line:1", name="shop")
        yield plane


def rows(count: int, kind: str = "line") -> dict[str, np.ndarray]:
    picked = np.random.default_rng(4).integers(0, 64, count)
    return {name: values[picked] for name, values in golden(kind).items()}


def log(plane: ControlPlane, digest: Digest, inputs: dict[str, np.ndarray], *, name: str = "shop") -> list[str]:
    """Write rows to the home's log, as the intake does; their ids."""
    count = len(inputs["a"])
    ids = tuple(f"p{place}" for place in range(count))
    times = (1_700_000_000.0 + np.arange(count)).astype("<f8").tobytes()
    kinds = {"inputs": {each: values.reshape(count) for each, values in inputs.items()}, "predictions": {"prediction": np.arange(count, dtype=float)}}
    for place, (kind, columns) in enumerate(kinds.items()):
        piece = Kept(share=1.0, ids=ids, times=times, columns=tuple(events.column(each, values) for each, values in columns.items()))
        group = Staged(
            kind=kind, name=name, day="2023-11-14", version=1, digest=digest, form="", first=place, last=place, pieces=(piece,), origin="o"
        )
        PredictionLog(log_path(plane.settings)).write(group)
    return list(ids)


def test_a_name_is_a_deployment_before_it_is_a_model(plane: ControlPlane) -> None:
    quiet = Monitored(quality=Quality(enabled=False))
    monitoring.choose(plane.registry.records, "shop", quiet, by="test", at="now", expected=None)
    model, monitored = backtesting.opened(plane, "shop")
    assert model.name == "line" and monitored == quiet
    model, monitored = backtesting.opened(plane, "grid:1")
    assert model.name == "grid" and monitored == Monitored()
    with pytest.raises(NotFound):
        backtesting.opened(plane, "nothing")


def test_rows_pass_the_model_and_its_detectors(plane: ControlPlane) -> None:
    model, monitored = backtesting.opened(plane, "shop")
    report = backtesting.replay(plane, model, Rows(rows(600), np.zeros(600)), monitored=monitored, settings=QUICK)
    assert report.rows == report.labels == 600
    assert {each.kind for each in report.smallest} >= {"mean", "unit", "labels", "prior"}
    assert next(each for each in report.smallest if each.kind == "unit").reported == 10.0


def test_a_detector_that_is_switched_off_says_nothing(plane: ControlPlane) -> None:
    model, _ = backtesting.opened(plane, "shop")
    off = msgspec.convert({name: {"enabled": False} for name in backtesting.watch.DETECTORS}, Monitored)
    report = backtesting.replay(plane, model, Rows(rows(300), None), monitored=off, settings=QUICK)
    assert not any(each.reported for each in report.seen)


def test_rows_that_a_request_could_not_bring_are_refused(plane: ControlPlane) -> None:
    model, monitored = backtesting.opened(plane, "shop")
    with pytest.raises(SchemaMismatch):
        backtesting.replay(plane, model, Rows({"a": np.ones((300, 1))}, None), monitored=monitored)
    grid, _ = backtesting.opened(plane, "grid:1")
    with pytest.raises(InvalidInput, match="classes: 0, 1"):
        backtesting.replay(plane, grid, Rows(rows(300, "grid"), np.full(300, "maybe", dtype=object)), monitored=monitored)
    with pytest.raises(InvalidInput, match="one number a row"):
        backtesting.replay(plane, model, Rows(rows(300), np.full(300, "much", dtype=object)), monitored=monitored)


def test_logged_rows_come_with_their_labels(plane: ControlPlane) -> None:
    model, monitored = backtesting.opened(plane, "shop")
    inputs = rows(300)
    ids = log(plane, model.digest, inputs)
    found = backtesting.logged(plane, "shop", model)
    assert found.labels is None and found.size == 300
    assert all(np.array_equal(found.inputs[name], values.astype(float), equal_nan=True) for name, values in inputs.items())
    ledger = Ledger(labels_path(plane.settings))
    ledger.give("shop", [(key, float(place)) for place, key in enumerate(ids[:100])], at=0.0)
    assert backtesting.logged(plane, "shop", model).labels is None, "most have none"
    ledger.give("shop", [(key, float(place)) for place, key in enumerate(ids[:250])], at=0.0)
    ledger.close()
    found = backtesting.logged(plane, "shop", model)
    assert found.labels is not None and found.labels.tolist() == list(range(250))
    assert backtesting.replay(plane, model, found, monitored=monitored, settings=QUICK).labels == 250


def test_what_the_log_does_not_keep_is_said(plane: ControlPlane) -> None:
    model, _ = backtesting.opened(plane, "shop")
    with pytest.raises(InvalidInput, match="nothing that shop was asked"):
        backtesting.logged(plane, "shop", model)
    inputs = rows(10)
    log(plane, model.digest, {"a": inputs["a"], "b": inputs["b"]})
    with pytest.raises(InvalidInput, match="does not keep c"):
        backtesting.logged(plane, "shop", model)
