"""Boosters without the scikit-learn face: XGBoost's and LightGBM's own, and CatBoost models read from a file.

Hides each library's container for rows and how its task is told from its objective. Labels are 0, 1, … unless the file stores others.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.runtime.originals.base import answers_of, distributions, label_array, plain_classes
from modelyard.runtime.originals.native import as_pandas, declared

if TYPE_CHECKING:
    from modelyard.runtime.data import Table
    from modelyard.types import Array, Scalar, Task, TensorSpec


class _Booster:
    """What the three share: answers from a score per class."""

    kind: str
    task: Task
    classes: tuple[Scalar, ...] | None

    def __init__(self, model: Any, *, classes: int, kind: str, title: str) -> None:
        self.kind = kind
        self.model = model
        self.title = title
        self.task = "classification" if classes else "regression"
        self.classes = tuple(range(classes)) if classes else None
        self.packages = distributions({"numpy", kind})

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See `Original.outputs`."""
        return answers_of(self.task, self.classes, has_probability=True, width=self._width())

    def _width(self) -> int | None:
        return None

    def _answers(self, scores: Array) -> dict[str, Array]:
        scores = np.asarray(scores, np.float64)
        if self.classes is None:
            return {"prediction": scores}
        probability = np.stack([1 - scores, scores], axis=1) if scores.ndim == 1 else scores
        chosen = np.asarray(self.classes, object)[probability.argmax(axis=1)]
        return {"label": label_array(chosen.tolist(), self.classes), "probability": probability}


class XgboostBooster(_Booster):
    """`xgboost.Booster`."""

    def __init__(self, model: Any) -> None:
        learner = json.loads(model.save_config())["learner"]
        self._objective = learner["objective"]["name"]
        count = int(learner["learner_model_param"]["num_class"])
        self._targets = int(learner["learner_model_param"].get("num_target", "1"))
        classes = 2 if self._objective == "binary:logistic" else count if self._objective in ("multi:softprob", "multi:softmax") else 0
        from modelyard.runtime.convert.boosters import xgboost_cut_off

        self._cut_off = xgboost_cut_off(model)
        super().__init__(model, classes=classes, kind="xgboost", title=f"xgboost.Booster({self._objective})")

    def _width(self) -> int | None:
        return self._targets if self._targets > 1 else None

    def predict(self, table: Table) -> dict[str, Array]:
        """See `Original.predict`."""
        import xgboost

        native = table.native
        if table.layout == "frame":
            native = as_pandas(table, self._categories()) if type(native).__module__.partition(".")[0] != "pandas" or self._texts(table) else native
        if self._cut_off is not None:
            from modelyard.runtime.convert.boosters import xgboost_categories

            xgboost_categories(self._cut_off, declared(native))
        matrix = xgboost.DMatrix(native, enable_categorical=True)
        if self._objective != "multi:softmax":
            return self._answers(self.model.predict(matrix))
        margin = np.asarray(self.model.predict(matrix, output_margin=True), np.float64)
        power = np.exp(margin - margin.max(axis=1, keepdims=True))
        return self._answers(power / power.sum(axis=1, keepdims=True))

    def _texts(self, table: Table) -> bool:
        return any(column.dtype == object and table.kinds[name].categories is None for name, column in table.columns.items())

    def _categories(self) -> dict[str, list[Any]]:
        from modelyard.runtime.convert.boosters import xgboost_categories

        names = self.model.feature_names or []
        stored = xgboost_categories(json.loads(self.model.save_raw("json")))
        return {names[index]: values for index, values in stored.items() if index < len(names)}


class LightgbmBooster(_Booster):
    """`lightgbm.Booster`."""

    def __init__(self, model: Any) -> None:
        from modelyard.runtime.convert.boosters import lightgbm_objective

        objective = lightgbm_objective(model)
        classes = {"binary": 2, "multiclass": model.num_model_per_iteration(), "multiclassova": model.num_model_per_iteration()}.get(objective, 0)
        super().__init__(model, classes=classes, kind="lightgbm", title=f"lightgbm.Booster({objective or 'custom'})")

    def predict(self, table: Table) -> dict[str, Array]:
        """See `Original.predict`."""
        native = table.native
        if table.layout == "frame":
            is_pandas = type(native).__module__.partition(".")[0] == "pandas"
            texts = [name for name, column in table.columns.items() if column.dtype == object and table.kinds[name].categories is None]
            if texts or not is_pandas:
                native = as_pandas(table, self._categories(table))
        return self._answers(self.model.predict(native))

    def _categories(self, table: Table) -> dict[str, list[Any]]:
        from modelyard.runtime.convert.boosters import lightgbm_categorical

        names = list(table.columns)
        chosen = {index for index, name in enumerate(names) if table.columns[name].dtype == object} | set(lightgbm_categorical(self.model))
        return {names[index]: values for index, values in zip(sorted(chosen), self.model.pandas_categorical or [], strict=False)}


class CatboostModel(_Booster):
    """A CatBoost model read from a file: `catboost.CatBoost`, which knows its classes but has no `predict_proba`."""

    def __init__(self, model: Any) -> None:
        from modelyard.runtime.convert.boosters import CATBOOST_CLASSIFIES, catboost_loss

        loss = catboost_loss(model)
        super().__init__(model, classes=0, kind="catboost", title=f"catboost.CatBoost({loss})")
        if loss in CATBOOST_CLASSIFIES:
            self.task = "classification"
            self.classes = plain_classes(model.classes_) if len(model.classes_) else (0, 1)

    def predict(self, table: Table) -> dict[str, Array]:
        """See `Original.predict`."""
        native = table.native
        if table.layout == "frame" and type(native).__module__.partition(".")[0] != "pandas":
            native = as_pandas(table)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.classes is None:
                return self._answers(self.model.predict(native))
            probability = np.asarray(self.model.predict(native, prediction_type="Probability"), np.float64)
            label = self.model.predict(native, prediction_type="Class")
        return {"label": label_array(label, self.classes), "probability": probability}
