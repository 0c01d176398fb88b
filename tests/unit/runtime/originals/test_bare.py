"""Boosters without the scikit-learn face answer as the estimators that they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from converting import converted

from modelyard.runtime.data import read
from modelyard.runtime.originals import adapt, load

FEW: dict[str, Any] = {"n_estimators": 5, "n_jobs": 1}


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_told_from_the_objective(classes: int, numbers: np.ndarray, three: np.ndarray) -> None:
    y = np.minimum(three // 10, classes - 1)
    table, _ = read(numbers)
    boosted, light = xgboost.XGBClassifier(**FEW).fit(numbers, y), lightgbm.LGBMClassifier(**FEW, verbose=-1).fit(numbers, y)
    for model, booster in ((boosted, boosted.get_booster()), (light, light.booster_)):
        original = adapt(booster)
        assert original.classes == tuple(range(classes))
        answers = original.predict(table)
        np.testing.assert_allclose(answers["probability"], model.predict_proba(numbers), atol=1e-7)
        assert answers["label"].tolist() == model.predict(numbers).tolist()
        assert converted(booster, numbers).conversion.parity.passed


def test_regressors_and_softmax_labels(numbers: np.ndarray, target: np.ndarray, three: np.ndarray) -> None:
    for booster in (
        xgboost.XGBRegressor(**FEW).fit(numbers, target).get_booster(),
        lightgbm.LGBMRegressor(**FEW, verbose=-1).fit(numbers, target).booster_,
        xgboost.train({"objective": "multi:softmax", "num_class": 3, "nthread": 1}, xgboost.DMatrix(numbers, three // 10), 3),
        xgboost.XGBRegressor(**FEW, multi_strategy="multi_output_tree", tree_method="hist").fit(numbers, np.c_[target, -target]).get_booster(),
    ):
        assert converted(booster, numbers).conversion.parity.passed


def test_catboost_files_know_their_task_and_classes(numbers: np.ndarray, target: np.ndarray, two: np.ndarray, tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"iterations": 5, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    catboost.CatBoostRegressor(**quiet).fit(numbers, target).save_model(str(tmp_path / "r.cbm"))
    catboost.CatBoostClassifier(**quiet).fit(numbers, two).save_model(str(tmp_path / "c.cbm"))
    assert load(tmp_path / "r.cbm").task == "regression"
    assert load(tmp_path / "c.cbm").classes == ("no", "yes")
    for name in ("r.cbm", "c.cbm"):
        assert converted(tmp_path / name, numbers).conversion.parity.passed


def test_text_columns_become_the_categories_that_a_file_stores(people: pd.DataFrame, churned: np.ndarray, tmp_path: Path) -> None:
    """A CSV has no categorical types; the model does."""
    frame = people[["income", "plan"]]
    typed = frame.astype({"plan": "category"})
    boosted = xgboost.XGBClassifier(**FEW, enable_categorical=True).fit(typed, churned)
    light = lightgbm.LGBMClassifier(**FEW, verbose=-1).fit(typed, churned)
    boosted.save_model(tmp_path / "m.ubj")
    light.booster_.save_model(tmp_path / "m.txt")
    for name, model in (("m.ubj", boosted), ("m.txt", light)):
        found = converted(tmp_path / name, frame)
        np.testing.assert_allclose(found.original.predict(found.table)["probability"], model.predict_proba(typed), atol=1e-7)
