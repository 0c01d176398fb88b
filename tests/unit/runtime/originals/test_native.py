"""Only the container changes: values, order and declared categories stay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from modelyard.errors import Unconvertible
from modelyard.runtime.data import read
from modelyard.runtime.originals.native import as_numpy, as_pandas, declared


def test_columns_side_by_side_or_a_frame() -> None:
    table, _ = read(pd.DataFrame({"b": [1, 2], "a": [0.5, np.nan], "t": ["x", None]}))
    with pytest.raises(Unconvertible, match="'t' is text"):
        as_numpy(table)
    frame = as_pandas(table, {"t": ["y", "x"]})
    assert list(frame) == ["b", "a", "t"]
    assert frame["t"].cat.codes.tolist() == [1, -1]
    numbers, _ = read(pd.DataFrame({"b": [1, 2], "a": [0.5, np.nan]}))
    np.testing.assert_array_equal(as_numpy(numbers), [[1, 0.5], [2, np.nan]])


def test_declared_categories_keep_the_order_of_their_codes() -> None:
    frame = pd.DataFrame({"k": pd.Categorical(["b", "a"], categories=["b", "a", "c"]), "x": [1, 2]})
    assert declared(frame) == {0: ("b", "a", "c"), 1: None}
    assert declared(np.zeros((1, 1))) == {}
