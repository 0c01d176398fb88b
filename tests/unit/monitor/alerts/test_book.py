"""Alerts as records: a turn is one transaction, and goes on where the last one, of whomever, ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receivers import NOW, verdict

from modelyard.errors import InvalidInput, NotFound
from modelyard.monitor.alerts import Policy, Rules, book, outbox
from modelyard.monitor.alerts.base import Matcher, Notification
from modelyard.monitor.alerts.book import Receiver
from modelyard.registry.records import SqliteRecords

RULES = Rules(pages=frozenset({"drift"}))


class Nowhere:
    name, kind, target = "a", "nowhere", ""
    severities = ("page", "report")
    forgets = False

    def send(self, notification: Notification) -> str:
        raise AssertionError


class Forgetful(Nowhere):
    forgets = True


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    store = SqliteRecords(tmp_path / "registry.sqlite")
    yield store
    store.close()


def turn(records: Any, *verdicts: Any, now: float = NOW, routes: Any = None, **more: Any) -> tuple[Notification, ...]:
    with records.transaction() as transaction:
        return book.turn(transaction, {"churn": verdicts}, rules=RULES, routes=(Nowhere(),) if routes is None else routes, now=now, **more)


def test_a_turn_writes_state_and_message_together(records: SqliteRecords) -> None:
    assert turn(records, verdict())
    assert [each.state for each in book.alerts(records)] == ["firing"] and len(outbox.waiting(records)) == 1
    assert turn(records, verdict(), now=NOW + 60) == (), "the next turn knows of it, whoever makes it"


def test_a_turn_that_fails_leaves_neither(records: SqliteRecords) -> None:
    with pytest.raises(ZeroDivisionError), records.transaction() as transaction:
        book.turn(transaction, {"churn": (verdict(),)}, rules=RULES, routes=(Nowhere(),), now=NOW)
        raise ZeroDivisionError
    assert book.alerts(records) == () and outbox.waiting(records) == ()
    assert turn(records, verdict()), "so the next one tells of it"


def test_a_turn_without_news_writes_nothing(records: SqliteRecords) -> None:
    turn(records, verdict())
    before = records.stamp(book.BOOK)
    turn(records, verdict(), now=NOW + 60)
    assert records.stamp(book.BOOK) == before
    turn(records, verdict("pass", "concept"), now=NOW + 60)
    assert records.stamp(book.BOOK) != before


def test_what_is_left_of_nothing_is_no_record(records: SqliteRecords) -> None:
    turn(records, verdict())
    for at in (600, 1200, 100_000):
        turn(records, now=NOW + at)
    assert records.stamp(book.BOOK).records == 0


def test_silences_are_read_in_the_turn(records: SqliteRecords) -> None:
    made = book.silence(records, Matcher(deployment="churn"), until=NOW + 600, by="ann", why="known", now=NOW)
    assert turn(records, verdict()) == ()
    book.unsilence(records, made, now=NOW + 60)
    assert turn(records, verdict(), now=NOW + 60)
    assert book.silences(records)[0].until == NOW + 60


def test_who_forgets_is_told_that_it_lives(records: SqliteRecords) -> None:
    turn(records, verdict(), routes=(Forgetful(),))
    (told,) = turn(records, verdict(), now=NOW + book.ALIVE_S, routes=(Forgetful(),))
    assert told.kind == "alive"


@pytest.mark.parametrize(("until", "why"), [(NOW - 1, "w"), (NOW, "w"), (float("nan"), "w"), (NOW + 1, " "), (NOW + 1, "w" * 501)])
def test_a_silence_that_is_none_is_refused(records: SqliteRecords, until: float, why: str) -> None:
    with pytest.raises(InvalidInput):
        book.silence(records, Matcher(rule="drift"), until=until, by="ann", why=why, now=NOW)


def test_a_silence_is_found_by_the_first_digits_of_its_id(records: SqliteRecords) -> None:
    one = book.silence(records, Matcher(rule="drift"), until=NOW + 9, by="ann", why="w", now=NOW)
    assert book.find_silence(records, one.id[:5]) == one
    for wrong in ("", "zz"):
        with pytest.raises(NotFound):
            book.find_silence(records, wrong)


def test_old_silences_go_when_new_ones_come_and_there_are_not_too_many(records: SqliteRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    book.silence(records, Matcher(rule="a"), until=NOW + 1, by="ann", why="w", now=NOW)
    book.silence(records, Matcher(rule="b"), until=NOW + 200_000, by="ann", why="w", now=NOW + 100_000)
    assert [each.matcher.rule for each in book.silences(records)] == ["b"]
    monkeypatch.setattr(book, "MOST_SILENCES", 1)
    with pytest.raises(InvalidInput):
        book.silence(records, Matcher(rule="c"), until=NOW + 200_000, by="ann", why="w", now=NOW + 100_000)


def test_alerts_come_in_the_order_in_which_somebody_asks(records: SqliteRecords) -> None:
    rules = RULES._replace(policy=Policy(hold={"drift:c": 999.0}))
    with records.transaction() as transaction:
        given = (verdict("warn", "quality"), verdict(rule="drift:c", columns=("c",)), verdict(rule="drift:a"), verdict(rule="drift:b"))
        book.turn(transaction, {"churn": given}, rules=rules, routes=(), now=NOW)
    assert [each.rule for each in book.alerts(records)] == ["drift:a", "drift:b", "quality", "drift:c"]


def test_how_a_route_fared(records: SqliteRecords) -> None:
    book.fared(records, "a", Receiver(failing_since=NOW, tries=2, error="it"))
    assert book.receivers(records) == {"a": Receiver(failing_since=NOW, tries=2, error="it")}
    book.forget(records, "a")
    assert book.receivers(records) == {}
