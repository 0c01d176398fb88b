"""Models with known truths for tests of estimated performance: rows, answers and labels, drawn where the test wants them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from modelyard.monitor import estimate, profile
from modelyard.monitor.estimate import Learnt
from modelyard.monitor.profile import Profile
from modelyard.types import Schema, TensorSpec

INPUTS = (
    TensorSpec(name="age", datatype="FP64", shape=(-1, 1)),
    TensorSpec(name="city", datatype="BYTES", shape=(-1, 1), categories=("Oslo", "Riga", "Turku")),
    TensorSpec(name="shoe", datatype="FP64", shape=(-1, 1)),
)
LABEL = TensorSpec(name="label", datatype="BYTES", shape=(-1,))
TWO = Schema(
    inputs=INPUTS,
    outputs=(LABEL, TensorSpec(name="probability", datatype="FP64", shape=(-1, 2))),
    layout="frame",
    task="classification",
    classes=("no", "yes"),
)
THREE = Schema(
    inputs=INPUTS,
    outputs=(LABEL, TensorSpec(name="probability", datatype="FP64", shape=(-1, 3))),
    layout="frame",
    task="classification",
    classes=("a", "b", "c"),
)
NUMBER = Schema(inputs=INPUTS, outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),), layout="frame", task="regression")
IMPORTANCE = {"age": 0.7, "city": 0.3, "shoe": 0.0}


class Rows(NamedTuple):
    """What went in, what came out, and what was true."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    truth: Any


def rows(schema: Schema, count: int, *, seed: int = 0, ages: tuple[float, float] = (18, 90), shoes: float = 42.0, cities: Any = None) -> Rows:
    """Rows of a model that is overconfident (or errs twice as far) of those above 60, and does not look at shoes."""
    draw = np.random.default_rng(seed)
    age = draw.uniform(*ages, count)
    city = draw.choice(np.array(["Oslo", "Riga", "Turku"], dtype=object), count, p=cities)
    inputs = {"age": age[:, None], "city": city[:, None], "shoe": draw.normal(shoes, 2, count)[:, None]}
    if schema.task == "regression":
        prediction = age / 10 + (city == "Riga")
        truth = prediction + draw.normal(0, np.where(age > 60, 2.0, 1.0))
        return Rows(inputs, {"prediction": prediction}, truth)
    size = len(schema.classes or ())
    raw = draw.normal(0, 2, (count, size))
    raw[:, 0] += (city == "Riga") * 1.0
    probability = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    flatter = np.where((age > 60)[:, None], 0.3 * raw, raw)
    true = np.exp(flatter) / np.exp(flatter).sum(axis=1, keepdims=True)
    place = (draw.random(count)[:, None] > true.cumsum(axis=1)).sum(axis=1).clip(0, size - 1)
    classes = np.array(schema.classes, dtype=object)
    return Rows(inputs, {"label": classes[probability.argmax(axis=1)], "probability": probability}, classes[place])


def bins(schema: Schema, given: Rows) -> Profile:
    """The profile of such rows."""
    return profile.measure(given.inputs, schema) + profile.measure_outputs(given.outputs, schema)


def learnt(schema: Schema, given: Rows, *, is_held_out: bool = True) -> Learnt:
    """What they teach."""
    return estimate.learn(schema, bins(schema, given), IMPORTANCE, estimate.Rows(*given), is_held_out=is_held_out)


def live(schema: Schema, reference: Rows, given: Rows) -> Profile:
    """The profile of `given` in the bins of `reference`."""
    known = bins(schema, reference)
    return profile.filled(known, counts(known, given))


def counts(known: Profile, given: Rows) -> Any:
    """`given` counted in known bins."""
    binner = profile.Binner(known)
    binner.add(given.inputs, given.outputs)
    return binner.take()
