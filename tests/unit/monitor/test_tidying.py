from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.errors import StorageFull
from modelyard.events import Rows
from modelyard.monitor import tidying
from modelyard.monitor.log import PredictionLog
from modelyard.monitor.windows import Staged
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)
AT = 1_700_006_400.0  # 2023-11-15 00:00
BEFORE = date(2023, 11, 17)


def write(
    log: PredictionLog, number: int, *, day: str = "2023-11-15", version: int = 1, values: object = None, name: str = "m", groups: bytes = b""
) -> None:
    column = events.column("prediction", np.array([float(number)]) if values is None else np.asarray(values))
    rows = Rows(share=1.0, ids=(f"p{number}",), times=np.array([AT + number]).astype("<f8").tobytes(), columns=(column,), groups=groups)
    log.write(Staged(kind="predictions", name=name, day=day, version=version, digest=DIGEST, form="", first=number, last=number, pieces=(rows,)))


def ids(log: PredictionLog) -> list[str]:
    return [str(each) for each in log.rows("predictions", "m").ids]


def tidied(log: PredictionLog) -> int:
    turns = 0
    while log.tidy(before=BEFORE):
        turns += 1
    return turns


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    made = PredictionLog(tmp_path)
    for number in range(40):
        write(made, number, version=1 + number % 2)
    return made


def test_many_small_files_of_a_day_become_one_of_each_version(log: PredictionLog, tmp_path: Path) -> None:
    before = ids(log)
    assert len(log.files("predictions", "m")) == 40 and tidied(log) == 2
    assert len(log.files("predictions", "m")) == 2 and ids(log) == before == [f"p{number}" for number in range(40)]
    assert log.rows("predictions", "m", version=2).ids.tolist() == [f"p{number}" for number in range(1, 40, 2)]
    assert not list(tmp_path.rglob(".*"))


def test_files_with_the_groups_of_callers_stay_by_themselves(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    for number in range(40):
        write(log, number, groups=bytes([number]) if number % 2 else b"")
    tidied(log)
    assert sorted(path.name.partition(".")[2] for path in log.files("predictions", "m")) == ["callers.parquet", "parquet"]
    found = {key: match[-1] for key, match in log.find("m", [f"p{number}" for number in range(40)])}
    assert found == {f"p{number}": number if number % 2 else None for number in range(40)}


def test_days_that_are_not_over_and_a_few_files_stay(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    for number in range(20):
        write(log, number, day="2023-11-17")
    for number in range(tidying.FEW):
        write(log, number, day="2023-11-15", version=7)
    (tmp_path / "predictions" / "m" / "notes").mkdir()
    assert tidied(log) == 0 and len(log.files("predictions", "m")) == 20 + tidying.FEW


def test_large_files_stay_and_what_is_made_stays_within_bounds(log: PredictionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    size = log.files("predictions", "m")[0].stat().st_size
    monkeypatch.setattr(tidying, "MOST_BYTES", 5 * size)
    monkeypatch.setattr(tidying, "LARGE_BYTES", size + 100)
    before = ids(log)
    assert tidied(log) > 2 and ids(log) == before
    monkeypatch.setattr(tidying, "LARGE_BYTES", 1)
    left = len(log.files("predictions", "m"))
    assert tidied(log) == 0 and len(log.files("predictions", "m")) == left


def test_more_that_comes_late_is_put_to_it(log: PredictionLog) -> None:
    tidied(log)
    for number in range(100, 120):
        write(log, number)
    assert tidied(log) == 1 and len(log.files("predictions", "m")) == 2 and len(ids(log)) == 60


@pytest.mark.parametrize("moment", ["note", "rename", "first part", "last part"])
def test_whenever_it_ends_nothing_is_lost_and_nothing_shown_twice(log: PredictionLog, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids(log)
    unlinked = 0

    def ends(of: Callable[..., object], *, after: int = 0) -> Callable[..., object]:
        def end(*given: object, **more: object) -> object:
            nonlocal unlinked
            if unlinked >= after:
                raise KeyboardInterrupt
            unlinked += 1
            return of(*given, **more)

        return end

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "note":
            patch.setattr(tidying, "write_atomically", ends(tidying.write_atomically))
        elif moment == "rename":
            patch.setattr(Path, "replace", ends(Path.replace))
        else:
            patch.setattr(Path, "unlink", ends(Path.unlink, after=0 if moment == "first part" else 19))
        log.tidy(before=BEFORE)
    assert ids(log) == before
    assert tidied(log) >= 1 and ids(log) == before and len(log.files("predictions", "m")) == 2


def test_files_whose_columns_do_not_fit_stay_and_hold_up_no_others(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    for number in range(20):
        write(log, number, values=[float(number)] if number % 2 else [[float(number), 1.0]])
        write(log, 100 + number, day="2023-11-16")
    assert tidied(log) == 1
    assert len(log.files("predictions", "m")) == 21 and not list(tmp_path.rglob(".*"))


def test_a_full_disk_leaves_all_as_it_was(log: PredictionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids(log)

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch, pytest.raises(StorageFull):
        patch.setattr(tidying, "_sync", full)
        log.tidy(before=BEFORE)
    assert ids(log) == before and not list(tmp_path.rglob(".*"))


def test_a_note_that_names_files_elsewhere_reaches_none(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log")
    write(log, 1)
    folder = tmp_path / "log" / "predictions" / "m" / "2023-11-15"
    other = tmp_path / "other.parquet"
    other.write_bytes(b"x")
    (folder / tidying.NOTE).write_bytes(msgspec.json.encode({"into": "1-1.parquet", "of": ["../../../../other.parquet", str(other), "1-1.parquet"]}))
    tidying.finish(folder)
    assert other.exists() and ids(log) == ["p1"] and not (folder / tidying.NOTE).exists()
    (folder / tidying.NOTE).write_bytes(b"{")
    assert ids(log) == ["p1"]
