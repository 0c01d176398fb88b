"""How a table reaches the first step: order and names, missing text, declared categories."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from converting import converted
from sklearn.linear_model import LinearRegression

from modelyard.errors import Unconvertible
from modelyard.runtime.convert.graph import Graph
from modelyard.runtime.convert.write import columns_of, write
from modelyard.runtime.data import read
from modelyard.runtime.originals import adapt
from modelyard.runtime.schema import infer


def test_a_frame_in_another_order_reaches_the_model_by_name() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"education-num": rng.normal(size=90), "b": rng.normal(size=90), "c": rng.integers(0, 9, 90)})
    model = LinearRegression().fit(frame[["c", "education-num"]], frame["c"] * 3 - frame["education-num"])
    original = adapt(model)
    table, _ = read(frame[["education-num", "c"]])
    schema = infer(table, outputs=original.outputs, task="regression", classes=None, tags={}, accepts=lambda changed: True)
    _, binding, _ = write(original, table, schema, "exact")
    assert [given.inputs for given in binding.inputs] == [("education-num", "c")]
    found = converted(model, frame[["c", "education-num"]])
    assert found.runtime.predict({"education-num": np.array([[1.0]]), "c": np.array([[2]])})["prediction"][0] == pytest.approx(5.0)
    short, _ = read(frame[["b", "c"]])
    with pytest.raises(Unconvertible, match="no column 'education-num'"):
        write(original, short, schema, "exact")


def test_missing_text_and_declared_categories_are_seen() -> None:
    texts = {"none": pd.Series(["a", None], dtype=object), "nan": pd.Series(["a", np.nan], dtype=object)}
    frame = pd.DataFrame({**texts, "k": pd.Categorical(["z", "y"], ["z", "y"])})
    table, _ = read(frame)
    none, nan, category = columns_of(Graph(), table)
    assert (none.absent, nan.absent) == ("none", "nan")
    assert category.categories == ("z", "y")
    assert none.categories is None


def test_an_array_of_three_dimensions_is_refused() -> None:
    table, _ = read(np.zeros((3, 2, 2)))
    with pytest.raises(Unconvertible, match="3 dimensions"):
        columns_of(Graph(), table)
