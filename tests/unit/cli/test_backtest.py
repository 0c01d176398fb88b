"""How a backtest looks on a terminal."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from modelyard.cli import backtest, main
from modelyard.monitor.backtest import Firing, Report, Seen, Smallest
from serving import Home

REPORT = Report(
    rows=3000,
    labels=0,
    came=(Firing(rule="quality:age", rows=2200, is_page=True, evidence="[bold] age is gone"),),
    quiet_rows=6000,
    quiet=(),
    seen=(
        Seen(kind="mean", size=0.5, said="mean 0.5 sd", runs=3, paged=3, reported=3, feature="age", page_rows=1200, report_rows=400),
        Seen(kind="mean", size=0.25, said="mean 0.25 sd", runs=3, paged=1, reported=2, feature="age", page_rows=4000, report_rows=1400),
        Seen(kind="mean", size=1.0, said="mean 1 sd growing", runs=3, paged=3, reported=3, feature="age", page_rows=1800, report_rows=900),
        Seen(kind="labels", size=0.5, said="labels 50%", runs=3, paged=0, reported=0),
    ),
    smallest=(Smallest(kind="mean", feature="age", paged=0.5, reported=0.25), Smallest(kind="labels")),
)


def table(path: Path, count: int) -> Path:
    rng = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "truth", "other"])
        writer.writerows([rng.random(), int(rng.integers(0, 10)), rng.random(), rng.random(), "x"] for _ in range(count))
    return path


def test_what_was_seen_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    backtest.show("shop", REPORT)
    out = capsys.readouterr().out
    for said in (
        "3,000 rows as they came, no labels", "PAGE", "quality:age", "[bold] age is gone", "2,200", "6,000 rows",
        "0 false pages, 0 false reports", "0.5 sd", "1,200", "0.25 sd", "1,400", "the labels", "mean 1 sd growing is paged after 1,800 rows",
    ):  # fmt: skip
        assert said in out, said


def test_rows_of_a_file_are_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Home(tmp_path / "home").add("line")
    data = table(tmp_path / "rows.csv", 400)
    given = ["monitor", "backtest", "line", "--data", str(data), "--label", "truth", "--features", "1", "--runs", "1", "--rows", "400"]
    assert main([*given, "--home", str(tmp_path / "home"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == found["labels"] == 400
    assert {each["kind"] for each in found["smallest"]} >= {"mean", "unit", "labels"}


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--label", "truth"], "--data"), ([], "nothing that"), (["--data", "few.csv"], "200 rows"), (["--data", "gone.csv"], "gone.csv")],
)
def test_what_cannot_be_replayed_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Home(tmp_path / "home").add("line")
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "few.csv", 20)
    assert main(["monitor", "backtest", "line", *options, "--home", str(tmp_path / "home")]) != 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in last
