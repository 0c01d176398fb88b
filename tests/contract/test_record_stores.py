"""What every RecordStore keeps: compare-and-swap, all or nothing, and what was said to be written."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.errors import Conflict
from modelyard.registry import postgres as postgres_module
from modelyard.registry import records as records_module
from modelyard.registry.base import RecordStore, Stamp
from modelyard.registry.postgres import PostgresRecords
from modelyard.registry.records import SqliteRecords
from modelyard.security.audit import AuditLog
from modelyard.types import Principal

WHO = Principal("local:ada", ("admin",))


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is: the path of a SQLite file, or the URL of an empty database."""
    return str(tmp_path / "records") if request.param == "sqlite" else str(request.getfixturevalue("postgres").url())


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine writers may wait longer for their turn than a caller would; how long is not what these tests are about."""
    monkeypatch.setattr(postgres_module, "LIMIT_S", 60.0)
    monkeypatch.setattr(records_module, "BUSY_TIMEOUT_S", 60.0)
    monkeypatch.setattr(records_module, "TURN_TIMEOUT_S", 60.0)


@pytest.fixture
def store(place: str) -> Iterator[RecordStore]:
    made = opened(place)
    yield made
    made.close()


def opened(place: str) -> RecordStore:
    return PostgresRecords(place) if "://" in place else SqliteRecords(Path(place))


def test_a_record_is_what_was_put(store: RecordStore) -> None:
    assert store.get("model", "a") is None and store.list("model") == ()
    made = store.put("model", "a", {"latest": 1, "name": "Łódź"}, expected=0)
    assert store.get("model", "a") == made and made.body == {"latest": 1, "name": "Łódź"}
    store.put("model", "b", {}, expected=None)
    store.put("other", "a", {}, expected=0)
    assert [record.key for record in store.list("model")] == ["a", "b"]
    store.put("model", "a:1", {}, expected=0)
    store.put("model", "a:\U0010fffe", {}, expected=0)
    assert [record.key for record in store.list("model", prefix="a:")] == ["a:1", "a:\U0010fffe"]
    assert store.list("model", prefix="c") == ()


def test_compare_and_swap(store: RecordStore) -> None:
    first = store.put("m", "a", {"n": 1}, expected=0)
    with pytest.raises(Conflict):
        store.put("m", "a", {"n": 9}, expected=0)
    second = store.put("m", "a", {"n": 2}, expected=first.revision)
    assert second.revision > first.revision
    for stale in (first.revision, 10**6):
        with pytest.raises(Conflict):
            store.put("m", "a", {"n": 9}, expected=stale)
        with pytest.raises(Conflict):
            store.delete("m", "a", expected=stale)
    assert store.get("m", "a") == second
    store.put("m", "a", {"n": 3}, expected=None)
    store.delete("m", "a", expected=None)
    store.delete("m", "a", expected=None)
    with pytest.raises(Conflict):
        store.delete("m", "a", expected=second.revision)


def test_a_revision_never_comes_back(store: RecordStore) -> None:
    first = store.put("m", "a", {}, expected=0)
    store.delete("m", "a", expected=first.revision)
    again = store.put("m", "a", {}, expected=0)
    assert again.revision > first.revision
    with pytest.raises(Conflict):
        store.put("m", "a", {"stale": True}, expected=first.revision)


def test_a_stamp_changes_whenever_a_record_of_its_kind_does(store: RecordStore) -> None:
    seen = [store.stamp("m")]
    assert seen == [Stamp(0, 0)]
    for change in (
        lambda: store.put("m", "a", {}, expected=0),
        lambda: store.put("m", "a", {}, expected=None),
        lambda: store.put("m", "b", {}, expected=0),
        lambda: store.delete("m", "b", expected=None),
        lambda: store.put("m", "c", {}, expected=0),
        lambda: store.delete("m", "a", expected=None),
    ):
        change()
        seen.append(store.stamp("m"))
    assert all(one != other for one, other in itertools.pairwise(seen))
    store.put("other", "a", {}, expected=0)
    store.delete("m", "none", expected=None)
    assert store.stamp("m") == seen[-1]


def test_a_transaction_is_all_or_nothing(store: RecordStore) -> None:
    store.put("m", "a", {"n": 1}, expected=0)
    with pytest.raises(Conflict), store.transaction() as records:
        records.put("m", "b", {"n": 1}, expected=0)
        records.put("m", "a", {"n": 2}, expected=0)
    with pytest.raises(KeyboardInterrupt), store.transaction() as records:
        records.delete("m", "a", expected=None)
        assert records.get("m", "a") is None
        raise KeyboardInterrupt
    assert [(record.key, record.body) for record in store.list("m")] == [("a", {"n": 1})]
    with store.transaction() as records:
        records.put("m", "b", {"n": 1}, expected=0)
        records.delete("m", "a", expected=None)
    assert [record.key for record in store.list("m")] == ["b"]


def test_what_is_not_data_is_refused_and_nothing_is_written(store: RecordStore) -> None:
    for body in ({"n": float("nan")}, {"n": object()}):
        with pytest.raises((ValueError, TypeError)):
            store.put("m", "a", body, expected=0)
    assert store.get("m", "a") is None


def test_threads_count_without_a_gap(store: RecordStore) -> None:
    def count() -> None:
        for _ in range(20):
            with store.transaction() as records:
                record = records.get("m", "n")
                records.put("m", "n", {"n": (record.body["n"] if record else 0) + 1}, expected=None)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.get("m", "n")
    assert found is not None and found.body == {"n": 80}


def test_a_transaction_sees_what_was_committed_before_its_turn(store: RecordStore) -> None:
    """A snapshot from before the turn would make of every second writer a loser, or lose its change."""
    inside, seen = threading.Event(), []

    def second() -> None:
        inside.wait(10)
        with store.transaction() as records:
            record = records.get("m", "a")
            seen.append(record and record.body)

    waiting = threading.Thread(target=second)
    waiting.start()
    with store.transaction() as records:
        inside.set()
        time.sleep(0.2)  # the other now waits for its turn
        records.put("m", "a", {"n": 1}, expected=0)
    waiting.join()
    assert seen == [{"n": 1}]


def test_the_audit_chain_goes_with_the_transaction(store: RecordStore) -> None:
    log = AuditLog(store)
    log.record(WHO, "first", "a", outcome="done")
    with store.transaction() as records:
        records.put("m", "a", {}, expected=0)
        AuditLog(records).record(WHO, "second", "Łódź", outcome="done")
    with pytest.raises(KeyboardInterrupt), store.transaction() as records:
        records.put("m", "b", {}, expected=0)
        AuditLog(records).record(WHO, "third", "b", outcome="done")
        raise KeyboardInterrupt
    assert [(entry.sequence, entry.action, entry.subject) for entry in log.entries()] == [(1, "first", "a"), (2, "second", "Łódź")]
    assert log.verify() == 2 and store.get("m", "b") is None


def test_lines_come_in_parts_that_miss_none(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.registry.verbs.LINES_AT_ONCE", 3)
    log = AuditLog(store)
    for number in range(10):
        log.record(WHO, "act", str(number), outcome="done")
    assert [entry.subject for entry in log.entries()] == [str(number) for number in range(10)] and log.verify() == 10


def test_writers_of_the_chain_take_turns(store: RecordStore) -> None:
    def write() -> None:
        for _ in range(10):
            AuditLog(store).record(WHO, "act", "x", outcome="done")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert AuditLog(store).verify() == 40


COUNT = """
import sys
from pathlib import Path
from modelyard.registry import postgres, records
from modelyard.registry.postgres import PostgresRecords
from modelyard.registry.records import SqliteRecords
postgres.LIMIT_S = records.BUSY_TIMEOUT_S = 60.0
place = sys.argv[1]
store = PostgresRecords(place) if "://" in place else SqliteRecords(Path(place))
print("go", flush=True)
for number in range(int(sys.argv[2])):
    with store.transaction() as records:
        record = records.get("m", "n")
        records.put("m", "n", {"n": (record.body["n"] if record else 0) + 1}, expected=None)
    print(number + 1, flush=True)
"""


def test_processes_count_without_a_gap_and_the_first_of_several_makes_the_store(place: str, tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", COUNT, place, "20"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [process.communicate()[1] for process in started] == ["", "", ""]
    store = opened(place)
    found = store.get("m", "n")
    store.close()
    assert found is not None and found.body == {"n": 60}
    assert not list(tmp_path.glob(".*"))


def test_a_killed_writer_loses_nothing_that_it_was_told_is_written(place: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", COUNT, place, "1000000"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = 0
    for line in process.stdout:
        told = int(line) if line.strip().isdigit() else told
        if told >= 25:
            process.kill()
            break
    rest = [int(line) for line in process.stdout if line.strip().isdigit()]
    process.wait()
    process.stdout.close()
    store = opened(place)
    found = store.get("m", "n")
    store.close()
    assert found is not None and found.body["n"] >= max([told, *rest])
