"""Each transformer's graph against the transformer itself, on numbers, text and missing values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from modelyard.runtime.convert.graph import Graph
from modelyard.runtime.convert.preprocessing import hands_on_sparse, transform
from modelyard.runtime.convert.write import columns_of
from modelyard.runtime.data import read
from modelyard.runtime.onnx import Onnx
from modelyard.types import Schema, TensorSpec

NUMBERS = ["age", "income", "children"]
TEXTS = ["city", "plan"]


def through_graph(step: Any, frame: pd.DataFrame) -> np.ndarray:
    """What the graph of a fitted transformer makes of the wire's form of a frame."""
    table, _ = read(frame)
    specs = tuple(TensorSpec(name=name, datatype=kind.datatype, shape=(-1, 1), is_nullable=True) for name, kind in table.kinds.items())
    graph = Graph()
    width = np.shape(step.transform(frame.head(1)))[1]
    made = graph.join(transform(graph, columns_of(graph, table), step))
    model, binding = graph.finish([("y", made, TensorProto.DOUBLE, width)])
    return Onnx(model, binding, Schema(inputs=specs, outputs=(), layout="frame", task="other")).predict(table.columns)["y"]


def same(step: Any, frame: pd.DataFrame, *, unseen: pd.DataFrame | None = None, y: Any = None, exact: bool = True) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step.fit(frame, y)
        for data in (frame,) if unseen is None else (frame, unseen):
            expected = step.transform(data)
            expected = np.asarray(expected.toarray() if hasattr(expected, "toarray") else expected, np.float64)
            found = through_graph(step, data)
            if exact:
                np.testing.assert_array_equal(found, expected)
            else:
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


NUMERIC = {
    "standard": make_pipeline(SimpleImputer(), StandardScaler()),
    "standard over missing": StandardScaler(),
    "standard without mean": StandardScaler(with_mean=False),
    "min-max": make_pipeline(SimpleImputer(strategy="median"), MinMaxScaler(clip=True)),
    "max-abs": MaxAbsScaler(),
    "robust": RobustScaler(),
    "imputer with indicator": SimpleImputer(add_indicator=True),
    "imputer of a constant": SimpleImputer(strategy="constant", fill_value=-1.0),
    "imputer of a number": SimpleImputer(missing_values=0, strategy="most_frequent"),
    "missing indicator": MissingIndicator(features="all"),
    "binarizer": make_pipeline(SimpleImputer(), Binarizer(threshold=2.0)),
    "nothing": FunctionTransformer(),
    "chosen by variance": make_pipeline(SimpleImputer(), VarianceThreshold(1.5)),
    "bins in columns": make_pipeline(SimpleImputer(), KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf")),
    "bins by number": make_pipeline(SimpleImputer(), KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf")),
    "union": FeatureUnion([("a", SimpleImputer()), ("b", make_pipeline(SimpleImputer(), MaxAbsScaler()))], transformer_weights={"b": 2.0}),
    "by number of column": ColumnTransformer([("a", StandardScaler(), [2]), ("b", "passthrough", slice(0, 1))], remainder="drop"),
    "categories that are numbers": OneHotEncoder(handle_unknown="ignore"),
    "ordinals of numbers": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
}
CLOSE = {
    "polynomial": make_pipeline(SimpleImputer(), PolynomialFeatures(3)),
    "products only": make_pipeline(SimpleImputer(), PolynomialFeatures(2, interaction_only=True, include_bias=False)),
    "principal components": make_pipeline(SimpleImputer(), StandardScaler(), PCA(2, whiten=True)),
    "truncated svd": make_pipeline(SimpleImputer(), StandardScaler(), TruncatedSVD(2)),
    "l2 norm": make_pipeline(SimpleImputer(), Normalizer()),
    "l1 norm": make_pipeline(SimpleImputer(), Normalizer("l1")),
    "largest norm": make_pipeline(SimpleImputer(), Normalizer("max")),
    "log1p": make_pipeline(SimpleImputer(), FunctionTransformer(np.log1p)),
    "square": make_pipeline(SimpleImputer(), FunctionTransformer(np.square)),
    "expm1": make_pipeline(SimpleImputer(), MaxAbsScaler(), FunctionTransformer(np.expm1)),
}


@pytest.mark.parametrize("name", NUMERIC)
def test_numbers_come_out_bit_by_bit(name: str, people: pd.DataFrame) -> None:
    same(NUMERIC[name], people[NUMBERS].fillna(30) if name == "imputer of a number" else people[NUMBERS])


@pytest.mark.parametrize("name", CLOSE)
def test_numbers_through_functions_come_out_to_the_last_digits(name: str, people: pd.DataFrame) -> None:
    same(CLOSE[name], people[NUMBERS], exact=False)


def test_a_step_that_chooses_columns(people: pd.DataFrame, churned: np.ndarray) -> None:
    same(make_pipeline(SimpleImputer(), SelectKBest(f_classif, k=2)), people[NUMBERS], y=churned)


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler(), MaxAbsScaler()], ids=lambda step: type(step).__name__)
def test_float32_columns_are_scaled_in_float32_as_the_original_does(scaler: Any, people: pd.DataFrame) -> None:
    frame = people[NUMBERS].astype("float32")
    same(scaler, frame)
    in_double = scaler.fit(people[NUMBERS]).transform(people[NUMBERS])
    assert not np.array_equal(through_graph(scaler.fit(frame), frame), in_double, equal_nan=True)  # else the rounding would prove nothing


@pytest.fixture(scope="module")
def unseen(people: pd.DataFrame) -> pd.DataFrame:
    """Rows with texts that no encoder has seen, and all missing."""
    changed = people.head(6).copy()
    changed.loc[changed.index[:3], "city"] = "Atlantis"
    changed.loc[changed.index[3:], "city"] = None
    changed["plan"] = ["", "a", "b", " a", "A", "ab"]
    return changed


TEXT = {
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "one-hot of dropped firsts": OneHotEncoder(drop="first", handle_unknown="ignore"),
    "one-hot of two": OneHotEncoder(drop="if_binary", handle_unknown="ignore"),
    "one-hot with rare ones": OneHotEncoder(min_frequency=60, handle_unknown="infrequent_if_exist"),
    "one-hot with rare ones, unknown ignored": OneHotEncoder(min_frequency=60, handle_unknown="ignore"),
    "imputed, then one-hot": make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
    "a constant, then one-hot": make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore")),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    "ordinal, unknown missing": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
    "ordinal with rare ones": OrdinalEncoder(min_frequency=60, handle_unknown="use_encoded_value", unknown_value=-1),
}


@pytest.mark.parametrize("absent", ["None", "NaN", "pandas text"])
@pytest.mark.parametrize("name", TEXT)
def test_text_comes_out_whole_with_missing_and_unknown(name: str, absent: str, people: pd.DataFrame, unseen: pd.DataFrame) -> None:
    def given(frame: pd.DataFrame) -> pd.DataFrame:
        missing = frame["city"].isna()
        if absent == "pandas text":
            return frame[TEXTS].astype("str").mask(missing.to_frame("city").reindex(columns=TEXTS, fill_value=False))
        city = np.array(frame["city"], object)
        city[missing.to_numpy()] = None if absent == "None" else np.nan
        return pd.DataFrame({"city": pd.Series(city, index=frame.index, dtype=object), "plan": frame["plan"].astype(object)})

    same(TEXT[name], given(people), unseen=given(unseen))


@pytest.mark.parametrize("labels", ["two", "three", "number"])
def test_target_encoding(labels: str, people: pd.DataFrame, unseen: pd.DataFrame, churned: np.ndarray) -> None:
    y = {"two": churned, "three": people["children"].clip(0, 2), "number": people["income"]}[labels]
    same(TargetEncoder(random_state=0), people[TEXTS], unseen=unseen[TEXTS], y=y)


def test_numbers_and_text_in_one_encoder(people: pd.DataFrame) -> None:
    frame = people[["children", "plan"]].astype({"plan": object})
    same(OneHotEncoder(handle_unknown="ignore"), frame)


def test_columns_chosen_by_selector_and_remainder(people: pd.DataFrame, unseen: pd.DataFrame) -> None:
    step = ColumnTransformer(
        [("texts", OneHotEncoder(handle_unknown="ignore"), TEXTS), ("numbers", SimpleImputer(), make_column_selector(dtype_include="float64"))],
        remainder="passthrough",
    )
    same(step, people, unseen=unseen)


def test_a_python_function_is_refused_by_name(people: pd.DataFrame) -> None:
    def halved(x: Any) -> Any:
        return x / 2

    step = FunctionTransformer(halved).fit(people[NUMBERS])
    with pytest.raises(ValueError, match="FunctionTransformer\\(halved\\)"):
        through_graph(step, people[NUMBERS])


def test_which_steps_hand_on_a_sparse_matrix(people: pd.DataFrame) -> None:
    sparse = OneHotEncoder().fit(people[TEXTS])
    assert hands_on_sparse(sparse)
    assert not hands_on_sparse(OneHotEncoder(sparse_output=False).fit(people[TEXTS]))
    assert hands_on_sparse(make_pipeline(OneHotEncoder(), MaxAbsScaler()).fit(people[TEXTS]))
    assert not hands_on_sparse(make_pipeline(OneHotEncoder(), TruncatedSVD(1)).fit(people[TEXTS]))
    assert not hands_on_sparse(StandardScaler().fit(people[NUMBERS]))
