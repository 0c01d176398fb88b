"""registry.records: SQLite's ways to fail, each told clearly and none answered by an empty database."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from modelyard.errors import ModelyardError, Tampered, Unavailable, UnsupportedFormat
from modelyard.registry import formats
from modelyard.registry import records as records_module
from modelyard.registry.records import SqliteRecords


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one record, closed."""
    store = SqliteRecords(tmp_path / "registry.sqlite")
    store.put("m", "a", {"n": 1}, expected=0)
    store.close()
    return tmp_path / "registry.sqlite"


def test_every_commit_is_on_disk_before_it_returns(path: Path) -> None:
    store = SqliteRecords(path)
    modes = [store._writer._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "busy_timeout")]
    store.close()
    assert modes == ["wal", 2, 2_500]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_disk_that_has_not_synced_is_read_and_written_no_more(path: Path) -> None:
    failure = sqlite3.OperationalError("disk I/O error")
    failure.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    with closing(SqliteRecords(path)) as store:
        with pytest.raises(Unavailable), store.transaction():
            raise failure
        with pytest.raises(Unavailable, match="start this process again"):
            store.put("m", "b", {}, expected=0)
        assert store.get("m", "a") is not None and store.get("m", "b") is None
    with closing(SqliteRecords(path)) as store:
        store.put("m", "b", {}, expected=0)


def test_what_a_killed_maker_left_is_removed_and_what_is_being_made_is_not(path: Path) -> None:
    old, new = (path.with_name(f".registry.sqlite.{name}.tmp") for name in ("0a1b2c3d", "4e5f6a7b"))
    for leftover in (old, new):
        leftover.write_bytes(b"x")
    os.utime(old, (1, 1))
    SqliteRecords(path).close()
    assert new.exists() and not old.exists()


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0", b"x" * 8192, None])
def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path, damage: bytes | None) -> None:
    data = path.read_bytes()
    damaged = damage if damage is not None else b"\0" * 100 + data[100:]
    path.write_bytes(damaged)
    with pytest.raises(Tampered, match="modelyard restore"):
        SqliteRecords(path)
    assert path.read_bytes() == damaged
    path.write_bytes(data)
    store = SqliteRecords(path)
    assert store.get("m", "a") is not None
    store.close()


def test_pages_damaged_behind_a_good_header_are_told_when_met(path: Path) -> None:
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA journal_mode=DELETE")
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 3] = b"\xff" * 8192
    path.write_bytes(data)
    with pytest.raises(Tampered), closing(SqliteRecords(path)) as store:
        store.list("m")


def test_another_database_and_a_newer_one_are_refused(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE t (a)")
    with pytest.raises(Tampered):
        SqliteRecords(tmp_path / "other")
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA application_id=1")
    with pytest.raises(Tampered, match="not a registry"):
        SqliteRecords(path)
    with closing(sqlite3.connect(path)) as plain:
        plain.execute(f"PRAGMA application_id={records_module.APPLICATION_ID}")
        plain.execute(f"PRAGMA user_version={formats.NEWEST + 1}")
    with pytest.raises(UnsupportedFormat, match="newer"):
        SqliteRecords(path)
    with closing(sqlite3.connect(path)) as plain:
        plain.execute(f"PRAGMA user_version={formats.NEWEST}")
    SqliteRecords(path).close()


def test_a_path_with_odd_characters_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "a?b#c%20 d"
    folder.mkdir()
    SqliteRecords(folder / "registry.sqlite").close()
    assert os.listdir(folder) == ["registry.sqlite"]


def test_a_write_that_fails_loses_nothing(path: Path) -> None:
    store = SqliteRecords(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        with pytest.raises(Unavailable):
            store.put("m", "b", {"text": "x" * 200_000}, expected=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert [record.key for record in store.list("m")] == ["a"]
    store.put("m", "b", {"text": "x" * 200_000}, expected=0)
    store.close()


def test_a_first_start_that_fails_leaves_no_half_made_database(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(Unavailable):
            SqliteRecords(tmp_path / "registry.sqlite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert os.listdir(tmp_path) == []


def test_a_lock_held_too_long_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "BUSY_TIMEOUT_S", 0.05)
    store = SqliteRecords(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ModelyardError, match="locked") as caught:
            store.put("m", "b", {}, expected=0)
        assert caught.value.retryable
        other.execute("ROLLBACK")
    store.put("m", "b", {}, expected=0)
    store.close()


def damaged_page(path: Path) -> None:
    """Overwrite a page behind the header and the schema."""
    with closing(SqliteRecords(path)) as store:
        for number in range(200):
            store.put("m", f"more-{number}", {"text": "x" * 200}, expected=0)
    data = bytearray(path.read_bytes())
    data[-4096:] = b"\xff" * 4096
    path.write_bytes(data)


def test_a_start_reads_every_page(path: Path) -> None:
    damaged_page(path)
    before = path.read_bytes()
    for is_checked in (True, False):
        with pytest.raises(Tampered, match="modelyard restore"):
            SqliteRecords(path, is_checked=is_checked)
    assert path.read_bytes() == before


def test_a_database_too_large_to_be_read_in_time_is_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged_page(path)
    for is_checked, limit in ((True, "CHECK_LIMIT_BYTES"), (False, "QUICK_LIMIT_BYTES")):
        monkeypatch.setattr(records_module, limit, path.stat().st_size - 1)
        SqliteRecords(path, is_checked=is_checked).close()  # what is not asked for is not met


def wal_of(path: Path) -> bytes:
    """Write more, as a process that was killed: the log beside the database stays. Gives it."""
    code = (
        "import os, sys; from pathlib import Path; from modelyard.registry.records import SqliteRecords\n"
        "store = SqliteRecords(Path(sys.argv[1]))\n"
        "for number in range(5): store.put('m', f'last-{number}', {}, expected=0)\n"
        "store.append(lambda last: b'line')\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return path.with_name(path.name + "-wal").read_bytes()


@pytest.mark.parametrize("damage", [lambda wal: wal[:-4096] + b"\xff" * 4096, lambda wal: wal[:-5000], lambda wal: b"", None])
def test_writes_that_are_missing_from_the_end_are_found_out(path: Path, damage: object) -> None:
    wal = wal_of(path)
    log = path.with_name(path.name + "-wal")
    if damage is None:
        log.unlink()
    else:
        log.write_bytes(damage(wal))  # type: ignore[operator]
    before, left = path.read_bytes(), log.read_bytes() if log.exists() else b""
    for _ in range(2):
        with pytest.raises(Tampered, match="last writes are missing"):
            SqliteRecords(path)
    assert path.read_bytes() == before and (not left or log.read_bytes() == left), "what can still be saved is left as it is"


def test_sqlite_alone_would_take_no_note_of_missing_writes(path: Path) -> None:
    """The control of the test above: without the mark nothing is found."""
    wal = wal_of(path)
    path.with_name(path.name + "-wal").write_bytes(wal[:-4096] + b"\xff" * 4096)
    path.with_name(path.name + "-mark").unlink()
    with closing(SqliteRecords(path, is_checked=True)) as store:
        assert list(store.lines()) == []


def test_a_database_that_was_killed_is_whole(path: Path) -> None:
    wal_of(path)
    with closing(SqliteRecords(path, is_checked=True)) as store:
        assert len(store.list("m", prefix="last-")) == 5 and list(store.lines()) == [b"line"]


def test_a_home_whose_power_went_before_it_had_its_log_is_rolled_back_and_opened(tmp_path: Path) -> None:
    """A hot journal beside the database: a connection that only reads may not undo it, and would call the home not writable."""
    path = tmp_path / "registry.sqlite"
    SqliteRecords(path).close()
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA journal_mode=DELETE')\n"
        "connection.execute('PRAGMA cache_size=1')\n"
        "connection.execute('BEGIN')\n"
        "connection.execute('UPDATE counter SET revision = 99')\n"
        "for n in range(200): connection.execute('INSERT INTO record VALUES (?, ?, 1, ?)', ('m', str(n), 'x' * 2000))\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.with_name("registry.sqlite-journal").exists()
    with closing(SqliteRecords(path)) as store:
        assert store.list("m") == ()
