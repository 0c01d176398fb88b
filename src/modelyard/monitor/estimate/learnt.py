"""What is learnt of a model at packaging beside its answers: how much each input counts, how well it does, and where it does worse.

Hides the form in which a bundle carries it (a member of the attestation, since figures of answers carry one machine's float noise). It keeps no row,
and no value of a tagged column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from modelyard.errors import MalformedPayload
from modelyard.monitor.estimate import coding, estimator
from modelyard.monitor.estimate.estimator import Estimator, Known
from modelyard.monitor.multivariate import Together

if TYPE_CHECKING:
    from modelyard.monitor.profile import FeatureProfile, Profile
    from modelyard.types import Array, Schema


class Rows(NamedTuple):
    """Rows by which a model is judged: named arrays as they went in and came out, and the labels as the user has them, if any."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    labels: Array | None


class Cells(msgspec.Struct, frozen=True, kw_only=True):
    """One feature's cells in the order of its profile's counts, missing last (of a tagged one: present, missing): rows, and the sum of losses."""

    rows: tuple[int, ...]
    losses: tuple[float, ...]


class Learnt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`importance` as in `base.Reference`. The rest is of `rows` rows with labels, `is_held_out` where they were given as data that the model was not
    trained on: `quality`, each input's and output's `cells`, and the estimator where one could be learnt. `together` is how the inputs go together,
    `cycles` what the rows' times taught of an ordinary week, by stream (`monitor.cycles`; empty: they had none).
    """

    importance: dict[str, float] = {}
    rows: int = 0
    is_held_out: bool = False
    quality: dict[str, float] = {}
    inputs: dict[str, Cells] = {}
    outputs: dict[str, Cells] = {}
    estimator: Estimator | None = None
    together: Together | None = None
    cycles: dict[str, tuple[float, ...]] = {}

    @property
    def loss(self) -> float:
        """The mean loss of the labelled rows: the share of wrong answers, or the mean absolute error. NaN without any."""
        if "accuracy" in self.quality:
            return 1.0 - self.quality["accuracy"]
        return self.quality.get("mae", math.nan)


def learn(
    schema: Schema,
    profile: Profile,
    importance: Mapping[str, float],
    rows: Rows,
    *,
    is_held_out: bool,
) -> Learnt:
    """From rows that the model has answered. `profile` is that of the reference, inputs before outputs.

    Rows whose label is missing, or no class of the model, are passed over.
    """
    shares = {name: float(f"{share:.6g}") for name, share in importance.items()}
    inputs, outputs, labels = rows
    said = estimator.answers(schema, outputs)
    if labels is None or not said:
        return Learnt(importance=shares)
    truth = estimator.truths(schema, labels)
    if truth.shape != next(iter(said.values())).shape:
        return Learnt(importance=shares)
    lost = estimator.losses(schema, said, truth)
    known = np.isfinite(lost)
    quality = {name: float(f"{each.value:.6g}") for name, each in estimator.realised(schema, said, truth).items()}
    return Learnt(
        importance=shares,
        rows=int(known.sum()),
        is_held_out=is_held_out,
        quality=quality,
        inputs={each.name: _cells(each, inputs[each.source], lost) for each in profile.features if each.role == "input"} if quality else {},
        outputs={each.name: _cells(each, outputs[each.source], lost) for each in profile.features if each.role == "output"} if quality else {},
        estimator=estimator.fit(schema, profile.features, Known(inputs, said, truth), shares),
    )


def encode(learnt: Learnt) -> bytes:
    """Canonical JSON."""
    return msgspec.json.encode(learnt, order="sorted")


def decode(data: bytes) -> Learnt:
    """`decode(encode(x)) == x`. Raises MalformedPayload."""
    try:
        learnt = msgspec.json.decode(data, type=Learnt)
    except msgspec.MsgspecError as error:
        raise MalformedPayload("what was learnt of the model is not in a form of this release") from error
    for name, cells in (*learnt.inputs.items(), *learnt.outputs.items()):
        if len(cells.rows) != len(cells.losses) or min(cells.rows, default=0) < 0:
            raise MalformedPayload(f"the cells of {name!r} do not fit together")
    if learnt.estimator is not None:
        learnt.estimator.check()
    return learnt


def _cells(feature: FeatureProfile, values: Array, lost: Array) -> Cells:
    known = np.isfinite(lost)
    each = coding.element(values, feature.element, len(values))[known]
    cell, count = _places(feature, each)
    rows = np.bincount(cell, minlength=count)
    sums = np.bincount(cell, lost[known], count)
    return Cells(rows=tuple(rows.tolist()), losses=tuple(float(f"{value:.6g}") for value in sums.tolist()))


def _places(feature: FeatureProfile, values: Array) -> tuple[Array, int]:
    """Of each value its cell in the order of the profile's counts, missing last, and how many cells there are."""
    if feature.kind == "missing":
        return coding.looked_up(values, _is_missing), 2
    if feature.kind == "number":
        numbers = coding.numbers(values)
        count = len(feature.edges) + 1
        return np.where(np.isnan(numbers), count, np.searchsorted(np.asarray(feature.edges), numbers, side="right")), count + 1
    count = len(feature.categories) + 1
    known = {category: place for place, category in enumerate(feature.categories)}
    return coding.looked_up(values, lambda value: count if _is_missing(value) else known.get(value, count - 1)), count + 1


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
