"""The chain of ways: proof on all rows, probes, refusal with every reason, and the same bytes everywhere."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from converting import converted, learnt
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from modelyard.errors import Unconvertible
from modelyard.runtime import convert as room
from modelyard.runtime.convert import PROOF_ROWS, convert
from modelyard.runtime.data import Table, read
from modelyard.runtime.originals import adapt
from modelyard.types import Tolerance


class Wrong:
    """An original whose answer to one row is another than its model's, so that no graph can be right."""

    def __init__(self, model: Any, row: np.ndarray, by: float) -> None:
        self._inner = adapt(model)
        self._row, self._by = row, by
        self.model, self.kind, self.title = model, self._inner.kind, self._inner.title
        self.task, self.classes, self.packages, self.outputs = "regression", None, (), self._inner.outputs

    def predict(self, table: Table) -> dict[str, np.ndarray]:
        answers = self._inner.predict(table)
        answers["prediction"] = answers["prediction"] + self._by * (table.columns["X"] == self._row).all(axis=1)
        return answers


def test_one_row_of_many_that_differs_is_found_in_any_batch_and_named() -> None:
    x = np.random.default_rng(0).normal(size=(PROOF_ROWS + 500, 2))
    row = PROOF_ROWS + 17
    original = Wrong(LinearRegression().fit(x, x[:, 0]), x[row], 1e-3)
    table, _ = read(x)
    with pytest.raises(Unconvertible, match=rf"output 'prediction', row {row}: the original says [-\d.e]+, the converted [-\d.e]+") as refused:
        convert(original, table, learnt(original, table), tolerance=Tolerance())
    assert "trees and steps in double: 1 values differ" in refused.value.message
    assert "stock converter in double" in refused.value.message
    assert "wider --tolerance" in refused.value.message
    wider = convert(original, table, learnt(original, table), tolerance=Tolerance(absolute=1e-2))
    assert wider.parity.tolerance.absolute == 1e-2
    assert wider.parity.outputs["prediction"].max_abs == pytest.approx(1e-3)


def test_the_attempts_and_speeds_are_recorded(numbers: np.ndarray, two: np.ndarray) -> None:
    told: list[tuple[str, float]] = []
    table, _ = read(numbers)
    original = adapt(GaussianNB().fit(numbers, two))
    found = convert(original, table, learnt(original, table), tolerance=Tolerance(), progress=lambda step, share: told.append((step, share)))
    assert found.method == "trees and steps in double, with skl2onnx for GaussianNB"
    assert [(attempt.method, attempt.chosen) for attempt in found.attempts] == [(found.method, True)]
    assert found.parity.native_us_per_row > 0
    assert found.parity.converted_us_per_row > 0
    assert {size: bits.rows for size, bits in found.parity.batch_bits.items()}.keys() == {"1", "2", "7", "64"}
    assert [share for _, share in told] == sorted(share for _, share in told)
    outputs = found.outputs or {}
    assert len(outputs["label"]) == table.rows and np.array_equal(outputs["label"], original.predict(table)["label"])


def test_a_refusal_tells_each_way_once(numbers: np.ndarray, target: np.ndarray) -> None:
    model = GaussianProcessRegressor().fit(numbers[:60, [0, 2]] * 30, target[:60])
    with pytest.raises(Unconvertible) as refused:
        converted(model, numbers[:60, [0, 2]] * 1e-3, tolerance=Tolerance(absolute=0.0, relative=0.0))
    assert refused.value.message.count("stock converter in float32") <= 1
    assert refused.value.message.startswith("GaussianProcessRegressor has no graph that gives its answers")


def test_data_that_the_original_does_not_answer(numbers: np.ndarray, two: np.ndarray) -> None:
    original = adapt(GaussianNB().fit(numbers, two))
    table, _ = read(numbers[:, :2])
    with pytest.raises(Unconvertible, match="does not answer the data that was given: X has 2 features"):
        convert(original, table, learnt(adapt(GaussianNB().fit(numbers[:, :2], two)), table), tolerance=Tolerance())


def planned(encoder: OneHotEncoder, frame: pd.DataFrame, labels: np.ndarray) -> Any:
    columns = ColumnTransformer([("plan", encoder, ["plan"])], remainder="passthrough")
    return make_pipeline(columns, RandomForestClassifier(5, random_state=0)).fit(frame, labels)


def test_unknown_categories_are_probed_where_the_schema_lets_them_in(people: pd.DataFrame, churned: np.ndarray) -> None:
    frame = people[["plan", "children"]]
    model = planned(OneHotEncoder(handle_unknown="ignore"), frame, churned)
    found = converted(model, frame)
    assert found.conversion.parity.probes == 32
    assert converted(planned(OneHotEncoder(), frame, churned), frame).conversion.parity.probes == 0
    asked = room._Asked(found.original, found.table, found.schema, Tolerance(), lambda step, share: None)
    assert asked.proof(found.runtime, lambda share: None)[0].passed
    _, answers = asked._probes or ({}, {})
    answers["probability"] = answers["probability"] + 0.1  # negative control: the probes are compared, not only asked
    parity, _ = asked.proof(found.runtime, lambda share: None)
    assert not parity.passed
    assert "(unknown category)" in parity.describe()


def test_bits_do_not_depend_on_unused_columns_or_calls(people: pd.DataFrame, churned: np.ndarray) -> None:
    frame = people[["income", "plan", "children"]]
    encoder = ColumnTransformer([("plan", OneHotEncoder(), ["plan"]), ("income", StandardScaler(), ["income"])])
    model = make_pipeline(encoder, RandomForestClassifier(5, random_state=0)).fit(frame, churned)
    first, second = converted(model, frame).conversion, converted(model, frame).conversion
    assert (first.model, first.binding) == (second.model, second.binding)
    assert {name for given in first.binding.inputs for name in given.inputs} == {"income", "plan"}


SCRIPT = """
import sys, warnings, hashlib
warnings.simplefilter("ignore")
sys.path.insert(0, "tests/support")
import numpy as np, pandas as pd, lightgbm, xgboost, catboost
from sklearn.pipeline import make_pipeline
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC
from converting import converted
rng = np.random.default_rng(0)
x = rng.normal(size=(200, 3)); y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
frame = pd.DataFrame({"a": x[:, 0], "t": rng.choice(["u", "v", "w"], 200), "s": rng.choice(list("klmn"), 200)})
encoder = ColumnTransformer([("t", OneHotEncoder(handle_unknown="ignore"), ["t"]), ("s", OrdinalEncoder(), ["s"])], remainder="passthrough")
digest = hashlib.sha256()
for model, data in [
    (make_pipeline(encoder, RandomForestClassifier(5, random_state=0)), frame), (GaussianNB(), x), (SVC(), x),
    (xgboost.XGBClassifier(n_estimators=5, n_jobs=1), x), (lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1), x),
    (catboost.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False, thread_count=1, random_seed=0), x),
]:
    found = converted(model.fit(data, y), data).conversion
    digest.update(found.model + repr(found.binding).encode())
print(digest.hexdigest())
"""


@pytest.mark.timeout(240)
def test_the_bytes_are_the_same_in_every_process_whatever_the_hash_seed_and_threads() -> None:
    found = set()
    for seed, threads in (("1", "1"), ("2", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1
    assert len(found.pop().strip()) == len(hashlib.sha256().hexdigest())
