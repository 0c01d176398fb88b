"""A model that is code, as an Original: it is asked in a process of its own from the first row on.

Hides what the code says of its outputs: their names, types and shapes are learnt from its answers. Owned by whoever packages, who closes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import ModelFailed, Unconvertible
from modelyard.runtime.data import DTYPES
from modelyard.runtime.isolated.pool import Code, Isolated
from modelyard.runtime.isolated.process import Ended, Isolation, Raised
from modelyard.runtime.originals.base import distributions, label_datatype
from modelyard.runtime.originals.sources import Sources
from modelyard.types import TensorSpec

if TYPE_CHECKING:
    from modelyard.runtime.data import Table
    from modelyard.types import Array, Datatype, Scalar, Task

SAMPLE_ROWS = 7


class CodeModel:
    """Code and its state, running. `code` and `parts` are what a bundle carries of it."""

    kind = "python"
    model: Any = None

    def __init__(self, sources: Sources, isolation: Isolation) -> None:
        self.parts = sources.members
        self.isolation = isolation
        self.title = f"python {sources.entry}"
        self.code = Code(kind="python", entry=sources.entry)
        try:
            self._runtime = Isolated(self.code, self.parts, None, isolation)
        except ModelFailed as error:
            raise Unconvertible(f"{sources.entry} does not load in a process of its own: {_why(error)}", field="model", rule="load") from error
        self.packages: tuple[str, ...] = ()
        said = self._runtime.facts
        classes = said.get("classes")
        self.classes: tuple[Scalar, ...] | None = None if classes is None else tuple(classes)
        self.task: Task = "other" if classes is None else "classification"
        self.code = Code(kind="python", entry=sources.entry, max_batch_rows=said.get("max_batch_rows"))
        self._runtime.code = self.code
        self._outputs: tuple[TensorSpec, ...] = ()

    def learn(self, table: Table) -> None:
        """Learn the outputs from the answers to a few rows. Raises Unconvertible with what the code raised, or for answers that no wire carries."""
        sample = table.take(np.arange(min(table.rows, SAMPLE_ROWS)))
        answers = self.predict(sample)
        self._outputs = tuple(_spec(name, array) for name, array in answers.items())
        if self.classes is not None:
            self._check_classes(answers, self.classes)
        elif set(answers) == {"prediction"} and answers["prediction"].dtype.kind in "iuf":
            self.task = "regression"

    def _check_classes(self, answers: dict[str, Array], classes: tuple[Scalar, ...]) -> None:
        label = answers.get("label")
        probability = answers.get("probability")
        fits = label is not None and label.ndim == 1 and _datatype("label", label) == label_datatype(classes)
        if not fits or (probability is not None and probability.shape[1:] != (len(classes),)):
            raise Unconvertible(
                "a model with `classes` answers `label`, one per row and of their type, and may answer `probability`, one per class",
                field="model",
                rule="outputs",
            )
        order = {"label": 0, "probability": 1}
        self._outputs = tuple(sorted(self._outputs, key=lambda spec: order.get(spec.name, 2)))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See `Original.outputs`."""
        return self._outputs

    def predict(self, table: Table) -> dict[str, Array]:
        """See `Original.predict`: the answers of its process to the columns."""
        return self.ask(table.columns)

    def ask(self, columns: dict[str, Array]) -> dict[str, Array]:
        """The answers to `columns`. Raises Unconvertible with what the code raised, its place in the code included."""
        try:
            return self._runtime.predict(columns)
        except ModelFailed as error:
            raise Unconvertible(f"{self.title} does not answer the data that was given: {_why(error)}", field="data") from error

    def find_packages(self) -> None:
        """Take note of the distributions of all modules that the code has loaded by now."""
        self.packages = distributions({*self._runtime.libraries(), "numpy"})

    def close(self) -> None:
        """End its process."""
        self._runtime.close()


def _why(error: ModelFailed) -> str:
    cause = error.__cause__
    if isinstance(cause, Ended):
        return f"its process ended: {cause}"
    return str(cause) if isinstance(cause, Raised) else error.message


def _spec(name: str, array: Array) -> TensorSpec:
    return TensorSpec(name=name, datatype=_datatype(name, array), shape=(-1, *array.shape[1:]))


def _datatype(name: str, array: Array) -> Datatype:
    for datatype, dtype in DTYPES.items():
        if array.dtype == dtype:
            return datatype
    raise Unconvertible(f"the output {name!r} is of {array.dtype.name}, which no wire carries", field="model", rule="outputs")
