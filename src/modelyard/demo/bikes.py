"""The demo's problem: how many bikes are rented in an hour, from calendar and weather.

Hides where the data lies and how the model is trained and packaged. Trained on the first half of 2011, the model has never seen a fall, nor
the growth of 2012: the later months move its inputs and its error for real.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import InvalidConfig

if TYPE_CHECKING:
    from modelyard.bundle import Bundle

NAME = "bikes"
FEATURES = ("hour", "season", "weather", "holiday", "workingday", "temp", "hum", "windspeed")
TARGET = "cnt"
TRAINED_UNTIL = "2011-06-30"
LATER_UNTIL = "2012-06-30"
TREES = 100
CITATION = "Bike Sharing, UCI; Fanaee-T & Gama 2013, doi:10.1007/s13748-013-0040-3, CC BY 4.0"


def need_libraries() -> None:
    """Raise InvalidConfig, with the way to get them, unless the libraries that train the model are installed."""
    from importlib.util import find_spec

    missing = [name for name in ("sklearn", "pandas", "skl2onnx", "treelite") if find_spec(name) is None]
    if missing:
        raise InvalidConfig(f"the demo trains a scikit-learn model and lacks {', '.join(missing)}: pip install 'modelyard[sklearn,pandas]'")


def load() -> Any:
    """All 17,379 hours as a pandas DataFrame in time order: date (text), FEATURES and TARGET."""
    import pandas as pd

    packed = resources.files("modelyard.demo").joinpath("data/bike_sharing.csv.xz").read_bytes()
    return pd.read_csv(BytesIO(lzma.decompress(packed)))


def split(rows: Any) -> tuple[Any, Any]:
    """The hours to train on and the later ones, which only the endpoint sees; both with a `month` column such as 2011-07."""
    dated = rows.assign(month=rows["date"].str[:7])
    is_past = dated["date"] <= TRAINED_UNTIL
    return dated[is_past].reset_index(drop=True), dated[~is_past].reset_index(drop=True)


def split_again(rows: Any) -> tuple[Any, Any]:
    """A year later: the hours that a challenger is trained on, and those that neither model has seen."""
    is_past = rows["date"] <= LATER_UNTIL
    return rows[is_past].reset_index(drop=True), rows[~is_past].reset_index(drop=True)


def held_back(past: Any) -> tuple[Any, Any]:
    """The hours to learn from, and every fifth day, which the model never sees: on these its quality is measured."""
    is_held = past["date"].str[8:].astype(int) % 5 == 0
    return past[~is_held].reset_index(drop=True), past[is_held].reset_index(drop=True)


def train(past: Any) -> Any:
    """A fitted scikit-learn Pipeline over DataFrames of FEATURES: words one-hot (a season that it has not seen counts as none), a forest on top.

    Deterministic. The forest's `oob_prediction_` tells each training hour by trees that have not seen it.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("words", words, ["season", "weather"])], remainder="passthrough")
    forest = RandomForestRegressor(TREES, min_samples_leaf=3, oob_score=True, random_state=0)
    return Pipeline([("columns", columns), ("forest", forest)]).fit(past[list(FEATURES)], past[TARGET])


def package(model: Any, learnt: Any, held: Any, *, home: Path, progress: Callable[[str, float], None]) -> Bundle:
    """The next version of NAME: `model`, trained on the hours `learnt`; its quality is that on those `held` back."""
    from modelyard import control

    return control.package(
        model,
        name=NAME,
        data=learnt[list(FEATURES)],
        labels=learnt[TARGET],
        evaluation=held[list(FEATURES)],
        evaluation_labels=held[TARGET],
        home=home,
        progress=progress,
    )
