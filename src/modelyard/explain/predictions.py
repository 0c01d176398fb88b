"""Explains predictions by Shapley values against a bundle's golden records.

Hides how a row and its background become the inputs of the model, which number of an answer is explained, and whether to enumerate or to sample. A
feature is one element of an input: a column of a frame, an element of an array. Values are taken over whole, so that categories and missing values
need no treatment of their own. A tagged column has one stand-in in all golden records: its contribution is against that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from modelyard.errors import DeadlineExceeded, InvalidInput, ModelFailed
from modelyard.explain import shapley
from modelyard.explain.base import Wanted
from modelyard.types import Explanation, Scalar, Schema

if TYPE_CHECKING:
    from modelyard.explain.base import MayGoOn
    from modelyard.explain.shapley import Values
    from modelyard.types import Array

BACKGROUND_ROWS = 64
FEWEST_BACKGROUND_ROWS = 8
FEATURES = 512
"""More are refused: an explanation by single pixels says nothing, and costs as many runs."""

Predict = Callable[[Mapping[str, "Array"]], dict[str, "Array"]]


class Predictions:
    """The Explainer of one model: its `predict`, its schema and background rows in the form of InferenceRequest."""

    def __init__(self, predict: Predict, schema: Schema, background: Mapping[str, Array]) -> None:
        self._predict = predict
        self._schema = schema
        self._background = {spec.name: background[spec.name] for spec in schema.inputs}

    def explain(self, inputs: Mapping[str, Array], wanted: Wanted, *, evaluations: int, may_go_on: MayGoOn) -> list[Explanation]:
        """See `Explainer.explain`."""
        schema = self._schema
        open_one = next((spec.name for spec in schema.inputs if -1 in spec.shape[1:]), None)
        if open_one is not None:
            raise InvalidInput(f"{open_one!r} has no fixed shape, so its elements cannot be told apart", field=open_one, rule="shape")
        features = sum(array[0].size for array in self._background.values())
        if features > FEATURES:
            raise InvalidInput(f"a model of {features:,} input values cannot be explained; at most {FEATURES:,}", field="instances", rule="features")
        rows = len(next(iter(inputs.values())))
        each = evaluations // rows
        background, is_exact = self._chosen(features, each)
        answers = self._predict(inputs)
        found = []
        for row in range(rows):
            answer = {name: array[row : row + 1] for name, array in answers.items()}
            told, number = self._number(answer, wanted)
            game = _Mixed({name: array[row : row + 1] for name, array in inputs.items()}, background, self._predict, number)
            values = shapley.exact(game, may_go_on=may_go_on) if is_exact else shapley.sampled(game, evaluations=each, may_go_on=may_go_on)
            found.append(_explanation(told, values, game.rows))
        return found

    def _chosen(self, features: int, evaluations: int) -> tuple[dict[str, Array], bool]:
        """The background rows, evenly spread, as many as can be afforded; and whether all coalitions can be."""
        known = len(next(iter(self._background.values())))
        rows = min(known, BACKGROUND_ROWS)
        is_exact = shapley.cost_exact(features, rows) <= evaluations
        if not is_exact:
            one = 2 + shapley.FEWEST_ROUNDS * shapley.cost_round(features, 1)
            rows = min(rows, evaluations // one)
            if rows < min(known, FEWEST_BACKGROUND_ROWS):
                raise DeadlineExceeded("the time given does not suffice for an explanation; ask for fewer rows, or allow more time")
        chosen = np.unique(np.linspace(0, known - 1, rows).astype(np.int64))
        return {name: array[chosen] for name, array in self._background.items()}, is_exact

    def _number(self, answer: Mapping[str, Array], wanted: Wanted) -> tuple[dict[str, Scalar], Callable[[Mapping[str, Array]], Array]]:
        """What is explained, by name, and the function that takes it out of the answers."""
        schema = self._schema
        if schema.task == "classification" and schema.classes is not None:
            return self._class(answer, wanted, schema.classes)
        if wanted.label is not None:
            raise InvalidInput("the model has no classes to explain", field="class", rule="unknown")
        numeric = [spec.name for spec in schema.outputs if spec.datatype not in ("BYTES", "BOOL")]
        name = wanted.output or next((each for each in ("prediction", *numeric) if each in numeric), "")
        if name not in numeric:
            raise InvalidInput(f"the output is one of {', '.join(numeric)}", field="output", rule="known")
        width = answer[name][0].size
        if not 0 <= wanted.element < width:
            raise InvalidInput(f"the element of {name!r} is a number from 0 to {width - 1}", field="element", rule="range")
        element = wanted.element
        told: dict[str, Scalar] = {"output": name} if width == 1 else {"output": name, "element": element}
        return told, lambda answers: answers[name].reshape(len(answers[name]), -1)[:, element]

    def _class(
        self, answer: Mapping[str, Array], wanted: Wanted, classes: tuple[Scalar, ...]
    ) -> tuple[dict[str, Scalar], Callable[[Mapping[str, Array]], Array]]:
        if wanted.output is not None or wanted.element:
            raise InvalidInput("of a classifier a class is explained: send class", field="output", rule="unknown")
        label: Scalar = answer["label"][0] if wanted.label is None else wanted.label
        place = next((at for at, known in enumerate(classes) if known == label and isinstance(known, str) == isinstance(label, str)), None)
        if place is None:
            raise InvalidInput("the class is one of those that the model's metadata list", field="class", rule="known")
        label = classes[place]
        if "probability" in answer:
            return {"output": "probability", "class": label}, lambda answers: answers["probability"][:, place]
        return {"output": "label", "class": label}, lambda answers: answers["label"] == label


class _Mixed:
    """The game of one row: features of the coalition are the row's, the others a background row's."""

    def __init__(
        self, row: Mapping[str, Array], background: Mapping[str, Array], predict: Predict, number: Callable[[Mapping[str, Array]], Array]
    ) -> None:
        self._row = {name: array.reshape(1, -1) for name, array in row.items()}
        self._background = {name: array.reshape(len(array), -1) for name, array in background.items()}
        self._shapes = {name: array.shape[1:] for name, array in background.items()}
        self._predict = predict
        self._number = number
        self.features = sum(array.shape[1] for array in self._background.values())
        self.rows = len(next(iter(self._background.values())))

    def value(self, masks: Array, rows: Array) -> Array:
        """See `Game.value`."""
        inputs, at = {}, 0
        for name, background in self._background.items():
            width = background.shape[1]
            own = np.where(masks[:, at : at + width], self._row[name], background[rows])
            inputs[name] = own.reshape(len(rows), *self._shapes[name])
            at += width
        found = np.asarray(self._number(self._predict(inputs)), dtype=np.float64)
        if len(found) != len(rows):
            raise ModelFailed("the model did not answer every row")
        return found


def _explanation(told: Mapping[str, Scalar], values: Values, background_rows: int) -> Explanation:
    return Explanation(
        explained=dict(told),
        value=values.value,
        base=values.base,
        contributions=tuple(values.contributions.tolist()),
        standard_errors=tuple(values.errors.tolist()),
        method="exact" if values.is_exact else "sampled",
        background_rows=background_rows,
        evaluations=values.evaluations,
    )
