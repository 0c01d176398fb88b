"""One effect per key: by threads at once, over processes, after a crash, and no longer than a day."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.control import once
from modelyard.control.once import KIND, LIMIT, Effect, Once
from modelyard.errors import Conflict, InvalidInput, Unavailable
from modelyard.registry.postgres import PostgresRecords
from modelyard.registry.records import SqliteRecords
from modelyard.types import Principal

WHO = Principal("key:me", ("admin",))


Opened = Callable[[], Once]


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens the one store of this test, as each process does."""
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres").url())
    made: list[Once] = []

    def open_one() -> Once:
        made.append(Once(PostgresRecords(url) if url else SqliteRecords(tmp_path / "registry.sqlite")))
        return made[-1]

    yield open_one
    for each in made:
        each.close()


@pytest.fixture
def store(opened: Opened) -> Once:
    return opened()


def effect_of(store: Once, body: Any = None, key: str = "d") -> Callable[[], Any]:
    """A verb that counts how often it was carried out, in a record."""

    def run() -> Any:
        with store.transaction() as records:
            found = records.get("deployment", key)
            count = found.body["count"] + 1 if found else 1
            records.put("deployment", key, {"count": count, "body": body}, expected=found.revision if found else 0)
        return {"count": count}

    return run


def again(effect: Effect) -> Any:
    return {"count": effect.body["count"]}


def count(store: Once) -> int:
    found = store.get("deployment", "d")
    return found.body["count"] if found else 0


def test_a_key_is_one_effect_and_one_answer(store: Once) -> None:
    for _ in range(3):
        assert store.perform(WHO, "k", "f", effect_of(store), recall=again) == {"count": 1}
    assert count(store) == 1
    assert store.perform(WHO, "other", "f", effect_of(store), recall=again) == {"count": 2}
    assert store.perform(Principal("key:you"), "k", "f", effect_of(store), recall=again) == {"count": 3}
    with pytest.raises(Conflict, match="another request"):
        store.perform(WHO, "k", "g", effect_of(store), recall=again)
    assert count(store) == 3


def test_by_many_at_once_over_two_stores_it_is_one_effect(store: Once, opened: Opened) -> None:
    stores = (store, opened())
    gate = threading.Barrier(8)
    said: list[Any] = []

    def ask(at: int) -> None:
        mine = stores[at % 2]
        effect = effect_of(mine)

        def run() -> Any:
            gate.wait(60)  # nobody has found the key, and all go on
            return effect()

        said.append(mine.perform(WHO, "k", "f", run, recall=again))

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [{"count": 1}] * 8 and count(store) == 1


def test_without_the_mark_in_the_transaction_it_would_be_several(store: Once, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test before."""
    monkeypatch.setattr(once, "EFFECTS", frozenset())
    with pytest.raises(AssertionError):
        test_by_many_at_once_over_two_stores_it_is_one_effect(store, opened)


def test_a_verb_that_ends_after_its_effect_is_not_carried_out_again(store: Once) -> None:
    def killed() -> Any:
        effect_of(store)()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.perform(WHO, "k", "f", killed, recall=again)
    assert store.perform(WHO, "k", "f", effect_of(store), recall=again) == {"count": 1} and count(store) == 1


def test_a_transaction_that_is_undone_leaves_no_key(store: Once) -> None:
    def fails() -> Any:
        with store.transaction() as records:
            records.put("deployment", "d", {"count": 9}, expected=0)
            raise Unavailable("gone")

    with pytest.raises(Unavailable):
        store.perform(WHO, "k", "f", fails, recall=again)
    assert store.list(KIND) == ()
    assert store.perform(WHO, "k", "f", effect_of(store), recall=again) == {"count": 1}


def test_what_was_removed_is_known_afterwards(store: Once) -> None:
    store.put("deployment", "d", {"count": 5}, expected=0)
    remove = lambda: store.delete("deployment", "d", expected=None)  # noqa: E731
    store.perform(WHO, "k", "f", remove, recall=again)
    assert store.get("deployment", "d") is None
    assert store.perform(WHO, "k", "f", remove, recall=again) == {"count": 5}


def test_what_writes_no_record_is_remembered_with_its_answer_but_no_secret(store: Once) -> None:
    assert store.perform(WHO, "k", "f", lambda: {"freed": 1}) == {"freed": 1}
    assert store.perform(WHO, "k", "f", lambda: {"freed": 2}) == {"freed": 1}
    assert store.perform(WHO, "s", "f", lambda: "my_secret", is_secret=True) == "my_secret"
    with pytest.raises(Conflict, match="told once"):
        store.perform(WHO, "s", "f", lambda: "my_other", is_secret=True)
    assert "my_secret" not in str(store.list(KIND))
    store.perform(WHO, "l", "f", lambda: "x" * once.ANSWER_BYTES)
    with pytest.raises(Conflict, match="not kept"):
        store.perform(WHO, "l", "f", lambda: "")


def test_a_secret_is_made_once_at_most_also_when_its_maker_is_killed_or_two_make_it_at_once(store: Once) -> None:
    def killed() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.perform(WHO, "k", "f", killed, is_secret=True)
    with pytest.raises(Conflict, match="told once"):
        store.perform(WHO, "k", "f", lambda: "my_second", is_secret=True)

    def refused() -> Any:
        raise InvalidInput("no such role")

    with pytest.raises(InvalidInput):
        store.perform(WHO, "r", "f", refused, is_secret=True)
    assert store.perform(WHO, "r", "f", lambda: "my_first", is_secret=True) == "my_first"

    def meanwhile() -> Any:
        with pytest.raises(Conflict):
            store.perform(WHO, "m", "f", lambda: "my_other", is_secret=True)
        return "my_one"

    assert store.perform(WHO, "m", "f", meanwhile, is_secret=True) == "my_one"


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "é"])
def test_a_key_that_is_none_is_refused(store: Once, key: str) -> None:
    with pytest.raises(InvalidInput):
        store.perform(WHO, key, "f", lambda: 1)


def test_a_key_is_kept_for_a_day_whichever_way_the_clock_jumps(store: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    store.perform(WHO, "k", "f", effect_of(store), recall=again)
    for jump in (3600, -86_000, 86_000):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        assert store.perform(WHO, "k", "f", effect_of(store), recall=again) == {"count": 1}
    monkeypatch.setattr(time, "time", lambda: now + 86_500)
    assert store.perform(WHO, "k", "f", effect_of(store), recall=again) == {"count": 2}


def test_old_keys_go_and_a_flood_of_one_caller_pushes_out_no_others(store: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "LIMIT", 70)
    now = time.time()
    store.perform(Principal("key:you"), "k", "f", lambda: 0)
    for at in range(200):
        store.perform(WHO, f"k{at}", "f", lambda: 1)
    assert LIMIT == 1000 and 70 <= len(store.list(KIND)) - 1 < 70 + 64
    assert store.perform(WHO, "k199", "f", lambda: 2) == 1 and store.perform(Principal("key:you"), "k", "f", lambda: 2) == 0
    monkeypatch.setattr(time, "time", lambda: now + 3 * 86_400)
    Once(store._records).perform(WHO, "new", "f", lambda: 1)
    assert len(store.list(KIND)) == 1


def test_what_others_do_meanwhile_carries_no_key(store: Once) -> None:
    def run() -> Any:
        other = threading.Thread(target=effect_of(store, key="other"))
        other.start()
        other.join()
        return effect_of(store)()

    store.perform(WHO, "k", "f", run, recall=again)
    (record,) = store.list(KIND)
    assert record.body["effect"]["key"] == "d"
