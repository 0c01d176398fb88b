"""What is told of alerts and routes, gathered from the records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from receivers import NOW, notification, receiver, verdict

from modelyard.control import alerting
from modelyard.errors import NotFound
from modelyard.monitor.alerts import Rules, book, outbox
from modelyard.monitor.alerts.base import Matcher
from modelyard.monitor.alerts.book import Receiver
from modelyard.monitor.alerts.written import Routes
from modelyard.registry.records import SqliteRecords


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    store = SqliteRecords(tmp_path / "registry.sqlite")
    yield store
    store.close()


def routes(folder: Path, written: str) -> Routes:
    path = folder / "alerts.toml"
    path.write_text(written)
    return Routes(path)


WEBHOOK = '[routes.oncall]\nkind = "webhook"\nurl = "http://127.0.0.1:9/x"\n'


def test_a_route_says_what_waits_and_since_when_it_fails(records: SqliteRecords, tmp_path: Path) -> None:
    known = routes(tmp_path, WEBHOOK)
    outbox.put(records, notification(), known().values(), now=NOW)
    outbox.put(records, notification(deployment="fraud"), known().values(), now=NOW + 60)
    book.fared(records, "oncall", Receiver(ok_at=NOW - 60, failing_since=NOW, tries=3, error="it cannot be reached"))
    (told,) = alerting.alerts(records, known).routes
    assert told == alerting.RouteStatus(
        name="oncall",
        kind="webhook",
        target="http://127.0.0.1:9/…",
        severities=("page",),
        waiting=2,
        waiting_since=NOW,
        ok_at=NOW - 60,
        failing_since=NOW,
        tries=3,
        error="it cannot be reached",
    )


def test_messages_for_a_route_that_is_no_more_are_told(records: SqliteRecords, tmp_path: Path) -> None:
    outbox.put(records, notification(), routes(tmp_path, WEBHOOK)().values(), now=NOW)
    (told,) = alerting.alerts(records, routes(tmp_path, "")).routes
    assert (told.name, told.kind, told.waiting) == ("oncall", "", 1) and "does not name it" in told.error


def test_who_sees_some_deployments_sees_their_alerts_and_silences(records: SqliteRecords, tmp_path: Path) -> None:
    book.turn(records, {"churn": (verdict(),), "fraud": (verdict(),)}, rules=Rules(), routes=(), now=NOW)
    for matcher in (Matcher(deployment="churn"), Matcher(deployment="fraud"), Matcher(rule="drift")):
        book.silence(records, matcher, until=NOW + 9, by="ann", why="w", now=NOW)
    seen = alerting.seen(alerting.alerts(records, routes(tmp_path, "")), lambda name: name == "churn")
    assert {each.deployment for each in seen.alerts} == {"churn"}
    assert {each.matcher.deployment for each in seen.silences} == {"churn", ""}


def test_a_test_says_what_came_back(tmp_path: Path) -> None:
    with receiver() as server:
        known = routes(tmp_path, f'[routes.a]\nkind = "webhook"\nurl = "{server.url}"\n')
        assert alerting.test(known, "a").is_delivered
        server.answer = 400
        refused = alerting.test(known, "a")
        assert not refused.is_delivered and "400" in refused.said
        with pytest.raises(NotFound, match=r"alerts\.toml names a"):
            alerting.test(known, "b")
