"""`modelyard alerts` in a home whose control process runs: what people see, silence and test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from receivers import Receiver, receiver, verdict, wait_for
from world import World

from modelyard.monitor.alerts import Rules, book
from modelyard.monitor.alerts.written import Routes
from modelyard.registry.records import SqliteRecords
from modelyard.targets.base import Deployment


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def turn(world: World) -> None:
    """What the monitor of a home does each minute, here by hand."""
    records = SqliteRecords(world.folder / "registry.sqlite")
    if records.get("deployment", "churn") is None:
        records.put("deployment", "churn", {"deployment": msgspec.to_builtins(Deployment(name="churn", model="churn", generation=1))}, expected=0)
    routes = Routes(world.folder / "alerts.toml")
    with records.transaction() as transaction:
        rules = Rules(pages=frozenset({"drift"}))
        book.turn(transaction, {"churn": (verdict(), verdict("warn", "shift"))}, rules=rules, routes=[*routes().values()], now=time.time())
    records.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: Receiver) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("alerts") / "h")
    (made.folder / "alerts.toml").write_text(
        f'[routes.oncall]\nkind = "webhook"\nurl = "{server.url}"\n[routes.dead]\nkind = "webhook"\nurl = "http://127.0.0.1:9/"\n'
    )
    made.up()
    turn(made)
    yield made
    made.end()


@pytest.mark.system
def test_what_fires_is_shown_delivered_silenced_and_tested(world: World, server: Receiver) -> None:
    asked = wait_for(lambda: [each.json() for each in server.asked if each.json()["kind"] == "new"])
    assert asked[0]["deployment"] == "churn" and asked[0]["alerts"][0]["value"] == 41.5
    dead = wait_for(lambda: [each for each in world.verb("alerts", "--json").json()["routes"] if each["name"] == "dead" and each.get("tries")])
    assert dead[0]["waiting"] == 1 and dead[0]["error"] == "it cannot be reached, or broke off"
    parts = ("page churn: drift:age", "value: 41.5", "what to do:", "report churn: shift", "oncall", "took a message", "fails for")

    def missing() -> list[str]:
        turn(world)  # the home's own monitor, which judges each minute, has never heard of it
        said = world.verb("alerts", "churn").out
        return [part for part in parts if part not in said]

    wait_for(lambda: not missing())
    told = [world.verb("alerts", "churn", *more).out.count("what to do:") for more in ((), ("--all",))]
    assert told == [1, 2], "of a report all is told when it is asked for"
    assert "drift:age" not in world.verb("alerts", "fraud").out

    assert "silenced until" in world.verb("alerts", "silence", "--deployment", "churn", "--rule", "drift", "--for", "2h", "--why", "we know").out
    (made,) = world.verb("alerts", "--json").json()["silences"]
    assert "we know" in world.verb("alerts").out and made["id"] in world.verb("alerts").out
    assert "is over" in world.verb("alerts", "unsilence", made["id"]).out

    assert "took the message" in world.verb("alerts", "test", "oncall").out
    failed = world.verb("alerts", "test", "dead", "--json")
    assert failed.code == 8 and '"is_delivered": false' in failed.out and "did not take the message" in failed.err


@pytest.mark.system
@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        (["test"], 2, "say which"),
        (["unsilence"], 2, "say which"),
        (["churn", "more"], 2, "one name"),
        (["churn", "--rule", "drift"], 2, "go with silence"),
        (["silence", "--rule", "drift", "--why", "w"], 2, "--for"),
        (["silence", "--rule", "drift", "--for", "soon", "--why", "w"], 2, "--for"),
        (["silence", "--for", "1h", "--why", "w"], 2, "say what to silence"),
        (["silence", "--deployment", "typo", "--for", "1h", "--why", "w"], 3, "typo"),
        (["test", "../../x"], 3, ""),
        (["test", "nobody"], 3, "alerts.toml names oncall, dead"),
        (["unsilence", "ff"], 3, "no silence"),
    ],
)
def test_what_cannot_be_is_said(world: World, given: list[str], code: int, says: str) -> None:
    said = world.verb("alerts", *given)
    assert said.code == code and says in said.err


def test_without_a_control_process_it_says_how_to_start_one(tmp_path: Path) -> None:
    world = World(tmp_path / "h")
    assert "modelyard up" in world.verb("alerts").err
