"""How well a model does on rows whose truth has not come: expected figures from what the reference's labels taught, or a refusal that says why.

Hides the estimate. Of two classes (CBPE, Lipton et al. by NannyML's name): the score's isotonic curve says how often it comes true, and boosted
trees over the inputs correct that where the curve is wrong for some rows and right for others. Of more classes, or without probabilities: the chance
that an answer is right, likewise; a curve for each class shares out the rest. Of numbers (DLE): the error's size and square. Live rows that lie
where the reference has none are counted; with too many of them, or too little of the reference behind the rest, nothing is estimated. It cannot see
that the truth itself changed its ways: only labels can. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np

from modelyard.errors import MalformedPayload
from modelyard.monitor import labels
from modelyard.monitor.estimate import calibration, coding, figures, support, trees
from modelyard.monitor.estimate.calibration import Curve
from modelyard.monitor.estimate.coding import Column
from modelyard.monitor.estimate.figures import Expected
from modelyard.monitor.estimate.support import Support
from modelyard.monitor.estimate.trees import Trees

if TYPE_CHECKING:
    from modelyard.monitor.profile import FeatureProfile
    from modelyard.types import Array, Scalar, Schema

FIT_ROWS = 100_000
CLASSES = 50
"""Of more classes there are no figures of each: a thousand classes of fifty thousand rows would take five gigabytes and a minute."""
LEAST_ROWS = 200
COLUMNS = 64
"""The most inputs that an estimator looks at: those that count most."""
LEAST_LIVE = 30
UNKNOWN_SHARE = 0.1
"""Live rows that lie where the reference has none: above this share nothing is estimated."""
EFFECTIVE_ROWS = 50.0
"""Rows of the reference that must be left, as if drawn like the live ones."""
KNOWN_ROWS = 600.0
"""No group of rows is held to be better known than so many rows of it would tell, however many the reference had: the truth does not stand still. A
chance of one half may then be off by two points (one standard error)."""
NEVER = 1e-6
REACH = 1.96
"""Standard deviations of a 95 % interval."""


class Estimator(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the reference's labels taught. `curve` and `trees` give a chance (kind `binary`: of the second class; `right`: of being right) or, of kind
    `error`, `trees` the error's size and `squares` its square, in units of `scale`. To what trees say comes the level of the row's code of the last
    column, which is the model's answer. `curves`, one for each of three classes up to `CLASSES`, say how often each class's probability comes true.
    """

    kind: Literal["binary", "right", "error"]
    columns: tuple[Column, ...]
    trees: Trees
    levels: tuple[float, ...]
    support: Support
    curve: Curve | None = None
    curves: tuple[Curve, ...] = ()
    squares: Trees | None = None
    square_levels: tuple[float, ...] = ()
    scale: float = 1.0
    kurtosis: float = 3.0

    def check(self) -> None:
        """Raises MalformedPayload where its parts do not fit together."""
        for each in (self.trees, self.squares, self.support):
            if each is not None and (each.columns or isinstance(each, Trees)):
                each.check(len(self.columns))
        sizes = [len(self.levels), *([len(self.square_levels)] if self.squares is not None else [])]
        needs = self.curve is None if self.kind == "error" else self.squares is None
        needs = needs and (not self.curves or self.kind == "right")
        if not self.columns or any(size != self.columns[-1].size for size in sizes) or not needs:
            raise MalformedPayload("the parts of an estimator do not fit together")


_EVEN = Curve(scores=(0.0,), shares=(0.5,))


class Known(NamedTuple):
    """Rows whose truth is known: as they went in, what was `said` (see `answers`), and what was true (see `truths`)."""

    inputs: Mapping[str, Array]
    said: Mapping[str, Array]
    truth: Array


class Figure(NamedTuple):
    """An estimate: with 95 % certainty the figure on these very rows, once their truth is known, lies from `low` to `high`, if the truth keeps its
    ways.

    `deviation` is the standard error of the figure on any rows drawn like these.
    """

    value: float
    low: float
    high: float
    deviation: float


class Estimated(NamedTuple):
    """The figures on so many `rows`; none, and `why`, where it was refused. `effective` and `unknown` as in `support.Rests`."""

    rows: int
    figures: Mapping[str, Figure]
    effective: float
    unknown: float
    why: str = ""


def answers(schema: Schema, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """What the model said, row by row: `score` (of the second of two classes; of more that of the label; a number), `label` (its place, -1: none),
    of three classes up to `CLASSES` `probability` [rows, classes].

    Empty where the model is neither classifier nor regressor of one number.
    """
    if schema.task == "classification" and "label" in outputs and schema.classes:
        said = places(outputs["label"], schema.classes)
        found: dict[str, Array] = {"label": said}
        if "probability" in outputs and len(said):
            probability = coding.numbers(outputs["probability"].reshape(-1)).reshape(len(said), -1)
            if probability.shape[1] == len(schema.classes):
                if 2 < len(schema.classes) <= CLASSES:
                    found["probability"] = probability
                found["score"] = probability[:, 1] if len(schema.classes) == 2 else probability[np.arange(len(said)), np.maximum(said, 0)]
        return found
    if schema.task == "regression" and "prediction" in outputs:
        predicted = outputs["prediction"]
        return {"score": coding.numbers(predicted.reshape(-1))} if predicted.size == len(predicted) else {}
    return {}


def truths(schema: Schema, given: Array) -> Array:
    """Labels as places of classes (-1: none of them) or numbers (NaN: none)."""
    if schema.task == "classification":
        return places(given, schema.classes or ())
    if given.dtype != object:
        return given.astype(np.float64).reshape(-1)
    return np.array([_number(value) for value in given.tolist()], dtype=np.float64)


def places(values: Array, classes: Sequence[Scalar]) -> Array:
    """The place of each value among `classes`, as labels are compared; -1 for none of them."""
    known = {labels.text(each): place for place, each in enumerate(classes)}

    def place(value: Any) -> int:
        is_missing = value is None or (isinstance(value, float) and not math.isfinite(value))
        return -1 if is_missing else known.get(labels.text(value), -1)

    return coding.looked_up(values.reshape(-1), place)


def losses(schema: Schema, said: Mapping[str, Array], truth: Array) -> Array:
    """Of each row 1 for a wrong answer and 0 for a right one, or the size of the error; NaN without a truth or an answer."""
    if schema.task == "classification":
        lost: Array = (said["label"] != truth).astype(np.float64)
        lost[(truth < 0) | (said["label"] < 0)] = np.nan
        return lost
    found: Array = np.abs(said["score"] - truth)
    return found


def realised(schema: Schema, said: Mapping[str, Array], truth: Array) -> dict[str, Expected]:
    """The figures themselves, on rows whose truth has come; empty without any."""
    known = np.isfinite(losses(schema, said, truth))
    if not known.any():
        return {}
    true = truth[known]
    if schema.task != "classification":
        absolute = np.abs(said["score"][known] - true)
        return dict(figures.errors(absolute, absolute**2, 3.0))
    label = said["label"][known]
    if len(schema.classes or ()) == 2 and "score" in said:
        return dict(figures.binary((true == 1).astype(np.float64), label == 1, said["score"][known]))
    found = dict(figures.correct((label == true).astype(np.float64)))
    if "probability" in said:
        known_scores = said["probability"][known]
        found |= figures.macro((true[:, None] == np.arange(known_scores.shape[1])).astype(np.float64), label, known_scores)
    return found


def fit(schema: Schema, features: Sequence[FeatureProfile], given: Known, importance: Mapping[str, float]) -> Estimator | None:
    """Learn from rows whose truth is known; None where there are fewer than `LEAST_ROWS`, or every answer is right (or wrong) alike.

    `features` are those of the profile of inputs, `importance` as in `base.Reference`: what does not count is not looked at.
    """
    inputs, said, truth = given
    if not said:
        return None
    lost = losses(schema, said, truth)
    scores = said.get("probability", said.get("score", np.zeros(len(lost))))
    known = np.flatnonzero(np.isfinite(lost) & np.isfinite(scores).reshape(len(lost), -1).all(axis=1))
    if len(known) < LEAST_ROWS:
        return None
    known = known[np.arange(min(len(known), FIT_ROWS)) * len(known) // min(len(known), FIT_ROWS)]
    inputs = {name: array[known] for name, array in inputs.items()}
    said = {name: array[known] for name, array in said.items()}
    truth, lost = truth[known], lost[known]
    if schema.task != "classification":
        return _of_numbers(features, inputs, said, lost, importance)
    is_binary = len(schema.classes or ()) == 2 and "score" in said
    target = (truth == 1 if is_binary else lost == 0).astype(np.float64)
    if target.min() == target.max():
        return None
    curve = calibration.fit(said["score"], target) if "score" in said else None
    margin = _logit(curve(said["score"]) if curve else np.full(len(target), target.mean()))
    columns = _columns(features, inputs, said, importance, target - trees.sigmoid(margin), has_label=not is_binary)
    codes, sizes = _codes(columns, inputs, said, len(target))
    if curve is None:
        curve = Curve(scores=(0.0,), shares=(float(f"{target.mean():.6g}"),))
    grown = trees.fit(trees.Rows(codes, sizes, margin, target), trees.LOGISTIC)
    return Estimator(
        kind="binary" if is_binary else "right",
        columns=columns,
        curve=curve,
        trees=grown,
        curves=tuple(calibration.fit(said["probability"][:, place], truth == place) for place in range(len(schema.classes or ())))
        if "probability" in said
        else (),
        levels=_levels(codes[-1], sizes[-1], margin + grown(codes), target, needs=bool(grown.columns) or "score" not in said),
        support=support.count(codes, sizes),
    )


def chances(estimator: Estimator, codes: Array, said: Mapping[str, Array]) -> Array:
    """Of each row the chance that an estimator of kind `binary` or `right` gives it."""
    curve = estimator.curve or _EVEN
    score = said.get("score", np.zeros(codes.shape[1]))
    margin = _logit(curve(score)) + estimator.trees(codes) + np.asarray(estimator.levels)[codes[-1]]
    return np.clip(trees.sigmoid(margin), NEVER, 1 - NEVER)


def chances_of_each(estimator: Estimator, right: Array, said: Mapping[str, Array]) -> Array:
    """Of each row the chance of each class [rows, classes]: of the one that was answered the chance of being `right`, of the others as their curves
    share what is left.
    """
    found: Array = np.stack([curve(said["probability"][:, place]) for place, curve in enumerate(estimator.curves)], axis=1)
    rows = np.arange(len(found))
    found[rows, said["label"]] = 0.0
    found *= ((1 - right) / np.maximum(found.sum(axis=1), NEVER))[:, None]
    found[rows, said["label"]] = 1.0 - found.sum(axis=1)
    return found


def estimate(estimator: Estimator, schema: Schema, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Estimated:
    """The figures on live rows, named arrays with the rows first, as they came in and went out. Rows without an answer are passed over."""
    said = answers(schema, outputs)
    rows = len(next(iter(said.values()), ()))
    usable = np.ones(rows, dtype=bool)
    for values in said.values():
        usable &= values >= 0 if values.dtype.kind == "i" else np.isfinite(values).reshape(rows, -1).all(axis=1)
    kept = int(usable.sum())
    if kept < LEAST_LIVE:
        return Estimated(kept, {}, 0.0, 0.0, f"{kept:,} rows are too few; at least {LEAST_LIVE} are needed")
    if estimator.kind == "binary" and "score" not in said:
        return Estimated(kept, {}, 0.0, 1.0, "the rows carry no probabilities")
    inputs = {name: array[usable] for name, array in inputs.items() if len(array) == rows}
    said = {name: values[usable] for name, values in said.items()}
    codes, outside = coding.code(estimator.columns, inputs, said, kept)
    rests = support.rests(estimator.support, codes[:, ~outside])
    unknown = min(1.0, float(outside.mean()) + rests.unknown)
    if unknown > UNKNOWN_SHARE:
        return Estimated(kept, {}, rests.effective, unknown, f"{unknown:.0%} of the rows lie where the reference has none")
    if rests.effective < EFFECTIVE_ROWS:
        why = f"the reference is worth {rests.effective:.0f} rows like these, of {estimator.support.rows:,}"
        return Estimated(kept, {}, rests.effective, unknown, why)
    told = {}
    for name, expected in _expected(estimator, codes, said).items():
        learnt = expected.labels * kept / rests.effective + support.together(estimator.support, codes, expected.spread) / KNOWN_ROWS
        told[name] = _figure(name, expected, learnt, unknown)
    return Estimated(kept, told, rests.effective, unknown)


def _expected(estimator: Estimator, codes: Array, said: Mapping[str, Array]) -> Mapping[str, Expected]:
    if estimator.kind == "error":
        squares = estimator.squares or estimator.trees
        said_before = [np.asarray(each)[codes[-1]] for each in (estimator.levels, estimator.square_levels)]
        absolute = estimator.scale * np.maximum(1.0 + estimator.trees(codes) + said_before[0], NEVER)
        squared = np.maximum(estimator.scale**2 * (1.0 + squares(codes) + said_before[1]), absolute**2)
        return figures.errors(absolute, squared, estimator.kurtosis)
    chance = chances(estimator, codes, said)
    if estimator.kind == "binary":
        return figures.binary(chance, said["label"] == 1, said["score"])
    found = dict(figures.correct(chance))
    if estimator.curves and "probability" in said:
        found |= figures.macro(chances_of_each(estimator, chance, said), said["label"], said["probability"])
    return found


def _figure(name: str, expected: Expected, learnt: float, unknown: float) -> Figure:
    """The interval. What was learnt has an error of its own: it rests on so many rows of the reference, and errs like a draw of so many does. Rows of
    which nothing is known may be anything."""
    reach = REACH * math.sqrt(expected.labels + learnt)
    low, high = expected.value - reach, expected.value + reach
    if name in figures.LOWER_IS_BETTER:
        low, high = max(0.0, low), high + unknown * expected.value
    else:
        low, high = max(0.0, low - unknown), min(1.0, high + unknown)
    return Figure(expected.value, low, high, math.sqrt(expected.rows + learnt))


def _of_numbers(
    features: Sequence[FeatureProfile], inputs: Mapping[str, Array], said: Mapping[str, Array], lost: Array, importance: Mapping[str, float]
) -> Estimator | None:
    scale = float(f"{lost.mean():.6g}")
    if not 0 < scale < math.inf:
        return None
    sizes_of = lost / scale
    columns = _columns(features, inputs, said, importance, sizes_of - 1.0, has_label=False)
    codes, sizes = _codes(columns, inputs, said, len(lost))
    margin = np.zeros(len(lost))
    targets = sizes_of - 1.0, sizes_of**2 - 1.0
    grown, squares = (trees.fit(trees.Rows(codes, sizes, margin, each), trees.SQUARED) for each in targets)
    kurtosis = float((sizes_of**4).mean() / (sizes_of**2).mean() ** 2)
    return Estimator(
        kind="error",
        columns=columns,
        trees=grown,
        levels=trees.levels(codes[-1], sizes[-1], grown(codes), targets[0], trees.SQUARED),
        squares=squares,
        square_levels=trees.levels(codes[-1], sizes[-1], squares(codes), targets[1], trees.SQUARED),
        scale=scale,
        kurtosis=float(f"{kurtosis:.6g}"),
        support=support.count(codes, sizes),
    )


def _levels(codes: Array, size: int, margin: Array, target: Array, *, needs: bool) -> tuple[float, ...]:
    """None are needed beside the curve alone, which is right on average for each score already."""
    return trees.levels(codes, size, margin, target, trees.LOGISTIC) if needs else (0.0,) * size


def _columns(
    features: Sequence[FeatureProfile],
    inputs: Mapping[str, Array],
    said: Mapping[str, Array],
    importance: Mapping[str, float],
    rest: Array,
    *,
    has_label: bool,
) -> tuple[Column, ...]:
    """The inputs that count, the most important first, before what the model said; `rest` is what the trees are to explain."""
    counting = [
        each for each in features if each.role == "input" and each.kind != "missing" and importance.get(each.name, 0.0 if importance else 1.0) > 0
    ]
    if not importance and len(counting) > COLUMNS:  # an image, of which nobody knows what counts: what the model says of it must do
        counting = []
    counting.sort(key=lambda each: -importance.get(each.name, 0.0))
    rows = len(rest)
    columns = []
    for each in counting[:COLUMNS]:
        empty = Column(role="input", source=each.source, element=each.element)
        values = coding.element(inputs[each.source], each.element, rows)
        columns.append(coding.learn_category(empty, values, rest) if each.kind == "category" else coding.learn_number(empty, coding.numbers(values)))
    if "score" in said:
        columns.append(coding.learn_number(Column(role="answer", source="score"), said["score"]))
    if has_label and "label" in said:
        columns.append(coding.learn_category(Column(role="answer", source="label"), said["label"], rest))
    return tuple(columns)


def _codes(columns: Sequence[Column], inputs: Mapping[str, Array], said: Mapping[str, Array], rows: int) -> tuple[Array, list[int]]:
    codes, _ = coding.code(columns, inputs, said, rows)
    return codes, [column.size for column in columns]


def _logit(share: Array) -> Array:
    clipped = np.clip(share, NEVER, 1 - NEVER)
    found: Array = np.log(clipped / (1 - clipped))
    return found


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
