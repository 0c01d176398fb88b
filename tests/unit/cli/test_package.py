"""`package` from files: ONNX beside CSV and Parquet; what is refused is refused in one line and leaves nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from modelyard.cli import main
from modelyard.errors import InvalidConfig
from serving import graph


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A linear ONNX model of an array input, and rows for it with their true answers."""
    (tmp_path / "line.onnx").write_bytes(graph("line")[0])
    draw = np.random.default_rng(0).random((80, 3))
    np.save(tmp_path / "rows.npy", draw)
    lines = ["a,b,c,truth", *(f"{a},{b},{c},{a + 10 * b + 100 * c}" for a, b, c in draw)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def booster(files: Path) -> Path:
    """An XGBoost model file over named columns."""
    import pandas as pd
    import xgboost

    rows = pd.read_csv(files / "rows.csv")
    trained = xgboost.XGBRegressor(n_estimators=5, max_depth=3, n_jobs=1).fit(rows[["a", "b", "c"]], rows["truth"])
    trained.get_booster().save_model(files / "model.json")
    return files


def test_a_model_file_becomes_a_version(booster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["package", str(booster / "model.json"), "--name", "line", "--data", str(booster / "rows.csv"), "--label", "truth", "--tag", "c=mask"]
    home = ["--home", str(booster / "home")]
    assert main([*given, *home, "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["reference"] == "line:1" and told["rows"] == 80 and told["quality"]["r2"] > 0.9
    assert all(line.startswith("Packaging line: ") for line in err.splitlines())
    assert main(["inspect", "line", *home, "--json"]) == 0
    specs = {spec["name"]: spec for spec in json.loads(capsys.readouterr().out)["schema"]["inputs"]}
    assert list(specs) == ["a", "b", "c"] and specs["c"]["tag"] == "mask"
    assert main([*given, *home]) == 0
    assert "line:1" in capsys.readouterr().out


def test_held_out_data_is_given_with_the_same_label_column(booster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["package", str(booster / "model.json"), "--name", "line", "--data", str(booster / "rows.csv"), "--home", str(booster / "home")]
    assert main([*given, "--label", "truth", "--evaluation", str(booster / "rows.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluated_rows"] == 80
    assert main(["inspect", "line", "--home", str(booster / "home")]) == 0
    assert "held out" in " ".join(capsys.readouterr().out.split())
    assert main([*given, "--evaluation", str(booster / "rows.csv")]) == 2
    assert "needs its labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"--name": "Not A Name"}, 2),
        ({"--data": "nowhere.csv"}, 3),
        ({"--label": "nope"}, 2),
        ({"--tag": "c=blur"}, 2),
        ({"--tag": "c"}, 2),
        ({"--tolerance": "-1"}, 2),
        ({"model": "nowhere.json"}, 3),
        ({"model": "pickled.json"}, 6),
        ({"model": "pickled.joblib"}, 6),
        ({"model": "rows.csv"}, 6),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(
    booster: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], code: int
) -> None:
    monkeypatch.chdir(booster)
    for name in ("pickled.json", "pickled.joblib"):
        (booster / name).write_bytes(pickle.dumps({"a": 1}))
    given = {"--name": "line", "--data": "rows.csv", "--label": "truth", **changed}
    model = given.pop("model", "model.json")
    assert main(["package", model, *(part for pair in given.items() for part in pair), "--home", "home"]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("modelyard: ")]
    assert len(said) == 1 and "Traceback" not in said[0]
    assert code != 6 or "skops" in said[0] or "format" in said[0]
    assert main(["models", "--home", "home", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_tag_is_read_from_its_end() -> None:
    from modelyard.cli.package import _tag

    assert _tag("a=b=mask") == ("a=b", "mask")
    with pytest.raises(InvalidConfig):
        _tag("=mask")
