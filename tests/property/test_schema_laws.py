"""A schema accepts the data that it was learnt from, each row of it alone, and survives its file form."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from modelyard.bundle.build import strict
from modelyard.runtime import golden, schema
from modelyard.runtime.data import read
from modelyard.runtime.validate import Checker, check
from modelyard.types import Schema

value = {
    "float": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "int": st.integers(-(2**53), 2**53),
    "nullable_int": st.none() | st.integers(-(2**31), 2**31),
    "bool": st.booleans(),
    "text": st.none() | st.text(max_size=4),
}
frames = st.lists(st.fixed_dictionaries(value), min_size=1, max_size=30)
TYPES = {"float": "float64", "int": "int64", "nullable_int": "Int64", "bool": "bool", "text": "str"}


@given(frames)
def test_a_schema_accepts_its_own_sample(rows: list[dict[str, object]]) -> None:
    frame = pd.DataFrame(rows).astype(TYPES)
    table, _ = read(frame)
    found = schema.infer(table, outputs=(), task="other", classes=None, accepts=lambda _: False)
    check(found, table.columns)
    checker = Checker(found)
    for row in range(table.rows):
        checker.check(table.take(np.array([row])).columns, 1)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Schema) == found


@given(frames, st.sets(st.sampled_from(list(TYPES))), st.booleans())
def test_what_stands_for_tagged_columns_is_accepted_too(rows: list[dict[str, object]], tagged: set[str], is_open: bool) -> None:
    table, _ = read(pd.DataFrame(rows).astype(TYPES))
    tags = dict.fromkeys(sorted(tagged), "mask")
    found = schema.infer(table, outputs=(), task="other", classes=None, tags=tags, accepts=lambda _: is_open)  # type: ignore[arg-type]
    values = schema.closed_values(found, table)
    check(strict(found, values), golden.redact(table, found, values).columns)
