"""Labelled predictions made up for detectors, and the evidence around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.monitor.base import Evidence, Labelled, Reference
from modelyard.monitor.settings import Monitored
from modelyard.types import Digest, Schema, TensorSpec

DIGEST = Digest("sha256:" + "a" * 64)
START = 1_700_000_000.0 // 86_400 * 86_400
INPUTS = (TensorSpec(name="X", datatype="FP32", shape=(-1, 2)),)
CLASSIFIER = Schema(
    inputs=INPUTS,
    outputs=(TensorSpec(name="label", datatype="INT64", shape=(-1,)), TensorSpec(name="probability", datatype="FP32", shape=(-1, 2))),
    layout="array",
    task="classification",
    classes=(0, 1),
)
REGRESSOR = Schema(inputs=INPUTS, outputs=(TensorSpec(name="prediction", datatype="FP32", shape=(-1,)),), layout="array", task="regression")


def classified(rng: np.random.Generator, errors: Sequence[float], *, every_s: float = 60.0, start: float = START, **more: Any) -> Labelled:
    """A prediction each `every_s`, wrong with the chances that are given; probabilities lean towards the answer."""
    truth = rng.integers(0, 2, len(errors))
    predicted = np.where(rng.random(len(errors)) < np.asarray(errors), 1 - truth, truth)
    lean = rng.uniform(0.5, 1.0, len(errors))
    ones = np.where(predicted == 1, lean, 1 - lean)
    times = start + every_s * np.arange(len(errors))
    return Labelled(times, truth, predicted, np.stack([1 - ones, ones], axis=1), np.arange(1, len(errors) + 1), **more)


def measured(rng: np.random.Generator, spreads: Sequence[float], *, every_s: float = 60.0, start: float = START, **more: Any) -> Labelled:
    """A prediction each `every_s` with normal errors of the standard deviations that are given."""
    truth = rng.normal(10.0, 3.0, len(spreads))
    predicted = truth + rng.normal(0.0, 1.0, len(spreads)) * np.asarray(spreads)
    return Labelled(start + every_s * np.arange(len(spreads)), truth, predicted, np.zeros((0, 0)), np.arange(1, len(spreads) + 1), **more)


def first(labelled: Labelled, rows: int) -> Labelled:
    """The labels that had come when the first `rows` had."""
    return Labelled(*(None if each is None else each[:rows] for each in labelled[:5]), answered=labelled.answered)


def evidence(
    labelled: Labelled | None,
    *,
    schema: Schema = CLASSIFIER,
    quality: dict[str, float] | None = None,
    now: float | None = None,
    false_pages: float = 0.2,
    settings: Monitored | None = None,
) -> Evidence:
    """The evidence of a turn that comes right after the last of these predictions."""
    reference = Reference(digest=DIGEST, schema=schema, profile=None, importance={}, quality=quality or {})  # type: ignore[arg-type]  # nobody looks
    last = START if labelled is None or not len(labelled.times) else float(labelled.times[-1])
    return Evidence(
        name="m",
        reference=reference,
        fresh=(),
        recent=(),
        labelled=labelled,
        false_pages=false_pages,
        now=last + 1 if now is None else now,
        settings=settings or Monitored(),
    )
