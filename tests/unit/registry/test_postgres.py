"""registry.postgres: a database that is away, locked, full or standing still is said so in time, and the next call goes well."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from postgres import Postgres

from modelyard.errors import Conflict, InvalidConfig, InvalidInput, ModelyardError, StorageFull, Tampered, Unavailable, UnsupportedFormat
from modelyard.registry import formats
from modelyard.registry import postgres as module
from modelyard.registry.postgres import PostgresRecords

LIMIT_S = 15.0  # three times what is promised: only what waits without an end takes longer on a busy machine


def rest() -> None:
    """Wait until a connection is tried again."""
    time.sleep(module.REST_S)


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.url(is_tcp=True)


@pytest.fixture
def store(url: str) -> Iterator[PostgresRecords]:
    made = PostgresRecords(url)
    made.put("m", "a", {"n": 1}, expected=0)
    yield made
    made.close()


def refused_in_time(call: Callable[[], object]) -> None:
    start = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        call()
    assert caught.value.retryable and not isinstance(caught.value, StorageFull)
    assert time.monotonic() - start < LIMIT_S


def test_a_server_that_was_started_again_is_reached_again(store: PostgresRecords, postgres: Postgres) -> None:
    postgres.stop()
    for call in (lambda: store.get("m", "a"), lambda: store.put("m", "b", {}, expected=0)):
        refused_in_time(call)
    postgres.start()
    rest()
    assert store.get("m", "a") is not None
    store.put("m", "b", {}, expected=0)


def test_connections_that_waited_through_a_restart_are_not_used(store: PostgresRecords, postgres: Postgres) -> None:
    postgres.stop()
    postgres.start()
    store.put("m", "b", {}, expected=0)


def test_a_server_that_stands_still_is_not_waited_for(store: PostgresRecords, postgres: Postgres) -> None:
    postgres.pause()
    try:
        refused_in_time(lambda: store.get("m", "a"))
        refused_in_time(lambda: store.put("m", "b", {}, expected=0))
    finally:
        postgres.resume()
    rest()
    store.put("m", "b", {}, expected=0)


def test_a_lock_held_by_another_session_is_not_waited_for(store: PostgresRecords, url: str) -> None:
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE counter IN EXCLUSIVE MODE")
        refused_in_time(lambda: store.put("m", "b", {}, expected=0))
        assert store.get("m", "a") is not None, "who only reads waits for no writer"
    store.put("m", "b", {}, expected=0)


def hold_a_turn(store: PostgresRecords, url: str) -> ModelyardError | None:
    """What a writer is told that stands still in its turn until another has had its own; None where it had its way after all."""
    other = PostgresRecords(url)
    try:
        with store.transaction() as records:
            records.put("m", "b", {}, expected=0)
            other.put("m", "c", {}, expected=0)
    except Unavailable as error:
        return error
    finally:
        other.close()
    return None


def test_a_writer_that_stands_still_holds_nobody_up_for_as_long_as_others_wait(store: PostgresRecords, url: str) -> None:
    told = hold_a_turn(store, url)
    assert told is not None and "stood still" in told.message
    assert store.get("m", "b") is None and store.get("m", "c") is not None, "the other had its turn, and what it held up came to nothing"
    store.put("m", "b", {}, expected=0)


def test_without_that_limit_others_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STILL_LIMIT_S", 2 * module.LIMIT_S)
    store = PostgresRecords(url)
    told = hold_a_turn(store, url)
    assert told is not None and "locked" in told.message
    store.close()


def test_the_limits_add_up_to_what_is_promised() -> None:
    waiting = module.LIMIT_S - module.CONNECT_LIMIT_S
    assert module.STILL_LIMIT_S < module.LIMIT_S - module.MARGIN_S
    assert module.LIMIT_S < 5 and waiting + module.CONNECT_LIMIT_S < 5 and module.PROBE_LIMIT_S + module.CONNECT_LIMIT_S < module.LIMIT_S


def test_more_threads_than_connections_take_turns(store: PostgresRecords) -> None:
    failures: list[ModelyardError] = []

    def read() -> None:
        for _ in range(20):
            try:
                store.get("m", "a")
            except ModelyardError as error:
                failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3 * module.CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(store._free) <= module.CONNECTIONS


def test_a_connection_left_in_a_transaction_is_not_used_again(store: PostgresRecords) -> None:
    with pytest.raises(KeyboardInterrupt), store.transaction() as records:
        records.put("m", "b", {}, expected=0)
        raise KeyboardInterrupt
    assert all(connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE for connection in store._free)
    assert store.get("m", "b") is None


def test_what_postgresql_takes_back_is_tried_again_and_not_for_ever(store: PostgresRecords) -> None:
    left = [3]

    def disturbed(last: bytes | None) -> bytes:
        left[0] -= 1
        if left[0] > 0:
            raise psycopg.errors.SerializationFailure
        return b"{}"

    store.append(disturbed)
    assert left == [0] and list(store.lines()) == [b"{}"]
    left[0] = 10**6
    with pytest.raises(Unavailable, match="same moment"):
        store.append(disturbed)
    assert left[0] == 10**6 - module.TRIES and list(store.lines()) == [b"{}"]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (psycopg.errors.DiskFull, StorageFull),
        (psycopg.errors.LockNotAvailable, Unavailable),
        (psycopg.errors.AdminShutdown, Unavailable),
        (psycopg.errors.TooManyConnections, Unavailable),
        (psycopg.errors.ReadOnlySqlTransaction, Unavailable),
        (psycopg.errors.DataCorrupted, Tampered),
        (psycopg.errors.IndexCorrupted, Tampered),
        (psycopg.errors.UndefinedTable, Tampered),
        (psycopg.errors.InsufficientPrivilege, InvalidConfig),
        (psycopg.OperationalError, Unavailable),
    ],
)
def test_errors_are_told_in_our_words(store: PostgresRecords, raised: type[psycopg.Error], told: type[ModelyardError]) -> None:
    with pytest.raises(told), store.transaction() as records:
        records.put("m", "b", {}, expected=0)
        raise raised
    assert store.get("m", "b") is None


def test_text_that_the_database_cannot_hold_is_the_callers(store: PostgresRecords) -> None:
    with pytest.raises(InvalidInput):
        store.put("m", "a\0b", {}, expected=0)
    assert store.put("m", "b", {"text": "a\0b"}, expected=0).body == {"text": "a\0b"}
    with pytest.raises(Conflict):
        store.put("m", "b", {}, expected=0)


def test_addresses_that_are_none(postgres: Postgres) -> None:
    with pytest.raises(InvalidConfig, match="postgresql://"):
        PostgresRecords("postgresql://host/db?no_such_option=1")
    with pytest.raises(Unavailable, match="does not exist"):
        PostgresRecords(postgres.url(database="no_such_database")).get("m", "a")


def test_a_database_of_a_newer_release_is_refused_and_left_as_it_is(store: PostgresRecords, url: str) -> None:
    with psycopg.connect(url) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    for opened in (PostgresRecords(url), PostgresRecords(url)):
        with pytest.raises(UnsupportedFormat, match="newer"):
            opened.get("m", "a")
        opened.close()
    with psycopg.connect(url) as other:
        other.execute(f"UPDATE alembic_version SET version_num = '{formats.REVISIONS[-1]}'")
    assert store.get("m", "a") is not None


def test_threads_that_find_a_new_database_at_once_are_all_answered(postgres: Postgres) -> None:
    """In a process of its own, which has not imported what migrates: two threads that did at once left one with half a library."""
    code = """
import sys, threading
from modelyard.registry.postgres import PostgresRecords
store, together, found = PostgresRecords(sys.argv[1]), threading.Barrier(6), []
def ask():
    together.wait()
    found.append(store.get("kind", "key"))
threads = [threading.Thread(target=ask) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(found)
"""
    said = subprocess.run([sys.executable, "-c", code, postgres.url()], capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout.strip() == str([None] * 6), said.stderr
