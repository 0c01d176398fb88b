"""A backtest of one model: its bundle opened, its detectors as they are set, and rows of a file or of what the home has logged.

Hides where past rows and their labels lie, and that the log keeps some columns redacted. It must not judge: `monitor.backtest` does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from modelyard import registry, runtime
from modelyard.control import monitoring
from modelyard.errors import InvalidInput, NotFound
from modelyard.monitor import watch
from modelyard.monitor.backtest import Progress, Report, Settings, World, backtest
from modelyard.monitor.injections import Rows
from modelyard.monitor.intake import log_path
from modelyard.monitor.labels import Ledger, labels_path
from modelyard.monitor.log import PredictionLog
from modelyard.monitor.logged import Follower
from modelyard.monitor.sampled import places
from modelyard.monitor.settings import Monitored
from modelyard.runtime.isolated import Isolation
from modelyard.runtime.schema import conform
from modelyard.runtime.validate import check

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.control.plane import ControlPlane
    from modelyard.types import Array, Schema


def opened(plane: ControlPlane, named: str) -> tuple[Bundle, Monitored]:
    """The bundle that is meant by a deployment's name or a reference, and how it is watched. Raises NotFound or Tampered."""
    found = None if registry.is_file(named) else _deployment(plane, named)
    if found is None:
        return plane.open(named)[0], Monitored()
    return found, monitoring.chosen(plane.registry.records, named).settings


def replay(
    plane: ControlPlane, model: Bundle, rows: Rows, *, monitored: Monitored, settings: Settings | None = None, progress: Progress | None = None
) -> Report:
    """Backtest `model` on `rows`, in the form of requests. Raises SchemaMismatch for rows that it would refuse, InvalidInput or ModelFailed."""
    fitting = Rows(conform(model.schema, rows.inputs), rows.labels)
    check(model.schema, fitting.inputs)
    detectors = [detector for rule, detector in watch.load().items() if monitored.section(rule).enabled]
    with contextlib.closing(runtime.open(model, isolation=Isolation.of(plane.settings))) as answering:
        world = World(monitoring.reference(model), answering.predict, detectors, monitored)
        return backtest(world, _told(fitting, model.schema), settings=settings, progress=progress)


def logged(plane: ControlPlane, name: str, model: Bundle) -> Rows:
    """The rows of the home's log that a version answered as the deployment `name`, with the labels that have come, where most have.

    Raises InvalidInput where there are none, or the log does not keep them as the model takes them.
    """
    redacted = [spec.name for spec in model.schema.inputs if spec.tag is not None]
    if redacted:
        raise InvalidInput(
            f"the log keeps {', '.join(redacted)} redacted, so that nothing can be asked again; give --data FILE", field="data", rule="tag"
        )
    follower = Follower(PredictionLog(log_path(plane.settings)), name, model.digest, model.schema)
    found = follower.look(since=0.0, until=time.time())
    if found is None:
        raise InvalidInput(f"nothing that {name} was asked is in the log of this home; give --data FILE", field="data", rule="rows")
    ids, rows = found
    inputs = dict(_columns(model.schema, rows.inputs))
    truths = _truths(plane, name, ids, model.schema)
    if truths is None:
        return Rows(inputs, None)
    known = np.flatnonzero(np.isfinite(truths) & (truths >= 0) if model.schema.classes is not None else np.isfinite(truths))
    whole = Rows(inputs, _as_labels(truths, model.schema))
    return whole.take(known) if len(known) * 2 >= len(ids) else Rows(inputs, None)


def _deployment(plane: ControlPlane, name: str) -> Bundle | None:
    try:
        release = plane.deployments.get(name).deployment.current
    except NotFound:
        return None
    return None if release is None else plane.opened(release)


def _columns(schema: Schema, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    for spec in schema.inputs:
        if spec.name not in inputs:
            raise InvalidInput(f"the log does not keep {spec.name}; give --data FILE", field=spec.name, rule="required")
        values = inputs[spec.name]
        shaped = values.reshape(len(values), *(size if size > 0 else -1 for size in spec.shape[1:]))
        yield spec.name, shaped.astype(np.bool_) if spec.datatype == "BOOL" and not spec.is_nullable else shaped


def _truths(plane: ControlPlane, name: str, ids: list[str], schema: Schema) -> Array | None:
    """The label of each id: of classes the place (-1: none), of numbers the number (NaN: none); None where no label was ever given."""
    if not labels_path(plane.settings).exists():
        return None
    with contextlib.closing(Ledger(labels_path(plane.settings))) as ledger:
        texts = ledger.labels(name)
    given = np.array([texts.get(key) for key in ids], dtype=object)
    if schema.classes is not None:
        return places(given, schema.classes).astype(np.float64)
    return np.array([_number(each) for each in given.tolist()])


def _as_labels(truths: Array, schema: Schema) -> Array:
    if schema.classes is None:
        return truths
    named = np.empty(len(truths), dtype=object)
    named[:] = [schema.classes[int(place)] if place >= 0 else None for place in truths]
    return named


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else np.nan
    except ValueError:
        return np.nan


def _told(rows: Rows, schema: Schema) -> Rows:
    """Labels as the schema has them. Raises InvalidInput for labels that are no class, or no number, at all."""
    if rows.labels is None or schema.task == "other":
        return Rows(rows.inputs, None)
    if schema.classes is not None:
        if (places(rows.labels, schema.classes) < 0).all():
            raise InvalidInput(f"no label is one of the model's classes: {', '.join(map(str, schema.classes[:12]))}", field="label", rule="class")
        return rows
    try:
        return Rows(rows.inputs, rows.labels.astype(np.float64).reshape(rows.size))
    except (ValueError, TypeError) as error:
        raise InvalidInput("the labels of a regression are one number a row", field="label", rule="type") from error
