"""Records in SQLite: one file in the home, in write-ahead mode, every commit on disk before it returns.

Hides SQL and SQLite's errors. It must not know what a record means, and it never makes an empty database where a damaged or newer one lies.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from modelyard.errors import Misconfigured, ModelyardError, StorageFull, Tampered, Unavailable
from modelyard.files import sync_folder, translate
from modelyard.registry import formats
from modelyard.registry.base import Record, Stamp
from modelyard.registry.mark import Mark, Point
from modelyard.registry.verbs import Rows, Run, Verbs
from modelyard.security.base import AuditLine

APPLICATION_ID = 0x4D59_5244  # "MYRD": `file` and others can tell it from any other database
BUSY_TIMEOUT_S = 2.5  # for writers in other processes
LEFTOVER_S = 60.0  # nobody takes so long to make a database
NOT_SYNCED = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)
TURN_TIMEOUT_S = 2.0  # for threads of this one; together they stay within the 5 s of the port

CHECK_LIMIT_BYTES, QUICK_LIMIT_BYTES = 128 << 20, 2 << 20
"""What a process that stays and a quick verb read for damage: 0.2 s and 3 ms. The pages of a larger database are met when they are used."""

_TABLES = """
CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE counter (revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
CREATE TABLE audit (sequence INTEGER PRIMARY KEY, line TEXT NOT NULL);
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO alembic_version VALUES ('0002');
"""
"""The newest format, for a home that begins: the same as all migrations make, without loading Alembic (a test compares them)."""


class SqliteRecords:
    """A RecordStore in one SQLite file, shared by threads and processes. One connection writes and one reads, each used by one thread at a time.

    A home of an older release is migrated when it is opened. Raises then: UnsupportedFormat (a newer release wrote it), Tampered (damaged),
    InvalidConfig (not writable), StorageFull, Unavailable (locked). After a commit that could not be synced it only reads, until it is opened again.

    With `is_checked` all of a database of the usual size is read, so that damage is met now and not by the first who needs that page.
    """

    def __init__(self, path: Path, *, is_checked: bool = False) -> None:
        self._path = path
        self._mark = Mark(path.with_name(f"{path.name}-mark"))
        if not path.exists():
            _create(path)
        _remove_leftovers(path)
        _check(path, self._mark, CHECK_LIMIT_BYTES if is_checked else QUICK_LIMIT_BYTES)
        self._writer = _Turns(_open(path))
        self._reader = _Turns(_connect(path))
        self._is_doubtful = False

    def get(self, kind: str, key: str) -> Record | None:
        """See `registry.base.Records`."""
        with self._reading() as verbs:
            return verbs.get(kind, key)

    def list(self, kind: str, *, prefix: str = "") -> tuple[Record, ...]:
        """See `registry.base.Records`."""
        with self._reading() as verbs:
            return verbs.list(kind, prefix=prefix)

    def stamp(self, kind: str) -> Stamp:
        """See `registry.base.Records`."""
        with self._reading() as verbs:
            return verbs.stamp(kind)

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        """See `registry.base.Records`. Raises Conflict, StorageFull or Unavailable."""
        with self.transaction() as verbs:
            return verbs.put(kind, key, body, expected=expected)

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        """See `registry.base.Records`. Raises Conflict, StorageFull or Unavailable."""
        with self.transaction() as verbs:
            verbs.delete(kind, key, expected=expected)

    def append(self, make: AuditLine) -> None:
        """See `security.base.AuditStore`."""
        with self.transaction() as verbs:
            verbs.append(make)

    def lines(self) -> Iterator[bytes]:
        """See `security.base.AuditStore`."""
        return Verbs(self._read).lines()

    @contextmanager
    def transaction(self) -> Iterator[Verbs]:
        """See `registry.base.RecordStore`. Writers queue for a few seconds."""
        with translated(self._path), self._writer.taken() as connection:
            if self._is_doubtful:
                raise Unavailable("registry.sqlite could not be synced, so nothing is changed; look at the disk, then start this process again")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Verbs(_rows(connection))
                point = _point(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                # What the system failed to sync it forgets, and says of the next sync that all is well.
                self._is_doubtful = getattr(error, "sqlite_errorcode", 0) in NOT_SYNCED
                # A full disk may have rolled it back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self._mark.write(point)

    def close(self) -> None:
        """Let go of the file."""
        for connection in (self._reader, self._writer):
            connection.close()

    @contextmanager
    def _reading(self) -> Iterator[Verbs]:
        with translated(self._path), self._reader.taken() as connection:
            yield Verbs(_rows(connection))

    def _read(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        with translated(self._path), self._reader.taken() as connection:
            return connection.execute(statement, parameters).fetchall()


class _Turns:
    """A connection and whose turn it is."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[sqlite3.Connection]:
        """The connection, alone. Raises Unavailable when the others do not end."""
        if not self._lock.acquire(timeout=TURN_TIMEOUT_S):
            raise Unavailable("others have been writing to registry.sqlite all the time; try again")
        try:
            yield self._connection
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection when whoever has it is done."""
        with self._lock:
            self._connection.close()


def _open(path: Path) -> sqlite3.Connection:
    """A connection to a database that was found whole and of the newest format."""
    with translated(path):
        connection = _connect(path)
    try:
        with translated(path):
            if _format(_rows(connection)) < formats.NEWEST:
                _migrate(path)
            _check_tables(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
    except ModelyardError:
        connection.close()
        raise
    return connection


def _rows(connection: sqlite3.Connection) -> Run:
    return lambda statement, parameters=(): connection.execute(statement, parameters).fetchall()


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    # "rw": SQLite may not create the file; `_create` does, whole or not at all.
    uri = f"file:{_quoted(path)}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _create(path: Path) -> None:
    """Make the database beside its place and link it there, so that no process ever sees a half-made one and the first of several wins."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with translated(path):
            connection = _connect(beside)
            try:
                connection.executescript(
                    f"PRAGMA synchronous=FULL; BEGIN; {_TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={formats.NEWEST}; COMMIT;"
                )
            finally:
                connection.close()
        os.link(beside, path)
        sync_folder(path.parent)
    except FileExistsError:
        pass
    except OSError as error:
        raise translate(error, path) from error
    finally:
        for leftover in (beside, beside.with_name(beside.name + "-journal")):
            leftover.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove the databases that processes which were killed have left half-made."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                leftover.unlink()


def _migrate(path: Path) -> None:
    """Bring the database to the newest format. Raises sqlite3's errors."""
    from sqlalchemy.exc import DBAPIError

    dialect = formats.Dialect("sqlite://", begin="BEGIN IMMEDIATE", found=_format, after=(f"PRAGMA user_version={formats.NEWEST}",))
    try:
        formats.migrate(dialect, lambda: _connect(path))
    except DBAPIError as error:
        raise error.orig or error from error


def _format(run: Run) -> int:
    """The format of the database. Raises Tampered when it is none of ours, UnsupportedFormat for a newer one."""
    if run("PRAGMA application_id")[0][0] != APPLICATION_ID:
        raise _damaged("it is not a registry of modelyard")
    version: int = run("PRAGMA user_version")[0][0]
    if version > formats.NEWEST:
        raise formats.newer(version)
    if version < 1:
        raise _damaged("its format has no number")
    return version


def _check_tables(connection: sqlite3.Connection) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not {"record", "counter", "audit"} <= tables:
        raise _damaged("its tables are not those of its format")


def _check(path: Path, mark: Mark, limit_bytes: int) -> None:
    """Look for damage, and change nothing: a connection that may write would tidy the log away as it closes. Raises Tampered."""
    told = mark.read()  # before the database: what others commit meanwhile is no damage
    _roll_back(path)
    with translated(path), closing(_connect(path, mode="ro")) as connection:
        _format(_rows(connection))
        pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        if pages * size <= limit_bytes and connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise _damaged("its pages do not fit together")
        if told is not None:
            here = _point(connection)
            if here.revision < told.revision or here.sequence < told.sequence:
                raise _damaged("its last writes are missing: the end of its -wal file was damaged or taken away")


def _roll_back(path: Path) -> None:
    """Let SQLite undo what a loss of power cut short before the database had its write-ahead log: a connection that only reads may not."""
    if path.with_name(f"{path.name}-journal").exists():
        with translated(path), closing(_connect(path)) as connection:
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()


def _point(connection: sqlite3.Connection) -> Point:
    revision, sequence = connection.execute("SELECT (SELECT revision FROM counter), coalesce((SELECT max(sequence) FROM audit), 0)").fetchone()
    return Point(revision, sequence)


def _damaged(why: str) -> Tampered:
    return Tampered(f"registry.sqlite is damaged ({why}); nothing was changed. Go back to a copy: modelyard down, then modelyard restore FILE")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns sqlite3's errors about `path` into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def _translate(error: sqlite3.Error, path: Path) -> ModelyardError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull("no space left for registry.sqlite; nothing was recorded. Free some space and try again")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _damaged("SQLite cannot read it")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable("registry.sqlite is locked by another process; try again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return Misconfigured(f"{path} cannot be written; set MODELYARD_HOME to a folder that can")
    if code == sqlite3.SQLITE_CANTOPEN:
        return Unavailable("registry.sqlite cannot be opened now; try again")
    return Unavailable(f"registry.sqlite: {error}")
