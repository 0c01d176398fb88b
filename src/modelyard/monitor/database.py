"""One SQLite file of the monitor's: how it is made, opened and written, and what its failures mean.

Hides SQLite's errors and locks, and that threads of this process write in the order in which they ask (`monitor.turns`). It must not know a table.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.errors import Misconfigured, ModelyardError, StorageFull, Tampered, Unavailable
from modelyard.files import translate
from modelyard.monitor import turns

TIMEOUT_S = 15.0
"""How long whoever wants to write waits for others."""


class Database:
    """The file. One thread owns an instance; any number of instances, in any processes, may be open at once.

    Raises, when opened and later: StorageFull (saying what to do by `when_full`), InvalidConfig (not writable), Unavailable (locked), Tampered
    (damaged).
    """

    def __init__(self, path: Path, *, when_full: str) -> None:
        self._path = path
        self._when_full = when_full
        self._turns = turns.of(path)
        try:
            # SQLite would make it readable by all. One that is there is not touched: to close any descriptor of it takes this process's locks away.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise translate(error, path) from error
        with self._translated():
            self._connection = sqlite3.connect(path, timeout=TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turns.taken(timeout_s=TIMEOUT_S) as is_mine:
            if not is_mine:
                raise Unavailable(f"{self._path.name} is not available now")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> ModelyardError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return StorageFull(f"no space left for {self._path.name}; {self._when_full}")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return Misconfigured(f"{self._path.name} cannot be written")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return Tampered(f"{self._path.name} is damaged; move it away to begin a new one")
        return Unavailable(f"{self._path.name} is not available now")
