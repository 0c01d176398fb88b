"""The port of models as their users have them, before conversion.

Hides which library a model is of. An original is asked with the data as its user gave it; it lives in the process that packages and is
never loaded by serving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from modelyard.types import TensorSpec

if TYPE_CHECKING:
    from modelyard.runtime.data import Table
    from modelyard.types import Array, Datatype, Scalar, Task


class Original(Protocol):
    """A trained model. `kind` names its family, `title` its classes; `packages` are the distributions that its answers depend on."""

    kind: str
    title: str
    task: Task
    classes: tuple[Scalar, ...] | None
    packages: tuple[str, ...]
    model: Any

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it answers: a classifier `label` and, where it has them, `probability`; a regressor `prediction`."""
        ...

    def predict(self, table: Table) -> dict[str, Array]:
        """Its own answers on the data as given (`table.native`), under the names of `outputs`. Raises what the library raises."""
        ...


def answers_of(task: Task, classes: Sequence[Scalar] | None, *, has_probability: bool, width: int | None) -> tuple[TensorSpec, ...]:
    """The output specs of a classifier or a regressor; `width` is the number of answers per row of a regressor, None for a flat one."""
    if task == "classification" and classes is not None:
        label = TensorSpec(name="label", datatype=label_datatype(classes), shape=(-1,))
        probability = TensorSpec(name="probability", datatype="FP64", shape=(-1, len(classes)))
        return (label, probability) if has_probability else (label,)
    return (TensorSpec(name="prediction", datatype="FP64", shape=(-1,) if width is None else (-1, width)),)


def plain_classes(classes: Any) -> tuple[Scalar, ...]:
    """The classes as Python scalars, in their order."""
    return tuple(each if isinstance(each, (str, bool, int, float)) else str(each) for each in np.asarray(classes).tolist())


def label_datatype(classes: Sequence[Scalar]) -> Datatype:
    """The wire's datatype of these labels."""
    if all(isinstance(each, bool) for each in classes):
        return "BOOL"
    if all(isinstance(each, int) for each in classes):
        return "INT64"
    return "FP64" if all(isinstance(each, (int, float)) for each in classes) else "BYTES"


def label_array(labels: Any, classes: Sequence[Scalar]) -> Array:
    """Labels as they travel: int64, float64, bool, or an object array of str."""
    array = np.asarray(labels).reshape(-1)
    datatype = label_datatype(classes)
    if datatype == "BYTES":
        return np.array([str(each) for each in array.tolist()], dtype=object)
    return array.astype({"BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64}[datatype])


def parts(model: Any, depth: int = 0) -> Iterator[Any]:
    """The model and, depth first, every fitted estimator inside it; texts such as 'passthrough' are left out."""
    if model is None or isinstance(model, str) or depth > 8:
        return
    yield model
    for name in (
        "steps", "transformers_", "transformer_list", "best_estimator_", "estimators_", "final_estimator_", "calibrated_classifiers_",
        "estimator_", "regressor_", "transformer_", "estimator", "_preprocessor",
    ):  # fmt: skip
        inner = getattr(model, name, None)
        if isinstance(inner, np.ndarray):
            inner = inner.ravel().tolist()
        for each in inner if isinstance(inner, (list, tuple)) else [inner]:
            fitted = each[1] if isinstance(each, tuple) and len(each) > 1 else each
            if hasattr(fitted, "__dict__") or hasattr(fitted, "tree_"):
                yield from parts(fitted, depth + 1)


def distributions(modules: set[str]) -> tuple[str, ...]:
    """The distributions that provide these top-level modules, sorted."""
    providers = packages_distributions()
    return tuple(sorted({providers[module][0] for module in modules if module in providers}))
