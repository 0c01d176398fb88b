"""Records in SQLite: one file in the home, in write-ahead mode, every commit on disk before it returns.

Hides SQL and SQLite's errors. It must not know what a record means, and it never makes an empty database where a damaged or newer one lies.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard.errors import Conflict, InvalidConfig, ModelyardError, NotFound, StorageFull, Tampered, Unavailable, UnsupportedFormat
from modelyard.files import sync_folder, translate
from modelyard.registry.base import Record

SCHEMA_VERSION = 1
APPLICATION_ID = 0x4D59_5244  # "MYRD": `file` and others can tell it from any other database
BUSY_TIMEOUT_S = 15.0
_TABLES = """
CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE counter (revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
"""


class SqliteRecords:
    """A RecordStore in one SQLite file, shared by threads and processes. One connection, used by one thread at a time.

    Raises, when opened: UnsupportedFormat (a newer release wrote it), Tampered (damaged), InvalidConfig (not writable), StorageFull.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        if not path.exists():
            _create(path)
        with _translated(path):
            self._connection = _connect(path)
        try:
            with _translated(path):
                _check(self._connection)
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=FULL")
        except ModelyardError:
            self._connection.close()
            raise

    def get(self, kind: str, key: str) -> Record | None:
        """The record, or None."""
        with self._lock, _translated(self._path):
            return _Verbs(self._connection).get(kind, key)

    def list(self, kind: str, *, prefix: str = "") -> tuple[Record, ...]:
        """All records of a kind whose key begins with `prefix`, by key."""
        with self._lock, _translated(self._path):
            return _Verbs(self._connection).list(kind, prefix=prefix)

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        """Write a record; see `registry.base.Records`. Raises Conflict, StorageFull or Unavailable."""
        with self.transaction() as records:
            return records.put(kind, key, body, expected=expected)

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        """Remove a record; see `registry.base.Records`. Raises Conflict, StorageFull or Unavailable."""
        with self.transaction() as records:
            records.delete(kind, key, expected=expected)

    @contextmanager
    def transaction(self) -> Iterator[_Verbs]:
        """Several verbs as one. Writers queue for up to 15 s. Must not be nested. Raises Conflict, StorageFull or Unavailable."""
        with self._lock, _translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield _Verbs(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled it back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()


class _Verbs:
    """The four verbs on a connection, inside whatever transaction it is in."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, kind: str, key: str) -> Record | None:
        row = self._connection.execute("SELECT revision, body FROM record WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else Record(kind, key, row[0], json.loads(row[1]))

    def list(self, kind: str, *, prefix: str = "") -> tuple[Record, ...]:
        query = "SELECT key, revision, body FROM record WHERE kind = ? AND key >= ? AND key < ? ORDER BY key"
        rows = self._connection.execute(query, (kind, prefix, prefix + chr(sys.maxunicode)))
        return tuple(Record(kind, key, revision, json.loads(body)) for key, revision, body in rows)

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        self._expect(kind, key, expected)
        text = json.dumps(body, sort_keys=True, allow_nan=False)
        revision: int = self._connection.execute("UPDATE counter SET revision = revision + 1 RETURNING revision").fetchone()[0]
        self._connection.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", (kind, key, revision, text))
        return Record(kind, key, revision, json.loads(text))

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        self._expect(kind, key, expected)
        self._connection.execute("DELETE FROM record WHERE kind = ? AND key = ?", (kind, key))

    def _expect(self, kind: str, key: str, expected: int | None) -> None:
        if expected is None:
            return
        row = self._connection.execute("SELECT revision FROM record WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        if (row[0] if row else 0) != expected:
            raise Conflict(f"the {kind} {key!r} has changed since it was read; read it again, then decide", field=key, rule="revision")


def _connect(path: Path) -> sqlite3.Connection:
    # "rw": SQLite may not create the file; `_create` does, whole or not at all.
    uri = f"file:{_quoted(path)}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _create(path: Path) -> None:
    """Make the database beside its place and link it there, so that no process ever sees a half-made one and the first of several wins."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with _translated(path):
            connection = _connect(beside)
            try:
                connection.executescript(
                    f"PRAGMA synchronous=FULL; BEGIN; {_TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
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


def _check(connection: sqlite3.Connection) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise _damaged("it is not a registry of modelyard")
    if version > SCHEMA_VERSION:
        raise UnsupportedFormat(f"registry.sqlite has format {version}, made by a newer modelyard; this one reads up to {SCHEMA_VERSION}. Upgrade it")
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if version != SCHEMA_VERSION or not {"record", "counter"} <= tables:
        raise _damaged("its tables are not those of its format")


def _damaged(why: str) -> Tampered:
    return Tampered(f"registry.sqlite is damaged ({why}); nothing was changed. Restore it from a copy, with its -wal file if there is one")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
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
        return Unavailable("registry.sqlite is locked by another process for longer than 15 s; try again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return InvalidConfig(f"{path} cannot be written; set MODELYARD_HOME to a folder that can")
    if code == sqlite3.SQLITE_CANTOPEN:
        return NotFound(f"{path} cannot be opened")
    return Unavailable(f"registry.sqlite: {error}")
