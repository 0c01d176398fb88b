"""Records in PostgreSQL, shared by the control processes of several hosts.

Hides psycopg, its connections and its errors. Whatever happens to the server or the way to it, a call ends in time: each has limits on the server and
on this side of the wire, and the connection after a failure is a new one. It must not know what a record means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import errors as states

from modelyard.errors import InvalidConfig, InvalidInput, Misconfigured, ModelyardError, StorageFull, Tampered, Unavailable
from modelyard.registry import formats
from modelyard.registry.base import Record, Stamp
from modelyard.registry.verbs import Rows, Run, Verbs
from modelyard.security.base import AuditLine

CONNECTIONS = 8
"""At most so many at once in one process; who finds none free waits for its turn."""

LIMIT_S = 4.5
"""How long a call may take in all; the port promises 5 s."""

CONNECT_LIMIT_S = 2
MARGIN_S = 0.5
"""How much sooner the server gives up than this side, so that it is the one to say why."""

STILL_LIMIT_S = 2.0
"""How long a writer may stand still in its turn (a process that was stopped, a machine that is gone) before the server ends the turn for it: all wait
for it, and a new leader must not, for long."""

PROBE_LIMIT_S = 1.0
REST_S = 0.5
"""After a failure to connect, how long the next calls fail at once instead of each waiting for themselves."""

TRIES = 5
MIGRATION_LIMIT_S = 60.0
_MIGRATING = 0x4D59_5244
_one_migrates = threading.Lock()
"""Several threads of a process may find an old format at once, and Python imports no library whole that two threads enter from two sides."""

T = TypeVar("T")


class PostgresRecords:
    """A RecordStore in the database of `url`. It connects when first asked, migrates an older format then, and connects again after any failure.

    Law: writers of all hosts take turns at one lock, which each takes before its snapshot: a transaction sees all that was committed before it.
    Raises InvalidConfig for a URL that is none; the first call raises UnsupportedFormat for a database that a newer release has migrated.
    """

    def __init__(self, url: str) -> None:
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise InvalidConfig("records_url is no address of a database; write postgresql://USER@HOST/DATABASE", field="records_url") from error
        self._url = url
        self._free: list[_Bounded] = []
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(CONNECTIONS)
        self._fails_until = 0.0
        self._is_closed = False

    def get(self, kind: str, key: str) -> Record | None:
        """See `registry.base.Records`."""
        return self._again(lambda: self._read(lambda verbs: verbs.get(kind, key)))

    def list(self, kind: str, *, prefix: str = "") -> tuple[Record, ...]:
        """See `registry.base.Records`."""
        return self._again(lambda: self._read(lambda verbs: verbs.list(kind, prefix=prefix)))

    def stamp(self, kind: str) -> Stamp:
        """See `registry.base.Records`."""
        return self._again(lambda: self._read(lambda verbs: verbs.stamp(kind)))

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        """See `registry.base.Records`. Raises Conflict, StorageFull or Unavailable."""
        return self._again(lambda: self._write(lambda verbs: verbs.put(kind, key, body, expected=expected)))

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        """See `registry.base.Records`. Raises Conflict, StorageFull or Unavailable."""
        return self._again(lambda: self._write(lambda verbs: verbs.delete(kind, key, expected=expected)))

    def append(self, make: AuditLine) -> None:
        """See `security.base.AuditStore`."""
        return self._again(lambda: self._write(lambda verbs: verbs.append(make)))

    def lines(self) -> Iterator[bytes]:
        """See `security.base.AuditStore`."""

        def run(statement: str, parameters: Sequence[Any] = ()) -> Rows:
            return self._again(lambda: self._one(statement, parameters))

        return Verbs(run).lines()

    @contextmanager
    def transaction(self) -> Iterator[Verbs]:
        """See `registry.base.RecordStore`. A block that PostgreSQL could not put in order with another raises Unavailable and may be run again."""
        with self._taken() as connection:
            self._begin(connection)
            try:
                with _translated():
                    yield Verbs(_rows(connection))
                    connection.execute("COMMIT")
            except BaseException:
                with suppress(psycopg.Error):
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            self._is_closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def _read(self, ask: Callable[[Verbs], T]) -> T:
        with self._taken() as connection, _translated():
            return ask(Verbs(_rows(connection)))

    def _one(self, statement: str, parameters: Sequence[Any]) -> Rows:
        with self._taken() as connection, _translated():
            return _rows(connection)(statement, parameters)

    def _write(self, change: Callable[[Verbs], T]) -> T:
        with self.transaction() as verbs:
            return change(verbs)

    def _again(self, call: Callable[[], T]) -> T:
        """`call`, repeated while PostgreSQL takes it back for another's sake."""
        give_up = time.monotonic() + LIMIT_S
        for left in reversed(range(TRIES)):
            try:
                return call()
            except _Unordered:
                if not left or time.monotonic() > give_up:
                    raise
        raise AssertionError("unreachable")

    def _begin(self, connection: _Bounded) -> None:
        # A lock is taken before a snapshot, a SELECT after it: asked for in any other way, the block would see the world from before its turn.
        left_ms = max(1, int((connection.deadline - time.monotonic() - MARGIN_S) * 1000))
        with _translated():
            connection.execute(f"BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL lock_timeout = {left_ms}; LOCK TABLE counter IN EXCLUSIVE MODE")

    @contextmanager
    def _taken(self) -> Iterator[_Bounded]:
        """A connection that works, alone. Raises Unavailable."""
        deadline = time.monotonic() + LIMIT_S
        if not self._turns.acquire(timeout=LIMIT_S - CONNECT_LIMIT_S):
            raise Unavailable("too many calls wait for the database of this home; try again")
        try:
            connection = self._working(deadline)
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._turns.release()

    def _working(self, deadline: float) -> _Bounded:
        while True:
            with self._lock:
                connection = self._free.pop() if self._free else None
            if connection is None:
                return self._connect(deadline)
            connection.deadline = time.monotonic() + PROBE_LIMIT_S
            try:
                # A server that was started again has closed what waited here; asking costs a tenth of a millisecond.
                connection.execute("SELECT 1")
            except _Silent as error:
                self._fails_until = time.monotonic() + REST_S
                raise _translate(error) from error
            except psycopg.Error:
                connection.close()
                continue
            connection.deadline = deadline
            return connection

    def _give_back(self, connection: _Bounded) -> None:
        is_idle = not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            if is_idle and not self._is_closed:
                self._free.append(connection)
                return
        connection.close()

    def _connect(self, deadline: float) -> _Bounded:
        if time.monotonic() < self._fails_until:
            raise Unavailable("the database of this home cannot be reached; try again")
        try:
            with _translated():
                connection = _Bounded.connect(self._url, autocommit=True, **_options())
        except ModelyardError:
            self._fails_until = time.monotonic() + REST_S
            raise
        connection.deadline = deadline
        try:
            with _translated():
                connection.execute(
                    f"SET statement_timeout = {int((LIMIT_S - MARGIN_S) * 1000)};"
                    f"SET idle_in_transaction_session_timeout = {int(STILL_LIMIT_S * 1000)};"
                    "SET synchronous_commit = on; SET client_encoding = 'UTF8'"
                )
                if _format(_rows(connection)) < formats.NEWEST:
                    with _one_migrates:
                        self._migrate()
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self) -> None:
        from sqlalchemy.exc import DBAPIError

        def connect() -> Any:
            connection = _Bounded.connect(self._url, **_options())
            connection.limit_s = MIGRATION_LIMIT_S
            connection.execute(f"SET lock_timeout = {int((MIGRATION_LIMIT_S - MARGIN_S) * 1000)}")
            connection.commit()
            return connection

        dialect = formats.Dialect("postgresql+psycopg://", begin=f"SELECT pg_advisory_xact_lock({_MIGRATING})", found=_format)
        try:
            formats.migrate(dialect, connect)
        except DBAPIError as error:
            raise error.orig or error from error


class _Bounded(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which nothing is waited for beyond `deadline`, even from a server that has stopped or a network that swallows all."""

    deadline = float("inf")
    limit_s: float | None = None  # LIMIT_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See `psycopg.Connection.wait`. What ends too late ends the connection as well: an answer may still be on its way."""
        left = max(0.1, min(self.deadline - time.monotonic(), LIMIT_S if self.limit_s is None else self.limit_s))
        try:
            return super().wait(gen, interval, timeout=left if timeout is None else min(left, timeout))
        except states._WaitTimeout as error:
            self.close()
            raise _Silent from error


class _Silent(psycopg.OperationalError):
    """The server is there and does not answer."""


class _Unordered(Unavailable):
    """PostgreSQL took a transaction back because it could not put it in order with another."""


def _rows(connection: _Bounded) -> Run:
    def run(statement: str, parameters: Sequence[Any] = ()) -> Rows:
        cursor = connection.execute(statement.replace("?", "%s"), parameters)
        return cursor.fetchall() if cursor.description else []

    return run


def _options() -> dict[str, Any]:
    """What every connection has: limits on what a network may do to it. Prepared statements would outlive the session behind a pool of servers'."""
    return {
        "application_name": "modelyard",
        "connect_timeout": CONNECT_LIMIT_S,
        "tcp_user_timeout": int(LIMIT_S * 1000),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "prepare_threshold": None,
    }


def _format(run: Run) -> int:
    """The format of the tables, 0 for none. Raises UnsupportedFormat."""
    if run("SELECT to_regclass('alembic_version')")[0][0] is None:
        return 0
    stamp = run("SELECT version_num FROM alembic_version")
    return formats.number(stamp[0][0]) if stamp else 0


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error) from error


def _translate(error: psycopg.Error) -> ModelyardError:
    state = error.sqlstate or ""
    if state in ("40001", "40P01"):
        return _Unordered("the database of this home was changed by others at the same moment; try again")
    if state == "53100":
        return StorageFull("the database of this home has no space left; nothing was recorded. Free some space there and try again")
    if state in ("55P03", "57014"):
        return Unavailable("the database of this home is locked by another session, or too slow; try again")
    if state == "25P03":
        return Unavailable("this process stood still in the middle of a change, and the database took it back; try again")
    if state[:2] in ("28", "3D") or state == "42501":
        return Misconfigured(f"the database of records_url refuses this user ({type(error).__name__})", field="records_url")
    if state[:2] == "XX" and state != "XX000":
        return Tampered("the database of this home is damaged; restore it from a copy")
    if state == "42P01":
        return Tampered("the database of this home lacks a table of its format; restore it from a copy")
    if isinstance(error, psycopg.DataError):
        return InvalidInput("the database of this home cannot hold this text", rule="text")
    if state:
        return Unavailable(f"the database of this home failed ({type(error).__name__}); try again")
    said = str(error).rpartition("FATAL:")[2].strip()  # libpq gives no state for what a server says to one who connects
    return Unavailable(f"the database of this home cannot be reached{f' ({said})' if 'FATAL:' in str(error) else ''}; try again")
