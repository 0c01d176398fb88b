from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from modelyard.errors import InvalidConfig, InvalidInput, MalformedPayload, ModelyardError, NotFound
from modelyard.runtime import data
from modelyard.runtime.data import Table, read


def columns(source: object) -> dict[str, tuple[str, str, list[object]]]:
    table, _ = read(source)
    return {name: (table.kinds[name].datatype, values.dtype.name, values.ravel().tolist()) for name, values in table.columns.items()}


def same(left: list[object], right: list[object]) -> bool:
    return [None if value != value else value for value in left] == [None if value != value else value for value in right]


def test_pandas_columns_take_the_form_of_the_wire() -> None:
    frame = pd.DataFrame(
        {
            "int": np.array([1, 2, 3], dtype=np.int32),
            "float": [1.5, np.nan, 2.5],
            "text": ["a", None, "b"],
            "category": pd.Categorical(["x", None, "y"], categories=["y", "x", "z"]),
            "number_category": pd.Categorical([1, 2, None]),
            "bool": [True, False, True],
            "nullable_int": pd.array([1, None, 3], dtype="Int64"),
            "whole_nullable_int": pd.array([1, 2, 3], dtype="Int16"),
            "nullable_bool": pd.array([True, None, False], dtype="boolean"),
            "object_bool": pd.Series([True, None, False], dtype=object),
            "object_text": pd.Series(["a", float("nan"), "b"], dtype=object),
        }
    ).set_index(pd.Index([7, 7, 9]))
    found = columns(frame)
    assert found["int"] == ("INT32", "int32", [1, 2, 3])
    assert found["text"] == ("BYTES", "object", ["a", None, "b"])
    assert found["category"] == ("BYTES", "object", ["x", None, "y"])
    assert found["bool"] == ("BOOL", "bool", [True, False, True])
    assert found["whole_nullable_int"] == ("INT16", "int16", [1, 2, 3])
    assert found["object_text"] == ("BYTES", "object", ["a", None, "b"])
    for name, datatype, values in (
        ("float", "FP64", [1.5, np.nan, 2.5]),
        ("number_category", "INT64", [1, 2, np.nan]),
        ("nullable_int", "INT64", [1, np.nan, 3]),
        ("nullable_bool", "BOOL", [1, np.nan, 0]),
        ("object_bool", "BOOL", [1, np.nan, 0]),
    ):
        assert found[name][:2] == (datatype, "float64")
        assert same(found[name][2], values)
    table, _ = read(frame)
    assert table.kinds["category"].categories == ("y", "x", "z")
    assert all(values.shape == (3, 1) for values in table.columns.values())
    assert list(table.columns) == list(frame.columns)


def test_polars_columns_take_the_form_of_the_wire() -> None:
    frame = pl.DataFrame(
        {
            "int": pl.Series([1, None, 3], dtype=pl.Int16),
            "float": pl.Series([1.5, None, 2.5], dtype=pl.Float32),
            "text": ["a", None, "b"],
            "enum": pl.Series(["x", "y", "x"], dtype=pl.Enum(["y", "x", "z"])),
            "category": pl.Series(["x", None, "x"], dtype=pl.Categorical),
            "bool": [True, False, None],
        }
    )
    found = columns(frame)
    assert found["int"][:2] == ("INT16", "float64")
    assert found["float"][:2] == ("FP32", "float32")
    assert same(found["float"][2], [1.5, np.nan, 2.5])
    assert found["text"] == ("BYTES", "object", ["a", None, "b"])
    assert found["category"] == ("BYTES", "object", ["x", None, "x"])
    assert found["bool"][:2] == ("BOOL", "float64")
    assert read(frame)[0].kinds["enum"].categories == ("y", "x", "z")


def test_arrays_and_tensors() -> None:
    table, labels = read(np.arange(6, dtype=np.float32).reshape(3, 2), labels=["a", "b", "c"])
    assert (table.layout, list(table.columns), table.columns["X"].dtype, table.rows) == ("array", ["X"], np.float32, 3)
    assert labels is not None
    assert labels.tolist() == ["a", "b", "c"]
    table, _ = read({"image": np.zeros((2, 3, 4)), "name": np.array(["x", "y"])})
    assert (table.layout, table.rows, table.columns["name"].dtype) == ("tensors", 2, object)
    assert read(np.array([["a", "b"]]))[0].columns["X"].tolist() == [["a", "b"]]
    assert read([[1, 2], [3, 4]])[0].columns["X"].dtype == np.int64


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (pd.to_datetime(["2024-01-01", None]), "times"),
        (pd.Series([datetime.date(2024, 1, 1), None], dtype=object), "date"),
        (pd.Series([1, "a"], dtype=object), "int, str"),
        (pd.Series([b"x", b"y"]), "bytes"),
        (pd.Series([None, None], dtype=object), "no value"),
        (pd.Series([[1], [2]]), "list"),
        (pd.Series([1 + 2j, 2]), "complex"),
        (pd.Series([2**70, 1], dtype=object), "64 bits"),
        (pd.array([2**60, None], dtype="Int64"), "2^53"),
        (pd.period_range("2024", periods=2, freq="Y"), "period"),
    ],
)
def test_what_has_no_form_on_the_wire_is_refused_by_name(values: object, what: str) -> None:
    with pytest.raises(InvalidInput, match=f"guilty.*{what.replace('^', r'.')}") as caught:
        read(pd.DataFrame({"good": [1, 2], "guilty": values}))
    assert caught.value.field == "guilty"


@pytest.mark.parametrize(
    "frame",
    [pl.DataFrame({"guilty": [datetime.date(2024, 1, 1)]}), pl.DataFrame({"guilty": [[1, 2]]}), pl.DataFrame({"guilty": [None]})],
)
def test_polars_types_without_a_form_are_refused_by_name(frame: pl.DataFrame) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(frame)
    assert caught.value.field == "guilty"


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (pd.DataFrame({1: [1]}), {}),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}),
        (pd.DataFrame({"a": []}), {}),
        (pd.DataFrame({"a": [1]}), {"label": "b"}),
        (pd.DataFrame({"a": [1]}), {"labels": [1, 2]}),
        (pd.DataFrame({"a": [1]}), {"label": "a"}),
        (pd.DataFrame({"a": [1]}), {"label": "a", "labels": [1]}),
        (np.zeros(()), {}),
        (np.zeros((2, 2)), {"label": "a"}),
        ({"a": [1, 2], "b": [1]}, {}),
        ({}, {}),
        ("nowhere.csv", {}),
        (object(), {}),
        (np.zeros(2, dtype=[("a", int)]), {}),
    ],
)
def test_data_that_cannot_be_read_is_refused(source: object, options: dict[str, object]) -> None:
    with pytest.raises(ModelyardError):
        read(source, **options)  # type: ignore[arg-type]


def test_files_are_read_as_the_frame_of_the_installed_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"n": [1, None, 3], "f": [1.0, 2.0, None], "text": ["a", None, "c"], "y": [0, 1, 0], "b": [True, None, False]})
    frame.write_parquet(tmp_path / "data.parquet")
    frame.drop("b").write_csv(tmp_path / "data.csv")
    for library, there in (("pandas", {"pandas"}), ("polars", {"polars"}), ("numpy", set[str]())):
        monkeypatch.setattr(data, "find_spec", lambda name, there=there: name in there or None)
        for file in ("data.parquet", "data.csv"):
            table, labels = read(tmp_path / file, label="y")
            assert labels is not None
            assert labels.tolist() == [0, 1, 0]
            assert type(table.native).__module__.partition(".")[0] == {"numpy": "builtins"}.get(library, library)
            assert list(table.columns)[:3] == ["n", "f", "text"]
            assert table.columns["text"].ravel().tolist() == ["a", None, "c"]
            assert same(table.columns["n"].ravel().tolist(), [1, np.nan, 3])
            assert table.take(np.array([2])).columns["text"].tolist() == [["c"]]


def test_a_file_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MalformedPayload):
        read(tmp_path / "bad.parquet")
    (tmp_path / "data.xlsx").touch()
    with pytest.raises(InvalidConfig):
        read(tmp_path / "data.xlsx")
    with pytest.raises(NotFound):
        read(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "source",
    [
        pd.DataFrame({"n": [1, 2, 3], "t": pd.Categorical(["a", "b", "a"]), "s": ["x", None, "y"]}, index=[5, 5, 5]),
        pl.DataFrame({"n": [1, 2, 3], "t": pl.Series(["a", "b", "a"], dtype=pl.Categorical), "s": ["x", None, "y"]}),
    ],
)
def test_take_and_replace_change_both_forms_alike(source: object) -> None:
    table, _ = read(source)
    part = table.take(np.array([2, 0])).replace("t", "new").replace("n", 9).replace("s", None)
    again, _ = read(part.native)
    assert part.columns["t"].ravel().tolist() == ["new", "new"] == again.columns["t"].ravel().tolist()
    assert part.columns["n"].ravel().tolist() == [9, 9] == again.columns["n"].ravel().tolist()
    assert part.columns["s"].ravel().tolist() == [None, None]
    assert table.columns["t"].ravel().tolist() == ["a", "b", "a"]


NOON = 1_767_614_400.0  # 2026-01-05 12:00 UTC


@pytest.mark.parametrize(
    "values",
    [
        np.array(["2026-01-05T12:00", "NaT"], dtype="datetime64[s]"),
        pd.Series(pd.to_datetime(["2026-01-05 12:00", None])),
        pd.Series(pd.to_datetime(["2026-01-05 13:00", None]).tz_localize("Europe/Berlin")),
        pl.Series([datetime.datetime(2026, 1, 5, 12), None]),
        ["2026-01-05T12:00:00+00:00", None],
        ["2026-01-05 14:00:00+02:00", float("nan")],
        np.array([NOON, np.inf]),
    ],
    ids=["numpy", "pandas", "zoned", "polars", "texts", "zoned texts", "seconds"],
)
def test_times_of_rows_are_seconds(values: object) -> None:
    table = {"a": np.zeros(2)}
    rest, found = data.timed(table, values)
    assert rest is table
    assert found is not None
    assert found[0] == NOON
    assert np.isnan(found[1])


def test_a_column_of_times_is_split_off(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "at": pd.to_datetime(["2026-01-05 12:00", "2026-01-05 13:00"])})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    for source in (frame, pl.from_pandas(frame[["a"]]).with_columns(at=pl.Series(["2026-01-05 12:00", "2026-01-05 13:00"])), tmp_path / "rows.csv"):
        rest, found = data.timed(source, "at")
        assert found is not None
        assert found.tolist() == [NOON, NOON + 3600]
        assert list(read(rest)[0].columns) == ["a"]
    assert data.timed(frame, None)[1] is None


@pytest.mark.parametrize(
    ("source", "times", "said"),
    [({"a": np.zeros(1)}, "at", "no column"), (np.zeros(1), "at", "only a frame"), (np.zeros(1), ["soon"], "dates")],
)
def test_what_is_no_time_is_refused(source: object, times: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        data.timed(source, times)


def test_replacing_by_missing_turns_integers_to_floats() -> None:
    for source in (pd.DataFrame({"n": [1, 2]}), np.array([[1], [2]])):
        table, _ = read(source)
        gone = table.replace(next(iter(table.columns)), None)
        assert np.isnan(np.asarray(gone.native, dtype=float)).all()
        assert np.isnan(next(iter(gone.columns.values()))).all()


def test_an_enum_does_not_hold_an_unknown_value() -> None:
    table, _ = read(pl.DataFrame({"e": pl.Series(["x"], dtype=pl.Enum(["x"]))}))
    with pytest.raises(InvalidInput):
        table.replace("e", "unknown")
    assert isinstance(table, Table)
