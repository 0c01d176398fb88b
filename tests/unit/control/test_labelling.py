from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from modelyard import config, events
from modelyard.config import Settings
from modelyard.control import labelling
from modelyard.control.labelling import Desk, Gift
from modelyard.errors import Overloaded, StorageFull, Tampered, Unavailable
from modelyard.monitor import relay
from modelyard.monitor.intake import labels_outbox
from modelyard.monitor.labels import Given, Ledger, Received, labels_path, sheet
from modelyard.registry.records import SqliteRecords
from modelyard.security.audit import AuditLog, Entry
from modelyard.types import Principal

ANN, BOB = Principal("key:ann"), Principal("key:bob")
LONG_S = 30.0


class Place:
    """A desk, and what comes of what is given there."""

    def __init__(self, folder: Path, **more: object) -> None:
        self.settings: Settings = config.load({"home": folder, **more})
        self.records = SqliteRecords(folder / "records.sqlite")
        self.audit = AuditLog(self.records)
        self.desk = Desk(self.settings, self.records, self.audit)

    def give(self, who: Principal, name: str, *labels: Given, is_shared: bool = True) -> Received:
        return self.desk.give(Gift(who, name, sheet(labels, at=time.time()), is_shared))

    def known(self, name: str = "m") -> dict[str, str]:
        with closing(Ledger(labels_path(self.settings))) as ledger:
            return ledger.labels(name)

    def entries(self) -> list[tuple[str, str, str, str]]:
        return [(each.principal, each.subject, each.outcome, each.detail) for each in self.audit.entries() if isinstance(each, Entry)]

    def sent(self) -> list[events.Labels]:
        return [labels for path in events.pending(labels_outbox(self.settings)) for labels in events.read(path).labels]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.records.close()


class Held:
    """A ledger in which the first transaction stands still until it is let go; how many labels each had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        keep = Ledger.keep

        def held(ledger: Ledger, sheets: list[tuple[str, object]]) -> list[Received]:
            self.sizes.append(len(sheets))
            self.has_begun.set()
            assert self.may_end.wait(LONG_S)
            return keep(ledger, sheets)  # type: ignore[arg-type]  # as it was given

        monkeypatch.setattr(Ledger, "keep", held)


def test_what_is_given_is_announced_kept_and_left_for_the_others(place: Place) -> None:
    assert place.give(ANN, "m", Given("a", 1), Given("b", "yes", 5.0)) == Received(new=2)
    assert place.give(BOB, "m", Given("a", 2), is_shared=False) == Received(changed=1)
    assert place.known() == {"a": "2", "b": "yes"}
    assert place.entries() == [("key:ann", "m", "begun", "2 labels"), ("key:bob", "m", "begun", "1 labels")]
    ((name, _, ids, truths, known),) = ((each.name, each.at, each.ids, each.truths, each.known) for each in place.sent())
    assert (name, ids, truths, known[1]) == ("m", ("a", "b"), ("1", "yes"), 5.0)


def test_those_who_give_at_once_share_a_transaction_an_entry_and_a_file_and_each_is_told_of_their_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(place.give, ANN, "m", Given("a", 1))
        assert held.has_begun.wait(LONG_S)
        rest = []
        for who, name, label in ((ANN, "m", "a"), (ANN, "m", "b"), (BOB, "m", "c"), (ANN, "n", "d"), (BOB, "n", "a")):
            rest.append(pool.submit(place.give, who, name, Given(label, 1)))
            while len(place.desk._together._waiting) < len(rest):
                time.sleep(0.001)
        assert not any(each.done() for each in (first, *rest)) and place.known() == {}, "nobody is told before theirs is kept"
        held.may_end.set()
        assert [each.result(LONG_S) for each in (first, *rest)] == [Received(new=1), Received(same=1), *[Received(new=1)] * 4]
    assert held.sizes == [1, 5]
    assert place.known() == {"a": "1", "b": "1", "c": "1"} and place.known("n") == {"d": "1", "a": "1"}
    assert place.entries()[1:] == [
        ("key:ann", "m", "begun", "2 labels in 2 requests"),
        ("key:bob", "m", "begun", "1 labels"),
        ("key:ann", "n", "begun", "1 labels"),
        ("key:bob", "n", "begun", "1 labels"),
    ]
    assert sorted((each.name, each.ids) for each in place.sent()) == [("m", ("a",)), ("m", ("a", "b", "c")), ("n", ("d", "a"))]


def test_what_another_host_makes_of_them_is_what_this_one_has(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is given together is of one time, here and there."""
    held = Held(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        futures = [
            pool.submit(place.give, ANN, "m", Given("a", truth, known)) for truth, known in ((1, 5.0), (2, 7.0), (3, 6.0), (4, None), (5, 1.0))
        ]
        assert held.has_begun.wait(LONG_S)
        held.may_end.set()
        assert {each.result(LONG_S).future for each in futures} == {0}
    segments = [events.read(path) for path in events.pending(labels_outbox(place.settings))]
    with closing(Ledger(tmp_path / "other.sqlite")) as other:
        assert relay.take(other, reversed(segments), now=time.time()) == 5
        assert other.labels("m") == place.known() == {"a": "4"}


@pytest.mark.parametrize(("error", "outcomes"), [(Tampered("damaged"), ["begun", "failed"]), (StorageFull("full"), ["begun"])])
def test_what_cannot_be_kept_is_told_and_written_down(place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception, outcomes: list[str]) -> None:
    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(Ledger, "keep", fails)
        place.give(ANN, "m", Given("a", 1))
    assert [outcome for _, _, outcome, _ in place.entries()] == outcomes
    assert place.known() == {} and place.sent() == []
    assert place.give(ANN, "m", Given("a", 1)) == Received(new=1), "and the next goes well"


def test_what_cannot_be_announced_is_not_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(AuditLog, "record", away)
    with pytest.raises(Unavailable):
        place.give(ANN, "m", Given("a", 1))
    assert place.known() == {} and place.sent() == []


def test_where_too_many_wait_to_be_sent_no_more_are_taken(tmp_path: Path) -> None:
    place = Place(tmp_path, spool_limit_bytes=4096)
    place.give(ANN, "m", Given("a", 1))
    with pytest.raises(Overloaded):
        place.give(ANN, "m", Given("b", 1))
    assert place.give(ANN, "m", Given("c", 1), is_shared=False) == Received(new=1), "what goes to nobody needs no room"
    assert set(place.known()) == {"a", "c"}
    place.records.close()


def test_many_small_ones_are_bounded_too() -> None:
    assert labelling.AT_ONCE / labelling._LEAST <= 100, "each has an entry in a chain for which all hosts wait"
