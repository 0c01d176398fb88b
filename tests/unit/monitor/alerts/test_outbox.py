"""The outbox: one message per route and group, in its latest state, however long a receiver is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from receivers import NOW, alert, notification, over

from modelyard.errors import Conflict
from modelyard.monitor.alerts import outbox
from modelyard.monitor.alerts.base import Kind, Notification, Severity
from modelyard.registry.records import SqliteRecords


class Nowhere:
    """A route that takes what it is told to take and sends nothing."""

    kind = target = "nowhere"

    def __init__(self, name: str, severities: tuple[Severity, ...] = ("page",), *, forgets: bool = False) -> None:
        self.name, self.severities, self.forgets = name, severities, forgets

    def send(self, notification: Notification) -> str:
        raise AssertionError


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    store = SqliteRecords(tmp_path / "registry.sqlite")
    yield store
    store.close()


def test_a_message_waits_for_each_route_that_takes_it(records: SqliteRecords) -> None:
    routes = (Nowhere("a"), Nowhere("b", ("report",)), Nowhere("c", ("page", "report")))
    assert outbox.put(records, notification(), routes, now=NOW) == 2
    assert [each.message.route for each in outbox.waiting(records)] == ["a", "c"]
    assert outbox.put(records, notification(routes=("a",), deployment="fraud"), routes, now=NOW) == 1
    assert outbox.waiting(records)[1].message.notification.deployment == "fraud"


def test_only_who_forgets_is_told_that_it_lives(records: SqliteRecords) -> None:
    assert outbox.put(records, notification(kind="alive"), (Nowhere("a"), Nowhere("b", forgets=True)), now=NOW) == 1


def test_news_join_what_waits(records: SqliteRecords) -> None:
    first, second, third = alert(), over(id="x"), over(id="a1", rule="drift:age")
    outbox.put(records, notification(firing=(first,), resolved=()), (Nowhere("a"),), now=NOW)
    outbox.put(records, notification(firing=(first,), resolved=(second,), kind="changed"), (Nowhere("a"),), now=NOW + 60)
    (waiting,) = outbox.waiting(records)
    assert waiting.message.queued_at == NOW and waiting.message.notification.kind == "new"
    outbox.put(records, notification(firing=(), resolved=(third,), kind="resolved"), (Nowhere("a"),), now=NOW + 120)
    (waiting,) = outbox.waiting(records)
    said = waiting.message.notification
    assert said.kind == "resolved" and not said.firing and {each.id for each in said.resolved} == {"x", "a1"}


def test_what_nobody_was_told_of_stays_news_while_it_waits() -> None:
    before = notification(firing=(alert(), alert(id="b")), news=("a1", "b"))
    after = notification(firing=(alert(), alert(id="c")), news=("c",), kind="changed")
    assert outbox.joined(before, after).news == ("a1", "c")


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("new", "repeat", "new"),
        ("new", "alive", "new"),
        ("changed", "repeat", "changed"),
        ("repeat", "changed", "changed"),
        ("resolved", "new", "new"),
    ],
)
def test_what_nobody_has_heard_of_is_still_news(before: Kind, after: Kind, kind: Kind) -> None:
    assert outbox.joined(notification(kind=before), notification(kind=after)).kind == kind


def test_a_receiver_that_is_away_for_long_has_no_more_to_read(records: SqliteRecords) -> None:
    for at in range(300):
        outbox.put(records, notification(resolved=(over(id=str(at), resolved_at=NOW + at),)), (Nowhere("a"),), now=NOW + at)
    (waiting,) = outbox.waiting(records)
    told = waiting.message.notification.resolved
    assert len(told) == outbox.MOST_RESOLVED and told[-1].id == "299"


def test_what_was_handed_over_is_taken_out_unless_it_has_had_news(records: SqliteRecords) -> None:
    outbox.put(records, notification(), (Nowhere("a"),), now=NOW)
    (waiting,) = outbox.waiting(records)
    outbox.put(records, notification(kind="changed"), (Nowhere("a"),), now=NOW)
    assert not outbox.done(records, waiting)
    (waiting,) = outbox.waiting(records)
    assert outbox.done(records, waiting) and outbox.waiting(records) == ()


def test_a_conflict_of_another_kind_is_not_news() -> None:
    class Fenced:
        def delete(self, kind: str, key: str, *, expected: int | None) -> None:
            raise Conflict("over", rule="term")

    waiting = outbox.Waiting("k", 1, outbox.Message(route="a", queued_at=NOW, notification=notification()))
    with pytest.raises(Conflict):
        outbox.done(Fenced(), waiting)  # type: ignore[arg-type]


def test_a_delivery_has_one_id_however_often_it_is_made() -> None:
    assert outbox.delivery_id("a", notification()) == outbox.delivery_id("a", notification())
    others = {
        outbox.delivery_id("b", notification()),
        outbox.delivery_id("a", notification(at=NOW + 1)),
        outbox.delivery_id("a", notification(resolved=())),
    }
    assert len(others | {outbox.delivery_id("a", notification())}) == 4
