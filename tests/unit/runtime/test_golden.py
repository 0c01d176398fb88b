from __future__ import annotations

import json

import numpy as np
import pandas as pd

from modelyard.runtime import golden, schema
from modelyard.runtime.data import read
from modelyard.runtime.validate import check
from modelyard.types import Schema


def made(rows: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"n": rng.normal(size=rows), "k": rng.integers(0, 9, size=rows), "t": rng.choice(["a", "b"], size=rows)})
    frame.loc[1234, "n"] = np.nan
    frame.loc[777, "t"] = "rare"
    frame["who"] = [f"person {i}" for i in range(rows)]
    return frame


def test_golden_rows_cover_ranges_missing_values_and_rare_categories() -> None:
    frame = made()
    rows = golden.choose(read(frame)[0])
    assert 64 <= len(rows) <= golden.AT_MOST
    assert {777, 1234, int(frame["n"].argmin()), int(frame["n"].argmax())} <= set(rows.tolist())
    assert rows.tolist() == sorted(set(rows.tolist())) == golden.choose(read(frame)[0]).tolist()


def test_all_rows_are_golden_when_there_are_few() -> None:
    assert golden.choose(read(made(1300).head(40))[0]).tolist() == list(range(40))


def test_wide_and_deep_arrays_keep_the_number_of_rows_bounded() -> None:
    rng = np.random.default_rng(0)
    assert 64 <= len(golden.choose(read(rng.normal(size=(3000, 400)))[0])) <= golden.AT_MOST
    assert 64 <= len(golden.choose(read({"image": rng.normal(size=(200, 8, 8, 3)), "t": np.array(["a"] * 200)})[0])) <= golden.AT_MOST


def tagged(closed: bool = False) -> tuple[pd.DataFrame, Schema]:
    frame = made()
    found = schema.infer(
        read(frame)[0], outputs=(), task="other", classes=None, tags={"who": "hash", "k": "mask", "t": "drop"}, accepts=lambda _: not closed
    )
    return frame, found


def test_redaction_leaves_no_tagged_value() -> None:
    frame, found = tagged()
    table, _ = read(frame)
    clean = golden.redact(table, found, {})
    assert set(clean.columns["who"].ravel().tolist()) == {golden.STAND_IN} == set(clean.columns["t"].ravel().tolist())
    assert set(clean.columns["k"].ravel().tolist()) == {int(np.median(frame["k"]))}
    assert clean.native["k"].tolist() == clean.columns["k"].ravel().tolist()
    assert np.array_equal(clean.columns["n"], table.columns["n"], equal_nan=True)
    check(found, clean.columns)


def test_a_model_that_takes_only_what_it_knows_gets_the_first_of_the_values_kept_apart() -> None:
    frame, found = tagged(closed=True)
    table, _ = read(frame)
    values = schema.closed_values(found, table)
    clean = golden.redact(table, found, values)
    assert set(clean.columns["t"].ravel().tolist()) == {frame["t"].min()} and set(clean.columns["k"].ravel().tolist()) == {frame["k"].min()}


def test_the_public_example_leaves_out_a_tagged_column_that_takes_only_what_the_model_knows() -> None:
    frame, found = tagged(closed=True)
    assert set(golden.public_example(found, read(frame)[0])) == set(frame.columns) - {"who", "k", "t"}


def test_the_public_example_is_typical_and_nobody() -> None:
    frame = made()
    frame["city"] = "Paris"
    found = schema.infer(read(frame)[0], outputs=(), task="other", classes=None, tags={"k": "mask"}, accepts=lambda _: True)
    example = golden.public_example(found, read(frame)[0])
    assert example["who"] == golden.STAND_IN
    assert example["city"] == "Paris"
    assert isinstance(example["k"], int)
    assert abs(example["n"]) < 0.1
    check(found, {name: np.array([[value]], dtype=object if isinstance(value, str) else type(value)) for name, value in example.items()} | {})
    json.dumps(example)


def test_the_public_example_of_arrays_is_nested() -> None:
    for data, name, shape in ((np.arange(12.0).reshape(4, 3), "X", (3,)), ({"i": np.zeros((4, 2, 2))}, "i", (2, 2))):
        table, _ = read(data)
        found = schema.infer(table, outputs=(), task="other", classes=None, accepts=lambda _: True)
        assert np.shape(golden.public_example(found, table)[name]) == shape
