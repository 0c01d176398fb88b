"""How a file's columns become a model's inputs, and its answers a file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from modelyard.cli.predict import _key, fit, flat, save
from modelyard.config import Settings
from modelyard.control.access import admin_key
from modelyard.errors import SchemaMismatch
from modelyard.runtime.data import read
from modelyard.types import ServeState, TensorSpec

AGE = TensorSpec(name="age", datatype="FP64", shape=(-1, 1))
CITY = TensorSpec(name="city", datatype="BYTES", shape=(-1, 1))


def table(tmp_path: Path, text: str) -> object:
    (tmp_path / "rows.csv").write_text(text)
    return read(tmp_path / "rows.csv")[0]


def test_columns_go_by_name_and_others_are_left_out(tmp_path: Path) -> None:
    found = fit(table(tmp_path, "city,extra,age\nBonn,1,40\nRome,2,41\n"), (AGE, CITY), name="churn")  # type: ignore[arg-type]
    assert list(found) == ["age", "city"] and found["city"][:, 0].tolist() == ["Bonn", "Rome"]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="lacks city") as refused:
        fit(table(tmp_path, "age\n1\n"), (AGE, CITY), name="churn")  # type: ignore[arg-type]
    assert refused.value.field == "city"


def test_a_model_of_one_array_takes_the_numeric_columns_side_by_side(tmp_path: Path) -> None:
    spec = (TensorSpec(name="X", datatype="FP32", shape=(-1, 3)),)
    found = fit(table(tmp_path, "a,b,c\n1,2,3\n4,5,6\n"), spec, name="grid")  # type: ignore[arg-type]
    assert found["X"].tolist() == [[1, 2, 3], [4, 5, 6]]
    for text in ("a,b\n1,2\n", "a,b,c\n1,2,x\n"):
        with pytest.raises(SchemaMismatch, match="3 numeric columns"):
            fit(table(tmp_path, text), spec, name="grid")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_answers_are_saved_and_read_back(tmp_path: Path, suffix: str) -> None:
    columns = flat({"label": np.array(["yes", "no"], object), "probability": np.array([[0.25, 0.75], [0.5, 0.5]])})
    assert list(columns) == ["label", "probability_0", "probability_1"]
    path = tmp_path / f"answers{suffix}"
    save(columns, path)
    back = read(path)[0].columns
    assert back["label"][:, 0].tolist() == ["yes", "no"] and back["probability_1"][:, 0].tolist() == [0.75, 0.5]
    assert list(tmp_path.iterdir()) == [path]


def test_the_admin_key_is_shown_to_ones_own_data_plane_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELYARD_KEY", raising=False)
    settings = Settings(home=tmp_path)
    key = admin_key(settings).key
    here = ServeState(pid=1, host="127.0.0.1", port=1, slots=(), started_at="")
    everywhere = msgspec.structs.replace(here, host="0.0.0.0")
    assert _key(settings, everywhere) == key
    assert _key(settings, here) is None, "none is wanted on loopback"
    assert _key(settings, None) is None, "never to a URL that somebody named"
    assert _key(msgspec.structs.replace(settings, keys_file="x"), everywhere) is None, "other keys open that one"
    monkeypatch.setenv("MODELYARD_KEY", "my_given")
    assert _key(settings, None) == _key(settings, everywhere) == "my_given"
