from __future__ import annotations

import resource
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.errors import InvalidInput, StorageFull, Unavailable
from modelyard.events import Column, Rows
from modelyard.monitor.log import PredictionLog, day_of, oldest_kept
from modelyard.monitor.windows import Staged
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)


def piece(ids: list[str], columns: dict[str, np.ndarray], *, at: float = 1_700_000_000.25, share: float = 1.0) -> Rows:
    named = tuple(events.column(name, values) for name, values in columns.items())
    return Rows(share=share, ids=tuple(ids), times=np.full(len(ids), at).astype("<f8").tobytes(), columns=named)


def group(*pieces: Rows, first: int = 1, name: str = "m") -> Staged:
    return Staged(kind="predictions", name=name, day="2023-11-14", version=3, digest=DIGEST, form="", first=first, last=first, pieces=pieces)


def rows(paths: list[Path]) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        return connection.execute("select * from read_parquet(?)", [[str(path) for path in paths]]).fetchall()


def test_rows_come_back_from_parquet(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "l'og")
    first = piece(["a", "b"], {"label": np.array(["x", None], dtype=object), "probability": np.array([[0.25, 0.75], [1, 0]], dtype=np.float32)})
    second = piece(["c"], {"label": np.array([None], dtype=object), "probability": np.array([[0.5, 0.5]], dtype=np.float32)}, share=0.5)
    path = log.write(group(first, second))
    assert path.relative_to(tmp_path / "l'og").as_posix() == "predictions/m/2023-11-14/3-1.parquet"
    when = datetime.fromtimestamp(1_700_000_000.25, UTC).replace(tzinfo=None)
    assert rows(log.files("predictions", "m")) == [
        ("a", when, 3, DIGEST, 1.0, "x", [0.25, 0.75]),
        ("b", when, 3, DIGEST, 1.0, None, [1.0, 0.0]),
        ("c", when, 3, DIGEST, 0.5, None, [0.5, 0.5]),
    ]


def test_a_new_waiting_room_replaces_no_file_of_the_old_one(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    for origin in ("", "0000000a", "0000000b", "0000000b"):
        log.write(msgspec.structs.replace(group(piece(["a"], {"x": np.zeros(1)})), origin=origin))
    assert len(log.files("predictions", "m")) == 3


def test_every_kind_of_column_is_written(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    columns = {
        "version": np.array([7]),
        "Version": np.array([8], dtype=np.uint8),
        'quo"te; drop': np.array([True]),
        "half": np.array([0.5], dtype=np.float16),
        "none": np.array([None], dtype=object),
        "texts": np.array([["a", None]], dtype=object),
        "image": np.zeros((1, 40, 40), dtype=np.float32),
        "nan": np.array([np.nan]),
    }
    log.write(group(piece(["a"], columns)))
    with duckdb.connect() as connection:
        found = connection.execute("select * from read_parquet(?)", [str(log.files("predictions", "m")[0])])
        names = [item[0] for item in found.description]
        values = dict(zip(names, found.fetchall()[0], strict=True))
    assert names[5:8] == ["version_", "Version__", 'quo"te; drop']
    assert (values["version"], values["version_"], values["Version__"], values['quo"te; drop']) == (3, 7, 8, True)
    assert (values["half"], values["none"], values["texts"]) == (0.5, None, ["a", None])
    assert values["image"] == b"\0" * 6400


def test_writing_again_replaces_and_other_rows_lie_beside(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.write(group(piece(["a"], {"y": np.zeros(1)})))
    log.write(group(piece(["a"], {"y": np.zeros(1)}), piece(["b"], {"y": np.ones(1)})))
    log.write(group(piece(["c"], {"y": np.ones(1)}), first=9))
    assert [row[0] for row in rows(log.files("predictions", "m"))] == ["a", "b", "c"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    with pytest.raises(InvalidInput):
        log.write(group(piece(["a"], {"y": np.zeros(1)}), piece(["b"], {"other": np.zeros(1)})))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("widths", [(0,), (1, 2)])
def test_rows_of_no_one_shape_cannot_be_written_and_stand_in_nobodys_way(tmp_path: Path, widths: tuple[int, ...]) -> None:
    odd = Column(name="y", datatype="FP64", shape=(-1,), values=b"")
    pieces = [msgspec.structs.replace(piece(["a"], {}), columns=(msgspec.structs.replace(odd, values=bytes(8 * width)),)) for width in widths]
    if widths == (0,):
        pieces = [Rows(share=1.0, ids=(), times=b"", columns=(msgspec.structs.replace(odd, shape=(2,)),))]
    with pytest.raises(InvalidInput):
        PredictionLog(tmp_path).write(group(*pieces))


def test_on_a_full_disk_nothing_half_written_is_left(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    whole = group(piece([f"id-{number}" for number in range(5000)], {"y": np.random.default_rng(0).random(5000)}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a file may not grow: to the writer, the disk is full
    try:
        with pytest.raises(StorageFull):
            log.write(whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    log.write(whole)
    assert len(rows(log.files("predictions", "m"))) == 5000


def test_old_days_are_forgotten(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.write(group(piece(["a"], {"y": np.zeros(1)})))
    (tmp_path / "predictions" / "m" / "notes").mkdir()
    log.forget(before=date(2023, 11, 14))
    assert len(log.files("predictions", "m")) == 1
    log.forget(before=date(2023, 11, 15))
    assert log.files("predictions", "m") == []
    assert (tmp_path / "predictions" / "m" / "notes").is_dir()
    assert day_of(1_700_000_000) == "2023-11-14"
    assert oldest_kept(1_700_000_000, 14) == date(2023, 10, 31)


# -- reading rows ----------------------------------------------------------------------------------------------------------------------------

DAY = 1_700_006_400.0  # 2023-11-15 00:00


def filled(folder: Path) -> PredictionLog:
    """Three days, a row every six hours, of two versions; inputs of every second one."""
    log = PredictionLog(folder)
    for number in range(12):
        at = DAY + number * 21_600
        columns = {"label": np.array(["x", None, "y"], dtype=object)[[number % 3]], "probability": np.array([[0.25, 0.75]])}
        staged = msgspec.structs.replace(group(piece([f"p{number}"], columns, at=at), first=number), day=day_of(at), version=1 + number // 6)
        log.write(staged)
        if number % 2 == 0:
            inputs = {"a": np.array([float(number)]), "label": np.array([number])}
            log.write(msgspec.structs.replace(staged, kind="inputs", pieces=(piece([f"p{number}"], inputs, at=at),)))
    return log


def test_rows_are_read_by_span_version_and_id(tmp_path: Path) -> None:
    log = filled(tmp_path)
    assert log.rows("predictions", "m").ids.tolist() == [f"p{number}" for number in range(12)], "oldest first"
    found = log.rows("predictions", "m", since=DAY + 21_600, until=DAY + 86_400)
    assert found.ids.tolist() == ["p1", "p2", "p3"] and found.times.tolist() == [DAY + 21_600 * number for number in (1, 2, 3)]
    assert (found.versions.tolist(), set(found.digests), found.shares.tolist()) == ([1] * 3, {DIGEST}, [1.0] * 3)
    assert found.columns["label"].tolist() == [None, "y", "x"] and found.columns["probability"].shape == (3, 2)
    assert log.rows("predictions", "m", version=2).ids.tolist() == [f"p{number}" for number in range(6, 12)]
    assert log.rows("predictions", "m", ids=["p3", "p9", "p3", "none"]).ids.tolist() == ["p3", "p9"]
    assert log.rows("predictions", "m", ids=[]).ids.tolist() == []
    assert log.rows("predictions", "m", limit=2).ids.tolist() == ["p0", "p1"]


def test_only_the_files_of_the_days_asked_for_are_read(tmp_path: Path) -> None:
    log = filled(tmp_path)
    for path in log.files("predictions", "m"):
        if path.parent.name < "2023-11-17":
            path.write_bytes(b"damaged")
    assert log.rows("predictions", "m", since=DAY + 2 * 86_400).ids.tolist() == [f"p{number}" for number in range(8, 12)]
    with pytest.raises(Unavailable):
        log.rows("predictions", "m", since=DAY)


def test_inputs_are_read_beside_their_answers(tmp_path: Path) -> None:
    asked, answered = filled(tmp_path).matched("m", since=DAY + 43_200, version=1)
    assert asked.ids.tolist() == answered.ids.tolist() == ["p2", "p4"]
    assert asked.columns["a"].tolist() == [2.0, 4.0] and asked.columns["label"].tolist() == [2, 4]
    assert answered.columns["label"].tolist() == ["y", None]


def test_where_there_is_nothing_there_are_no_rows(tmp_path: Path) -> None:
    log = filled(tmp_path)
    for nothing in (
        log.rows("inputs", "other"),
        log.rows("predictions", "m", since=DAY + 9e9),
        log.rows("predictions", "m", until=0),
        *log.matched("other"),
    ):
        assert len(nothing.ids) == len(nothing.times) == 0


def test_missing_numbers_are_nan_and_uneven_lists_stay_what_they_are(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.write(group(piece(["a"], {"x": np.array([1]), "flag": np.array([True])}), first=1))
    log.write(group(piece(["b"], {"list": np.array([[1.0, 2.0]])}), first=2))
    log.write(group(piece(["c"], {"list": np.array([[1.0, 2.0, 3.0]])}), first=3))
    columns = log.rows("predictions", "m").columns
    assert columns["x"][0] == 1.0 and np.isnan(columns["x"][1:].astype(float)).all()
    assert columns["flag"][0] == 1.0 and columns["list"].dtype == object


def test_the_version_and_digest_are_written_though_they_are_the_same_in_all_rows(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.write(group(piece(["a", "b"], {"x": np.zeros(2)})))
    with duckdb.connect() as connection:
        types = {
            row[0]: row[1] for row in connection.execute("describe select * from read_parquet(?)", [str(log.files("predictions", "m")[0])]).fetchall()
        }
    assert (types["version"], types["digest"]) == ("BIGINT", "VARCHAR")
