"""registry.copies: a copy is of one moment and checked, and going back to one leaves the old database, none, or the copy."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from modelyard.errors import Conflict, ModelyardError, NotFound, Tampered
from modelyard.registry import copies
from modelyard.registry.records import SqliteRecords

OLD = Path(__file__).parents[2] / "golden" / "homes" / "0.1.0" / "registry.sqlite"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "registry.sqlite"
    path.parent.mkdir()
    with closing(SqliteRecords(path)) as store:
        store.put("m", "a", {"n": 1}, expected=0)
    return path


def number(path: Path) -> int:
    with closing(SqliteRecords(path, is_checked=True)) as store:
        found = store.get("m", "a")
        assert found is not None
        return int(found.body["n"])


def test_a_copy_is_taken_while_others_write(database: Path, tmp_path: Path) -> None:
    """Each transaction keeps two records alike: so are they in every copy."""
    stop = threading.Event()
    with closing(SqliteRecords(database)) as store:

        def write() -> None:
            count = 1
            while not stop.is_set():
                count += 1
                with store.transaction() as records:
                    records.put("m", "a", {"n": count}, expected=None)
                    records.put("m", "b", {"n": count}, expected=None)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for turn in range(5):
                assert copies.backup(database, tmp_path / f"copy-{turn}") == (tmp_path / f"copy-{turn}").stat().st_size
        finally:
            stop.set()
            writer.join()
    for turn in range(5):
        with closing(SqliteRecords(tmp_path / f"copy-{turn}", is_checked=True)) as copy:
            one, other = copy.get("m", "a"), copy.get("m", "b")
            assert one is not None and (other is None or one.body == other.body)
    assert stat.S_IMODE((tmp_path / "copy-0").stat().st_mode) == 0o600


def test_a_copy_replaces_nothing_and_is_of_something(database: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(Conflict):
        copies.backup(database, tmp_path / "there")
    with pytest.raises(NotFound):
        copies.backup(tmp_path / "none.sqlite", tmp_path / "copy")
    with pytest.raises(ModelyardError):
        copies.backup(database, tmp_path / "no-such-folder" / "copy")
    assert (tmp_path / "there").read_bytes() == b"mine" and sorted(os.listdir(tmp_path)) == ["home", "there"]


def test_going_back_keeps_what_was_there(database: Path, tmp_path: Path) -> None:
    copies.backup(database, tmp_path / "copy")
    with closing(SqliteRecords(database)) as store:
        for count in range(2, 30):
            store.put("m", "a", {"n": count}, expected=None)
    kept = copies.restore(database, tmp_path / "copy")
    assert number(database) == 1, "the mark of what was there says nothing of the copy"
    assert kept is not None and number(kept) == 29
    assert not list(database.parent.glob(".*"))


@pytest.mark.parametrize("damage", ["header", "page", "log", "gone"])
def test_a_damaged_database_is_replaced(database: Path, tmp_path: Path, damage: str) -> None:
    copies.backup(database, tmp_path / "copy")
    if damage == "gone":
        database.unlink()
    elif damage == "log":
        database.with_name(database.name + "-wal").write_bytes(b"\xff" * 8192)
    else:
        data = bytearray(database.read_bytes())
        at = 0 if damage == "header" else len(data) - 4096
        data[at : at + 100] = b"\xff" * 100
        database.write_bytes(data)
    copies.restore(database, tmp_path / "copy")
    assert number(database) == 1


def test_what_is_no_whole_copy_changes_nothing(database: Path, tmp_path: Path) -> None:
    copies.backup(database, tmp_path / "copy")
    (tmp_path / "copy").write_bytes((tmp_path / "copy").read_bytes()[:-4096])
    (tmp_path / "text").write_text("hello")
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE t (a)")
    before = database.read_bytes()
    for name in ("copy", "text", "other"):
        with pytest.raises(Tampered):
            copies.restore(database, tmp_path / name)
    with pytest.raises(ModelyardError):
        copies.restore(database, tmp_path / "none")
    assert database.read_bytes() == before and sorted(os.listdir(database.parent)) == ["registry.sqlite", "registry.sqlite-mark"]


def test_a_copy_of_an_older_release_is_migrated(database: Path, tmp_path: Path) -> None:
    old = Path(shutil.copy(OLD, tmp_path / "old"))
    before = old.read_bytes()
    copies.restore(database, old)
    with closing(SqliteRecords(database, is_checked=True)) as store:
        assert store.get("version", "diabetes:000000001") is not None and list(store.lines()) == []
    assert old.read_bytes() == before


def test_a_damaged_database_is_not_copied(database: Path, tmp_path: Path) -> None:
    data = bytearray(database.read_bytes())
    data[-4096:] = b"\xff" * 4096
    database.write_bytes(data)
    with pytest.raises(Tampered):
        copies.backup(database, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
