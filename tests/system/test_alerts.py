"""Alerts in a real home: a receiver that is away, a control process that is killed, and a real Prometheus that scrapes, evaluates and fires."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus import Prometheus
from receivers import Receiver, receiver, verdict, wait_for
from world import World, free_ports

from modelyard.monitor import rules as prometheus_rules
from modelyard.monitor.alerts import Rules, book
from modelyard.monitor.alerts.written import Routes
from modelyard.registry.records import SqliteRecords
from modelyard.targets.base import Deployment
from modelyard.types import read_control_state

pytestmark = pytest.mark.system
RULES = Rules(pages=frozenset({"drift"}))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "h")
    yield made
    made.end()


def turn(world: World, *verdicts: object) -> None:
    """What the monitor of a home does each minute, here by hand."""
    records = SqliteRecords(world.folder / "registry.sqlite")
    if records.get("deployment", "churn") is None:
        records.put("deployment", "churn", {"deployment": msgspec.to_builtins(Deployment(name="churn", model="churn", generation=1))}, expected=0)
    with records.transaction() as transaction:
        routes = [*Routes(world.folder / "alerts.toml")().values()]
        book.turn(transaction, {"churn": verdicts}, rules=RULES, routes=routes, now=time.time())  # type: ignore[dict-item]
    records.close()


class At(Receiver):
    """A receiver at a port that was nobody's until now."""

    def __init__(self, port: int) -> None:
        self._wanted = port
        super().__init__()

    def _address(self) -> tuple[str, int]:
        return "127.0.0.1", self._wanted


def route(world: World, url: str) -> None:
    (world.folder / "alerts.toml").write_text(f'[routes.oncall]\nkind = "webhook"\nurl = "{url}"\n')


def waiting(world: World) -> int:
    (found,) = world.verb("alerts", "--json").json()["routes"]
    return int(found.get("waiting", 0))


def test_a_receiver_that_is_away_and_a_killed_control_process_lose_nothing(world: World) -> None:
    (port,) = free_ports(1)
    route(world, f"http://127.0.0.1:{port}/hook")
    world.up()
    turn(world, verdict())
    wait_for(lambda: world.verb("alerts", "--json").json()["routes"][0].get("tries"))
    world.kill("control")
    turn(world, verdict())  # the next turn knows that it was told: it is not told again
    wait_for(lambda: "control" in world.pids(), 60)
    wait_for(lambda: waiting(world) == 1, 60)
    answering = At(port)
    try:
        wait_for(lambda: answering.asked, 60)
        wait_for(lambda: waiting(world) == 0, 60)
        assert [(each.path, each.json()["kind"]) for each in answering.asked] == [("/hook", "new")]
        assert world.verb("alerts", "--json").json()["routes"][0].get("failing_since") is None
    finally:
        answering.close()


def test_killed_between_the_answer_and_its_record_it_is_told_again_with_the_same_id(world: World) -> None:
    with receiver() as server:
        held: list[socket.socket] = []

        def hold(handler: object) -> None:
            """Takes the message and never says so."""
            held.append(handler.connection)  # type: ignore[attr-defined]
            time.sleep(30)

        server.answer = hold  # type: ignore[assignment]
        route(world, f"{server.url}/hook")
        world.up()
        turn(world, verdict())
        wait_for(lambda: server.asked)
        world.kill("control")
        server.answer = 200
        wait_for(lambda: len(server.asked) > 1, 60)
        wait_for(lambda: waiting(world) == 0, 60)
        ids = [each.headers["x-modelyard-delivery"] for each in server.asked]
        assert len(set(ids)) == 1 and len(ids) >= 2


def test_a_real_prometheus_scrapes_evaluates_and_fires(world: World, tmp_path: Path, component: Callable[[str], str]) -> None:
    world.up()
    rules = tmp_path / "modelyard.rules.yml"
    rules.write_text(prometheus_rules.written())
    state, key = read_control_state(world.folder / "run"), world.verb("keys", "create", "prometheus", "--role", "viewer", "--json").json()["key"]
    control = state.url.removeprefix("http://")
    targets = {"data": (f"127.0.0.1:{world.port}", "/metrics", ""), "control": (control, "/api/v1/metrics", key)}
    server = Prometheus(component("prometheus"), tmp_path, targets=targets, rules=rules)
    try:
        groups = server.ask("rules")["groups"]
        loaded = {rule["name"] for group in groups for rule in group["rules"]}
        assert loaded == {rule.name for rule in prometheus_rules.alerts()} | {name for name, _ in prometheus_rules.records()}
        wait_for(lambda: server.is_fed, 60)
        assert server.firing() == set()

        def fired() -> list[dict[str, str]]:
            turn(world, verdict())  # again and again: the home's own monitor, which judges each minute, has never heard of it
            return [each["labels"] for each in server.ask("alerts")["alerts"] if each["labels"]["alertname"] == "ModelyardModelAlert"]

        (alert,) = wait_for(fired, 60)
        assert alert["severity"] == "page" and alert["deployment"] == "churn"
        assert all(rule["health"] == "ok" for group in server.ask("rules")["groups"] for rule in group["rules"])
    finally:
        server.close()


def test_without_a_key_prometheus_is_not_told(world: World) -> None:
    world.up()
    url = f"{read_control_state(world.folder / 'run').url}/api/v1/metrics"

    def refused() -> int:
        try:
            urllib.request.urlopen(url, timeout=10)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:  # it does not listen yet
            return 0
        raise AssertionError("it was told")

    assert wait_for(refused) == 401
