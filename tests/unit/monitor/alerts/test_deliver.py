"""The deliverer: at least once, each route at its own pace, nothing lost however it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from receivers import NOW, alert, notification, wait_for

from modelyard.errors import Conflict, InvalidConfig, Unavailable
from modelyard.monitor.alerts import book, outbox
from modelyard.monitor.alerts.base import Notification
from modelyard.monitor.alerts.deliver import FIRST_S, LONGEST_S, ORPHANED_S, Deliverer
from modelyard.monitor.alerts.post import post
from modelyard.monitor.alerts.routes.webhook import Webhook
from modelyard.registry.records import SqliteRecords
from modelyard.rollout.election import Election


class Told:
    """A route that takes messages, or fails as it is told to."""

    kind, target, forgets = "told", "", False
    severities = ("page", "report")

    def __init__(self, name: str = "a") -> None:
        self.name = name
        self.got: list[Notification] = []
        self.fails: dict[str, Exception] = {}
        self.hangs: threading.Event | None = None

    def send(self, notification: Notification) -> str:
        if self.hangs is not None:
            self.hangs.wait(30)
        error = self.fails.get(notification.deployment, self.fails.get(""))
        if error is not None:
            raise error
        self.got.append(notification)
        return "taken"


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    store = SqliteRecords(tmp_path / "registry.sqlite")
    yield store
    store.close()


class Scene:
    """A deliverer of some routes with a clock that is turned by hand."""

    def __init__(self, records: SqliteRecords, *routes: Told) -> None:
        self.records, self.routes, self.clock = records, {route.name: route for route in routes}, Clock()
        self.deliverer = Deliverer(records, lambda: self.routes, clock=self.clock, now=lambda: NOW + self.clock.s, draw=lambda: 0.0)

    def queue(self, deployment: str = "churn", at: float = NOW) -> None:
        outbox.put(self.records, notification(deployment=deployment, at=at), self.routes.values(), now=at)

    def tick(self, after_s: float = 0.0) -> bool:
        self.clock.s += after_s
        waits = self.deliverer.tick()
        self.deliverer.settle()
        return waits


@pytest.fixture
def scene(records: SqliteRecords) -> Iterator[Scene]:
    made = Scene(records, Told("a"), Told("b"))
    yield made
    made.deliverer.close()


def test_what_waits_is_handed_over_once(scene: Scene) -> None:
    assert not scene.tick()
    scene.queue()
    assert scene.tick() and not scene.tick()
    assert [len(route.got) for route in scene.routes.values()] == [1, 1]
    assert scene.routes["a"].got[0] == notification()
    assert book.receivers(scene.records)["a"].ok_at is not None


def test_a_dead_receiver_is_tried_again_ever_more_seldom_and_shown_and_the_others_are_told(scene: Scene) -> None:
    dead = scene.routes["a"]
    dead.fails[""] = Unavailable("it cannot be reached")
    scene.queue()
    scene.tick()
    assert scene.routes["b"].got and len(outbox.waiting(scene.records)) == 1
    pauses = [FIRST_S * 2**n for n in range(12)]
    for tries, pause_s in enumerate(pauses, 1):
        fared = book.receivers(scene.records)["a"]
        assert (fared.tries, fared.error, fared.failing_since) == (tries, "it cannot be reached", NOW + 1000.0)
        scene.tick(min(pause_s, LONGEST_S) - 0.01)
        assert book.receivers(scene.records)["a"].tries == tries, "not before its time"
        scene.tick(0.01)
    dead.fails.clear()
    scene.tick(LONGEST_S)
    assert dead.got and not outbox.waiting(scene.records)
    assert book.receivers(scene.records)["a"].failing_since is None


def test_a_pause_is_shortened_by_chance_so_that_hosts_do_not_come_together(records: SqliteRecords) -> None:
    scene = Scene(records, Told("a"))
    scene.routes["a"].fails[""] = Unavailable("no")
    deliverer = Deliverer(records, lambda: scene.routes, clock=scene.clock, now=lambda: NOW, draw=lambda: 1.0)
    scene.queue()
    deliverer.tick()
    deliverer.settle()
    scene.clock.s += FIRST_S / 2
    deliverer.tick()
    deliverer.settle()
    assert book.receivers(records)["a"].tries == 2
    deliverer.close()


def test_a_receiver_that_hangs_holds_up_no_other_and_is_asked_once(scene: Scene) -> None:
    hung = scene.routes["a"]
    hung.hangs = threading.Event()
    scene.queue()
    scene.deliverer.tick()
    wait_for(lambda: scene.routes["b"].got)
    scene.queue("fraud", at=NOW + 1)
    wait_for(lambda: scene.deliverer.tick() and len(scene.routes["b"].got) == 2)
    hung.hangs.set()
    scene.tick()
    scene.tick()
    assert [each.deployment for each in hung.got] == ["churn", "fraud"]


def test_a_message_that_is_refused_holds_up_no_other(scene: Scene) -> None:
    route = scene.routes["a"]
    route.fails["churn"] = InvalidConfig("it refused the message with status 400")
    scene.queue()
    scene.tick()
    scene.queue("fraud", at=NOW + 1)
    scene.tick(FIRST_S)
    assert [each.deployment for each in route.got] == ["fraud"]
    assert [each.message.notification.deployment for each in outbox.waiting(scene.records)] == ["churn"]


def test_news_while_it_is_handed_over_wait_for_the_next_turn(scene: Scene) -> None:
    route = scene.routes["a"]
    route.hangs = threading.Event()
    scene.queue()
    scene.deliverer.tick()
    outbox.put(scene.records, notification(firing=(alert(), alert(id="new")), kind="changed"), [route], now=NOW)
    route.hangs.set()
    scene.deliverer.settle()
    scene.tick()
    assert [len(each.firing) for each in route.got] == [1, 2] and not outbox.waiting(scene.records)


def test_the_next_deliverer_goes_on_where_one_was_killed(records: SqliteRecords, scene: Scene) -> None:
    scene.routes["a"].fails[""] = Unavailable("no")
    scene.queue()
    scene.tick()
    again = Scene(records, Told("a"), Told("b"))
    again.tick()
    assert again.routes["a"].got == [notification()] and not again.routes["b"].got
    again.deliverer.close()


def test_a_leader_whose_term_is_over_takes_nothing_out(records: SqliteRecords) -> None:
    election, other = (Election(records, host=name, instance=name) for name in ("one", "two"))
    assert election.look() == "take"
    election.move("take", within=records)
    election.moved(0.0)
    term = 1
    route = Told("a")
    deliverer = Deliverer(election.fenced(term), lambda: {"a": route})
    outbox.put(records, notification(), [route], now=NOW)
    other.look()
    other.move("take", within=records)
    deliverer.tick()
    with pytest.raises(Conflict):
        deliverer.settle()
    assert len(outbox.waiting(records)) == 1, "the new leader hands it over again: at least once"
    deliverer.close()


def test_a_route_that_is_no_more_is_waited_for_a_week(scene: Scene) -> None:
    scene.queue(at=NOW + scene.clock.s)
    scene.routes.clear()
    scene.tick(ORPHANED_S - 1)
    assert len(outbox.waiting(scene.records)) == 2
    scene.tick(1)
    assert not outbox.waiting(scene.records)


def test_who_stops_does_not_wait_for_a_receiver_that_hangs_nor_blame_it(
    records: SqliteRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(post.__kwdefaults__, "timeout_s", 3600.0)  # it would hang
    with socket.create_server(("127.0.0.1", 0)) as silent:
        route = Webhook("a", {"url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}, tmp_path)
        deliverer = Deliverer(records, lambda: {"a": route})
        outbox.put(records, notification(), [route], now=NOW)
        deliverer.tick()
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(4) == b"POST"
            deliverer.close()
    assert len(outbox.waiting(records)) == 1 and book.receivers(records) == {}


def test_what_no_receiver_is_to_blame_for_is_raised(scene: Scene) -> None:
    scene.routes["a"].fails[""] = ZeroDivisionError()
    scene.queue()
    scene.deliverer.tick()
    with pytest.raises(ZeroDivisionError):
        scene.deliverer.settle()
