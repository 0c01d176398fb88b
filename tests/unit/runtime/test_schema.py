from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from modelyard.errors import InvalidConfig, SchemaMismatch
from modelyard.runtime import schema
from modelyard.runtime.data import Table, read
from modelyard.types import Schema, Tag, TensorSpec


def infer(source: object, *, accepts: Callable[[Table], bool] = lambda table: True, tags: dict[str, Tag] | None = None) -> Schema:
    return schema.infer(read(source)[0], outputs=(), task="other", classes=None, tags=tags, accepts=accepts)


def spec(found: Schema, name: str) -> TensorSpec:
    return next(spec for spec in found.inputs if spec.name == name)


FRAME = pd.DataFrame({"n": [3, 1, 2], "f": [0.5, np.nan, 2.0], "t": ["b", "a", "b"], "c": pd.Categorical(["x", None, "x"], categories=["x", "w"])})


def test_types_ranges_categories_and_missing_values_come_from_the_data() -> None:
    found = infer(FRAME)
    assert found.layout == "frame"
    assert [item.name for item in found.inputs] == ["n", "f", "t", "c"]
    assert spec(found, "n") == TensorSpec(name="n", datatype="INT64", shape=(-1, 1), minimum=(1.0,), maximum=(3.0,))
    assert spec(found, "f") == TensorSpec(name="f", datatype="FP64", shape=(-1, 1), is_nullable=True, minimum=(0.5,), maximum=(2.0,))
    assert spec(found, "t").categories == ("a", "b")
    assert spec(found, "c").categories == ("w", "x")
    assert spec(found, "c").is_nullable


def test_an_array_has_one_input_and_a_range_per_column() -> None:
    found = infer(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert found.inputs == (TensorSpec(name="X", datatype="FP64", shape=(-1, 2), is_nullable=True, minimum=(1.0, 0.0), maximum=(3.0, 0.0)),)


def test_an_unknown_category_is_allowed_exactly_where_the_model_answers_one() -> None:
    def accepts(table: Table) -> bool:
        return set(table.columns["t"].ravel().tolist()) <= {"a", "b"}

    found = infer(FRAME, accepts=accepts)
    assert not spec(found, "t").unknown_allowed
    assert spec(found, "c").unknown_allowed
    assert spec(found, "n").unknown_allowed


def test_a_number_that_the_model_takes_as_a_category_becomes_one() -> None:
    found = infer(FRAME, accepts=lambda table: set(table.columns["n"].ravel().tolist()) <= {1, 2, 3})
    assert spec(found, "n").categories == (1, 2, 3)
    assert not spec(found, "n").unknown_allowed


def test_tagged_columns_show_no_values() -> None:
    found = infer(FRAME, tags={"n": "mask", "t": "hash", "c": "drop"}, accepts=lambda table: False)
    for name in ("n", "t", "c"):
        item = spec(found, name)
        assert (item.categories, item.minimum, item.maximum) == (None, (), ())
        assert not item.unknown_allowed
    assert [item.tag for item in found.inputs] == ["mask", None, "hash", "drop"]


def test_values_of_tagged_columns_are_given_apart_where_no_others_are_taken() -> None:
    tags: dict[str, Tag] = {"n": "mask", "c": "drop"}
    table, _ = read(FRAME)
    closed = infer(FRAME, tags=tags, accepts=lambda table: False)
    assert schema.closed_values(closed, table) == {"n": (1, 2, 3), "c": ("w", "x")}
    assert schema.closed_values(infer(FRAME, tags=tags), table) == {}
    assert schema.closed_values(infer(FRAME, accepts=lambda table: False), table) == {}


def test_free_text_is_not_listed() -> None:
    found = infer(pd.DataFrame({"t": [f"note {i}" for i in range(1500)]}))
    assert spec(found, "t").categories is None
    closed = infer(pd.DataFrame({"t": [f"note {i}" for i in range(1500)]}), accepts=lambda table: False)
    assert len(spec(closed, "t").categories or ()) == 1500


def test_wrong_tags_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="age"):
        infer(FRAME, tags={"age": "drop"})
    with pytest.raises(InvalidConfig, match="drop, hash, mask"):
        infer(FRAME, tags={"n": "hide"})  # type: ignore[dict-item]


def test_a_sample_that_its_own_schema_rejects_is_refused() -> None:
    with pytest.raises(SchemaMismatch) as caught:
        infer(pd.DataFrame({"f": [1.0, np.inf]}))
    assert (caught.value.field, caught.value.rule) == ("f", "finite")


def test_other_data_is_cast_only_as_the_wire_would() -> None:
    found = infer(pd.DataFrame({"n": [1, 2], "f": np.array([1.0, 2.0], dtype=np.float32), "b": [True, False]}))
    cast = schema.conform(found, {"n": np.array([[1.0]]), "f": np.array([[2]]), "b": np.array([[1]])})
    assert (cast["n"].dtype, cast["f"].dtype, cast["b"].dtype) == (np.int64, np.float32, np.int64)
    assert schema.conform(found, {"n": np.array([[1.5]])})["n"].dtype == np.float64
