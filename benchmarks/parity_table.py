"""The parity table: twelve kinds of model on real data, what way of conversion each took and how far its answers lie from the original's.

Every row of the data is asked. Speeds are of one row at a time, in the process that trained the model. `table` gives Markdown; the rows are
also what `tests/system/test_parity_table.py` holds to the default tolerance.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from modelyard.runtime.convert import Conversion, convert
from modelyard.runtime.data import read, read_file
from modelyard.runtime.originals import adapt
from modelyard.runtime.schema import infer
from modelyard.types import Tolerance

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
ROWS = 6000
FEW_ROWS = 2000


class Kind(NamedTuple):
    """One line of the table: a name, and a function that trains the model and gives it with the data to prove it on."""

    name: str
    train: Callable[[Data], tuple[Any, Any]]


class Data:
    """Census income (a class, numbers, text and missing values) and bicycle rentals (a number)."""

    def __init__(self, folder: Path) -> None:
        adult = read_file(folder / "adult.parquet").sample(ROWS, random_state=0)
        self.income = adult.pop("class")
        self.people = adult
        self.texts = [name for name in adult if adult[name].dtype.kind not in "iuf"]
        self.numbers = adult.drop(columns=self.texts).astype("float64")
        rentals = read_file(folder / "bike_sharing_hour.csv").sample(ROWS, random_state=0)
        self.rentals = rentals["cnt"].astype("float64")
        self.hours = rentals[["hr", "weekday", "workingday", "holiday", "weathersit", "season", "temp", "hum", "windspeed"]].astype("float64")


def _forest(data: Data) -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, n_jobs=2, random_state=0).fit(data.numbers, data.income).set_params(n_jobs=1), data.numbers


def _gradient_boosting(data: Data) -> tuple[Any, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0).fit(data.numbers, data.income), data.numbers


def _linear(data: Data) -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(data.numbers, data.income), data.numbers


def _support_vectors(data: Data) -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC()).fit(data.numbers[:FEW_ROWS], data.income[:FEW_ROWS]), data.numbers[:FEW_ROWS]


def _neighbours(data: Data) -> tuple[Any, Any]:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), KNeighborsClassifier(weights="distance"))
    return model.fit(data.numbers[:FEW_ROWS], data.income[:FEW_ROWS]), data.numbers[:FEW_ROWS]


def _perceptron(data: Data) -> tuple[Any, Any]:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # twenty rounds do not converge, nor need they
        return make_pipeline(StandardScaler(), MLPClassifier(max_iter=20, random_state=0)).fit(data.numbers, data.income), data.numbers


def _preprocessing(data: Data) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return ColumnTransformer([("numbers", make_pipeline(SimpleImputer(), StandardScaler()), list(data.numbers)), ("texts", texts, data.texts)])


def _pipeline(data: Data) -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(_preprocessing(data), RandomForestClassifier(100, random_state=0))
    return model.fit(data.people, data.income), data.people


def _xgboost(data: Data) -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline
    from xgboost import XGBClassifier

    model = make_pipeline(_preprocessing(data), XGBClassifier(n_estimators=100, n_jobs=2))
    return model.fit(data.people, (data.income == ">50K").astype(int)), data.people


def _lightgbm(data: Data) -> tuple[Any, Any]:
    from lightgbm import LGBMClassifier

    people = data.people.astype(dict.fromkeys(data.texts, "category"))
    return LGBMClassifier(n_estimators=100, verbose=-1, n_jobs=2).fit(people, data.income), people


def _catboost(data: Data) -> tuple[Any, Any]:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(iterations=200, verbose=0, allow_writing_files=False, thread_count=2)
    return model.fit(data.numbers, data.income), data.numbers


def _several_classes(data: Data) -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, random_state=0).fit(data.numbers, data.people["relationship"]), data.numbers


def _regression(data: Data) -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingRegressor

    return GradientBoostingRegressor(n_estimators=200, max_depth=5, random_state=0).fit(data.hours, data.rentals), data.hours


KINDS = (
    Kind("forest", _forest),
    Kind("gradient boosting", _gradient_boosting),
    Kind("linear", _linear),
    Kind("SVM", _support_vectors),
    Kind("kNN by distance", _neighbours),
    Kind("MLP", _perceptron),
    Kind("pipeline with categories", _pipeline),
    Kind("XGBoost in a pipeline", _xgboost),
    Kind("LightGBM with categories", _lightgbm),
    Kind("CatBoost", _catboost),
    Kind("multi-class", _several_classes),
    Kind("regression", _regression),
)


def proved(model: Any, frame: Any) -> Conversion:
    """The conversion of `model`, proved on all rows of `frame`. Raises Unconvertible."""
    table, _ = read(frame)
    original = adapt(model)

    def accepts(changed: Any) -> bool:
        try:
            original.predict(changed)
        except Exception:  # noqa: BLE001 - a model's code may raise anything
            return False
        return True

    schema = infer(table, outputs=original.outputs, task=original.task, classes=original.classes, tags={}, accepts=accepts)
    return convert(original, table, schema, tolerance=Tolerance())


def rows(folder: Path = DATA) -> Iterator[tuple[str, Conversion]]:
    """Each kind with its conversion."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    data = Data(folder)
    for kind in KINDS:
        model, frame = kind.train(data)
        yield kind.name, proved(model, frame)


def lines(found: Iterator[tuple[str, Conversion]]) -> Iterator[str]:
    """The table in Markdown, line by line, as its rows come."""
    yield "| kind | way of conversion | rows | largest difference | labels differing | native, µs a row | converted, µs a row | times faster |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, conversion in found:
        parity = conversion.parity
        differences = ", ".join(f"{output} {difference.max_abs:.1e}" for output, difference in parity.outputs.items() if output != "label")
        native, converted = parity.native_us_per_row, parity.converted_us_per_row
        yield (
            f"| {name} | {conversion.method} | {parity.rows:,} | {differences or 'labels only'} | {parity.labels_differing} | {native:,.0f} "
            f"| {converted:,.0f} | {native / converted:,.0f} |"
        )


def table() -> str:
    """The whole table in Markdown."""
    return "\n".join(lines(rows())) + "\n"


if __name__ == "__main__":
    for line in lines(rows()):
        print(line, flush=True)
