"""Two homes on one PostgreSQL and one blob store: one leads, both carry out, and neither's death is the other's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from postgres import Postgres
from receivers import receiver
from world import World, acknowledged, wait_until

from modelyard import config
from modelyard.client import Client
from modelyard.types import read_control_state

pytestmark = pytest.mark.system

ROW = {"a": np.array([[1.0]]), "b": np.array([[2]]), "c": np.array([[0.5]], np.float32)}
FIRST, SECOND = 71.0, 72.0
BODY = {
    "inputs": [
        {"name": name, "shape": [1, 1], "datatype": datatype, "data": [value]}
        for name, datatype, value in (("a", "FP64", 1.0), ("b", "INT64", 2), ("c", "FP32", 0.5))
    ]
}


@pytest.fixture
def pair(tmp_path: Path, postgres: Postgres) -> Iterator[tuple[World, World]]:
    """Two homes that are up, with two versions of `line` registered by the first."""
    stores = {"records_url": postgres.url(), "blobs_url": (tmp_path / "blobs").as_uri()}
    (tmp_path / "blobs").mkdir()
    one, two = (World(tmp_path / name, **stores) for name in ("one", "two"))
    try:
        for offset in (0.0, 1.0):
            one.home.add("line", offset=offset)
        one.up()
        # What the first home seals, the second takes only once it has been told to trust that key.
        assert two.verb("trust", "add", str(one.folder / "keys" / "signing.pub")).code == 0
        two.up()
        yield one, two
    finally:
        for world in (one, two):
            for pid in world.pids().values():
                os.kill(pid, signal.SIGCONT)
            world.end()
            world.home.registry.close()


def ask(world: World) -> float:
    with Client(world.url) as client:
        return float(client.predict("line", ROW)["prediction"][0])


def hosts(world: World) -> dict[str, dict[str, object]]:
    """The hosts as `world` sees them, by the home that each is of; those that do not count are left out."""
    told = world.verb("status", "--json")
    return {host["id"]: host for host in told.json()["hosts"] if host["counts"] and host["is_live"]} if told.code == 0 else {}


def leader(*worlds: World) -> World | None:
    """Which of these leads, when they agree."""
    ids = {name(world): world for world in worlds}
    leading = {host["id"] for world in worlds for host in hosts(world).values() if host.get("leads")}
    return ids.get(str(leading.pop())) if len(leading) == 1 else None


def name(world: World) -> str:
    return (world.folder / "host.id").read_text().strip()


def test_one_leads_both_carry_out_and_either_takes_changes(pair: tuple[World, World]) -> None:
    one, two = pair
    wait_until(lambda: set(hosts(one)) == set(hosts(two)) == {name(one), name(two)})
    assert leader(one, two) is one, "who was first"
    assert two.verb("deploy", "line:1").code == 0, "asked of the one that does not lead"
    # The end of a rollout says that every host acts by it.
    assert (ask(one), ask(two)) == (FIRST, FIRST) and acknowledged(one) and acknowledged(two)
    with one.asked("line", ROW) as asking_one, two.asked("line", ROW) as asking_two:
        assert one.verb("deploy", "line:2").code == 0
        assert (ask(one), ask(two)) == (SECOND, SECOND)
        for asking in (asking_one, asking_two):
            asking.more()
    for asking in (asking_one, asking_two):
        runs = [answer for before, answer in zip([None, *asking.answers], asking.answers, strict=False) if answer != before]
        assert asking.failures == [] and runs == [FIRST, SECOND]
    shown = one.verb("status")
    assert shown.code == 0 and name(two) in shown.out and "leads" in shown.out


def test_when_the_leader_dies_the_other_takes_over_and_goes_on_with_the_rollout(pair: tuple[World, World]) -> None:
    one, two = pair
    assert one.verb("deploy", "line:1").code == 0
    before = two.verb("status", "--json").json()["term"]
    os.kill(one.pids()["parent"], signal.SIGSTOP)  # so that it does not start another
    deploying = two.start("deploy", "line:2", "--json")
    one.kill("control")
    wait_until(lambda: leader(two) is two)
    _, said = deploying.communicate(timeout=120)
    assert deploying.returncode == 0, said
    # The dead host's data plane serves its last plan; the step went on without it.
    assert ask(two) == SECOND and ask(one) in (FIRST, SECOND) and two.verb("status", "--json").json()["term"] > before
    os.kill(one.pids()["parent"], signal.SIGCONT)
    wait_until(lambda: set(hosts(two)) == {name(one), name(two)})
    assert ask(one) == SECOND, "it acted by the newest plan before it counted"


def test_a_leader_that_was_stopped_and_wakes_up_changes_nothing(pair: tuple[World, World]) -> None:
    one, two = pair
    assert one.verb("deploy", "line:1").code == 0
    stopped = one.pids()["control"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        wait_until(lambda: leader(two) is two)
        assert two.verb("deploy", "line:2").code == 0, "a stopped host holds a step up for its lease, no longer"
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: set(hosts(two)) == {name(one), name(two)} and ask(one) == SECOND)
    assert leader(one, two) is two and read_control_state(one.folder / "run").pid == stopped
    history = two.verb("history", "line", "--json")
    if history.code == 0:
        assert [event["sequence"] for event in history.json()] == list(range(1, len(history.json()) + 1))


def test_a_host_that_is_gone_holds_up_a_step_for_its_lease_only(pair: tuple[World, World]) -> None:
    one, two = pair
    assert one.verb("deploy", "line:1").code == 0
    two.kill("parent", "control", "serve", *(name for name in two.pids() if name.startswith("worker")))
    assert one.verb("deploy", "line:2").code == 0 and ask(one) == SECOND
    # Who decides judges by a watch of its own, and may find it silent a moment before who answers `status` does.
    wait_until(lambda: not next(host for host in one.verb("status", "--json").json()["hosts"] if host["id"] == name(two))["is_live"])
    two.up()
    wait_until(lambda: set(hosts(one)) == {name(one), name(two)})
    assert ask(two) == SECOND


@pytest.mark.timeout(600)  # labels travel with what was seen in a minute, once that is over
def test_labels_given_to_any_host_are_judged_by_the_one_that_decides(pair: tuple[World, World]) -> None:
    """Predictions of both hosts, their truths told to the host that does not lead: the guard of the leader finds the candidate worse."""
    one, two = pair
    assert one.verb("deploy", "line:1").code == 0
    steps = ("--strategy", "canary", "--steps", "50,100", "--step-time", "10m", "--guard", "mae<=champion+0.2")
    assert one.verb("deploy", "line:2", *steps, "--detach").code == 0
    wait_until(lambda: one.deployment("line")["deployment"]["rollout"]["phase"] == "watching")
    given = 0
    for world in pair:
        with httpx.Client(trust_env=False, timeout=30.0) as client:
            answers = [client.post(f"{world.url}/v2/models/line/infer", json=BODY) for _ in range(300)]
        labels = {answer.headers["x-prediction-id"]: FIRST + (place % 7 - 3) / 10 for place, answer in enumerate(answers)}
        assert {answer.headers["x-model-version"] for answer in answers} == {"1", "2"}
        with Client(home=config.load({"home": two.folder})) as client:
            given += client.give_labels("line", labels).new
    assert given == 600 and leader(one, two) is one
    wait_until(lambda: one.verb("labels", "line", "--json").json()["matched"] == 600, 300.0)
    wait_until(lambda: "rollout" not in two.deployment("line")["deployment"], 300.0)
    last = two.verb("history", "line", "--json").json()[-1]
    assert (last["what"], last["by"]) == ("back", "modelyard") and last["why"].startswith("mae"), last
    wait_until(lambda: two.verb("labels", "line", "--json").json()["matched"] == 600, 300.0)  # its labels do not wait for the minute of predictions


def test_a_home_that_ends_in_order_is_missed_by_nobody(pair: tuple[World, World]) -> None:
    one, two = pair
    wait_until(lambda: set(hosts(two)) == {name(one), name(two)})
    assert one.verb("down").code == 0
    wait_until(lambda: set(hosts(two)) == {name(two)} and leader(two) is two)
    assert two.verb("deploy", "line:1").code == 0 and ask(two) == FIRST


def rows(count: int, *, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Inputs of `line` as its reference has them, but for a column that may lie higher."""
    draw = np.random.default_rng(count)
    c = draw.random((count, 1)).astype(np.float32)
    c[draw.random(count) < 1 / 7] = np.nan
    return {"a": draw.random((count, 1)) + shift, "b": draw.integers(0, 10, (count, 1)), "c": c}


def watched(world: World) -> Any:
    return world.verb("monitor", "line", "--json").json()


def failing(world: World) -> list[dict[str, Any]]:
    time.sleep(1)  # a minute must pass anyway
    return [each for each in watched(world)["alerts"] if each["rule"] == "drift:a" and each["state"] == "firing"]


@pytest.mark.timeout(600)
def test_a_takeover_in_the_middle_of_an_alarm_loses_none_and_tells_none_twice(pair: tuple[World, World]) -> None:
    """Both hosts answer, one of them watches; it dies while its page still waits for a receiver that is away."""
    one, two = pair
    with receiver() as people:
        for world in pair:
            (world.folder / "alerts.toml").write_text(f'[routes.ops]\nkind = "webhook"\nurl = "{people.url}"\n')
        people.answer = 503
        one.home.add("line", offset=2.0, reference=rows(5000))
        assert one.verb("deploy", "line:3").code == 0
        asked = 0
        for world in pair:
            with Client(world.url) as client:
                for inputs in (rows(700, shift=0.8), rows(701, shift=0.8)):
                    client.predict("line", inputs)
                    asked += len(inputs["a"])
        wait_until(lambda: len(failing(one)) == 1 and people.asked != [], timeout_s=240)
        wait_until(lambda: watched(one)["rows"] == asked == watched(two)["rows"], timeout_s=60)
        before, alarm = watched(one), failing(one)[0]
        os.kill(one.pids()["parent"], signal.SIGSTOP)  # so that it does not start another
        one.kill("control")
        wait_until(lambda: leader(two) is two)
        taken: list[dict[str, Any]] = []

        def take(asking: BaseHTTPRequestHandler) -> None:
            taken.append(people.asked[-1].json())
            asking.send_response(204)
            asking.end_headers()

        people.answer = take
        wait_until(lambda: taken != [], timeout_s=120)
        wait_until(lambda: watched(two)["judged_through"] > before["judged_through"], timeout_s=240)
        after = watched(two)
        assert [(each["id"], each["since"]) for each in failing(two)] == [(alarm["id"], alarm["since"])], "it is the alarm that it was"
        assert after["budget"]["spent"] == before["budget"]["spent"] == 1.0
        assert [each["kind"] for each in taken] == ["new"] and alarm["id"] in taken[0]["news"], "who was told once is not told again"
        os.kill(one.pids()["parent"], signal.SIGCONT)
        wait_until(lambda: set(hosts(two)) == {name(one), name(two)})
        assert len(taken) == 1
