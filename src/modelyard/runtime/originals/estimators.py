"""scikit-learn estimators and the scikit-learn faces of XGBoost, LightGBM and CatBoost.

Hides how each is asked: which frames it takes, what it calls its classes, whether it has probabilities.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import Unconvertible
from modelyard.runtime.originals.base import answers_of, distributions, label_array, parts, plain_classes
from modelyard.runtime.originals.native import as_numpy, as_pandas, declared

if TYPE_CHECKING:
    from modelyard.runtime.data import Table
    from modelyard.types import Array, Scalar, Task, TensorSpec


class Estimator:
    """A fitted estimator. Two of its calls may run at once where the library allows it; nothing here is changed by a call."""

    def __init__(self, model: Any, *, kind: str) -> None:
        self.kind = kind
        self.model = model
        self.title = title(model)
        classes = getattr(model, "classes_", None)
        if isinstance(classes, list):
            raise Unconvertible(f"{self.title} answers several labels per row; package one classifier per label", field="model", rule="outputs")
        self.task: Task = "regression" if classes is None or np.size(classes) == 0 else "classification"
        self.classes: tuple[Scalar, ...] | None = plain_classes(classes) if self.task == "classification" else None
        self._has_probability = self.task == "classification" and hasattr(model, "predict_proba")
        modules = {type(each).__module__.partition(".")[0] for each in parts(model)}
        self.packages = distributions({*modules, "numpy", *(("scipy",) if "sklearn" in modules else ())})

        self._cut_off: dict[str, Any] | None = None
        if kind == "xgboost":
            from modelyard.runtime.convert.boosters import xgboost_cut_off

            self._cut_off = xgboost_cut_off(model.get_booster())

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See `Original.outputs`."""
        return answers_of(self.task, self.classes, has_probability=self._has_probability, width=_width(self.model))

    def predict(self, table: Table) -> dict[str, Array]:
        """See `Original.predict`."""
        native = self._native(table)
        self._refuse_cut_off(native)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about feature names and unknown categories: the answers are what is compared
            if self.classes is None:
                prediction = np.asarray(self.model.predict(native), np.float64)
                return {"prediction": prediction}
            answers = {"label": label_array(self.model.predict(native), self.classes)}
            if self._has_probability:
                answers["probability"] = np.asarray(self.model.predict_proba(native), np.float64)
        return answers

    def _refuse_cut_off(self, native: Any) -> None:
        """Raise for categories that XGBoost would answer by chance."""
        if self._cut_off is not None:
            from modelyard.runtime.convert.boosters import xgboost_categories

            xgboost_categories(self._cut_off, declared(native))

    def _native(self, table: Table) -> Any:
        if isinstance(table.native, dict):
            return as_numpy(table)
        if self.kind != "scikit-learn" and type(table.native).__module__.partition(".")[0] == "polars":
            return as_pandas(table)
        if self.kind == "scikit-learn" and table.layout == "frame" and not any(hasattr(each, "feature_names_in_") for each in parts(self.model)):
            return as_numpy(table) if all(column.dtype.kind in "biuf" for column in table.columns.values()) else table.native
        return table.native


def title(model: Any) -> str:
    """The classes that make the model, outermost first: `Pipeline(ColumnTransformer, RandomForestRegressor)`."""
    name = type(model).__name__
    if hasattr(model, "steps"):
        return f"{name}({', '.join(title(step) for _, step in model.steps)})"
    for inner in ("best_estimator_", "regressor_"):
        if hasattr(model, inner):
            return f"{name}({title(getattr(model, inner))})"
    return "passthrough" if isinstance(model, str) else name


def _width(model: Any) -> int | None:
    """How many numbers a regressor answers per row; None where it answers a flat array."""
    for name in ("best_estimator_", "regressor_", "final_estimator_"):
        if hasattr(model, name):
            return _width(getattr(model, name))
    if hasattr(model, "steps"):
        return _width(model.steps[-1][1])
    if type(model).__name__ == "MultiOutputRegressor":
        return len(model.estimators_)
    if np.ndim(getattr(model, "coef_", 0)) == 2 and not hasattr(model, "dual_coef_"):
        return int(np.shape(model.coef_)[0])
    if hasattr(model, "_y") and np.ndim(model._y) == 2:
        return int(np.shape(model._y)[1])
    outputs = getattr(model, "n_outputs_", 1)
    if type(model).__module__.startswith("xgboost"):
        outputs = int(np.atleast_1d(getattr(model, "intercept_", 1)).size) if hasattr(model, "multi_strategy") else 1
    return int(outputs) if isinstance(outputs, (int, np.integer)) and outputs > 1 else None
