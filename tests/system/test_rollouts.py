"""Rollouts on a real home under real traffic: a good version earns it, a bad one goes back by itself, and people can step in at every turn."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from world import World, wait_until

from serving import spoilt_line

pytestmark = pytest.mark.system

BODY = {
    "inputs": [
        {"name": "a", "shape": [1, 1], "datatype": "FP64", "data": [1.0]},
        {"name": "b", "shape": [1, 1], "datatype": "INT64", "data": [2]},
        {"name": "c", "shape": [1, 1], "datatype": "FP32", "data": [0.5]},
    ]
}
ANSWERS = {"1": 71.0, "2": 72.0, "3": 71.0, "4": 71.0}  # 1 + 2·10 + 0.5·100, and what each version adds
CALLERS = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A home that is up: version 1 of `line`, a good second, one that fails on live rows, one that is slow on them, one that answers otherwise."""
    world = World(tmp_path_factory.mktemp("rollouts") / "home")
    world.home.add("line")
    world.home.add("line", offset=1.0)
    world.home.add("line", instead=spoilt_line("errors"))
    world.home.add("line", instead=spoilt_line("slow"))
    world.home.add("line", offset=100.0)
    world.up()
    yield world
    world.end()


class Callers:
    """Several clients that never retry; what each answer said of itself."""

    def __init__(self, url: str, name: str) -> None:
        self.url = f"{url}/v2/models/{name}/infer"
        self.seen: Counter[tuple[str, int]] = Counter()
        self.wrong: list[Any] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(CALLERS)]

    def ask(self) -> None:
        with httpx.Client(trust_env=False, timeout=30.0) as client:
            while not self.stop.wait(0.005):
                answer = client.post(self.url, json=BODY)
                version = answer.headers.get("x-model-version", "?")
                self.seen[version, answer.status_code] += 1
                if answer.status_code == 200 and answer.json()["outputs"][0]["data"] != [ANSWERS[version]]:
                    self.wrong.append(answer.text)

    def failed(self, version: str) -> int:
        return sum(count for (by, status), count in self.seen.items() if by == version and status != 200)

    def answered(self, version: str) -> int:
        return self.seen[version, 200]


@contextmanager
def called(world: World, name: str) -> Iterator[Callers]:
    """Traffic on `name` while the block runs."""
    callers = Callers(world.url, name)
    for thread in callers.threads:
        thread.start()
    try:
        wait_until(lambda: callers.answered("1") > 50)
        yield callers
    finally:
        callers.stop.set()
        for thread in callers.threads:
            thread.join()


def served(world: World, name: str) -> str:
    """`name`, served by version 1."""
    assert world.verb("deploy", "line:1", "--as", name).code == 0
    return name


def history(world: World, name: str) -> list[Any]:
    found: list[Any] = world.verb("history", name, "--json").json()
    return found


def is_over(world: World, name: str) -> bool:
    return "rollout" not in world.deployment(name)["deployment"]


@pytest.mark.parametrize(("reference", "guard"), [("line:3", "error_rate<1%"), ("line:4", "p50<1.5x")], ids=["errors", "slow"])
def test_a_bad_version_goes_back_by_itself_and_the_champion_fails_nobody(home: World, reference: str, guard: str) -> None:
    name = served(home, f"bad{reference[-1]}")
    with called(home, name) as callers:
        began = home.verb(
            "deploy",
            reference,
            "--as",
            name,
            "--strategy",
            "canary",
            "--steps",
            "20,100",
            "--step-time",
            "10m",
            "--guard",
            guard,
            "--detach",
            "--json",
        )
        assert began.json()["rollout"]["strategy"]["kind"] == "canary"
        wait_until(lambda: is_over(home, name))
        before = callers.answered("1")
        wait_until(lambda: callers.answered("1") > before + 50)
    assert callers.wrong == [] and callers.failed("1") == 0 and callers.failed("?") == 0, callers.seen
    deployment = home.deployment(name)
    assert deployment["deployment"]["current"]["version"] == 1 and [each["weight"] for each in deployment["serving"]] == [100]
    last = history(home, name)[-1]
    assert (last["what"], last["by"], last["version"]) == ("back", "modelyard", int(reference[-1]))
    failed = next(verdict for verdict in last["verdicts"] if verdict["outcome"] == "fail")
    assert failed["rule"].startswith(guard[:6]) and failed["numbers"]["requests"] > 0 and last["why"] == failed["evidence"]


def test_a_good_version_earns_the_traffic_step_by_step(home: World) -> None:
    name = served(home, "good")
    with called(home, name) as callers:
        said = home.verb(
            "deploy", "line:2", "--as", name, "--strategy", "canary", "--steps", "10,50,100", "--step-time", "1s", "--step-requests", "20",
            "--guard", "error_rate<20%", "--guard", "disagreement<50%", "--mirror", "50%", "--guard", "golden",
        )  # fmt: skip
    assert said.code == 0, said
    assert callers.wrong == [] and callers.failed("1") == callers.failed("2") == 0, callers.seen
    assert "step 1 of 3" in said.out and "step 3 of 3" in said.out
    told = [(event["what"], event.get("weight")) for event in history(home, name)]
    assert told[-5:] == [("deploy", 0), ("step", 10), ("step", 50), ("step", 100), ("done", 100)]


def test_a_shadow_that_disagrees_goes_back_and_has_answered_nobody(home: World) -> None:
    name = served(home, "shadow")
    with called(home, name) as callers:
        said = home.verb("deploy", "line:5", "--as", name, "--strategy", "shadow", "--step-time", "10m", "--guard", "disagreement<3%", "--promote")
    assert said.code == 7 and "disagreement" in said.err, said
    assert callers.wrong == [] and {version for version, _ in callers.seen} == {"1"}


def test_blue_green_goes_back_by_a_flip(home: World) -> None:
    name = served(home, "flip")
    assert home.verb("deploy", "line:2", "--as", name, "--strategy", "blue-green").code == 0
    serving = {each["version"]: (each["weight"], each["ready"]) for each in home.deployment(name)["serving"]}
    assert serving == {2: (100, 1), 1: (0, 1)}, "the old one stays ready"
    back = home.verb("rollback", name, "--json").json()
    assert back["current"]["version"] == 1 and "warm" not in back
    assert [event["what"] for event in history(home, name)][-3:] == ["rollback", "step", "done"], "nothing was loaded for it"


def test_people_can_step_in(home: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = served(home, "steps")
    key = home.verb("keys", "create", "bob", "--role", "approver", "--json").json()["key"]
    began = ("deploy", "line:2", "--as", name, "--strategy", "canary", "--steps", "10,50,100", "--step-time", "0s", "--step-requests", "0")
    assert home.verb(*began, "--approve", "50", "--detach").code == 0
    wait_until(lambda: "approval" in home.deployment(name)["deployment"]["rollout"].get("waits", ""))
    assert home.verb(*began, "--detach").code == 4, "a second rollout"
    assert home.verb("rollback", name).code == 4 and "abort" in home.verb("rollback", name).err
    assert home.verb("promote", name).code == 4, "a promotion does not skip an approval"
    assert home.verb("approve", name).code == 5, "who began it does not approve it"
    assert "waits: the step of 50 % needs an approval" in home.verb("status").out.replace("\n", " ")
    assert home.verb("pause", name, "--why", "lunch").code == 0
    monkeypatch.setenv("MODELYARD_KEY", key)
    assert home.verb("resume", name).code == 5, "an approver does not operate"
    approved = home.verb("approve", name, "--json").json()
    assert approved["rollout"]["approvals"][0]["by"] == "key:bob" and approved["rollout"]["pause"]["why"] == "lunch"
    monkeypatch.delenv("MODELYARD_KEY")
    assert home.verb("resume", name).code == 0
    wait_until(lambda: is_over(home, name))
    told = [(event["what"], event["by"]) for event in history(home, name)][2:]
    assert [what for what, _ in told] == ["done", "deploy", "step", "pause", "approve", "resume", "step", "step", "done"]
    assert ("approve", "key:bob") in told and ("pause", "key:admin") in told and told[-1] == ("done", "modelyard")


def test_a_plan_says_what_will_happen_and_changes_nothing(home: World) -> None:
    name = served(home, "plan")
    before = home.deployment(name)["deployment"]
    said = home.verb("plan", "line:2", "--as", name, "--strategy", "canary", "--guard", "error_rate<1%", "--guard", "disagreement<3%")
    assert said.code == 0 and "1 % of the requests" in said.out and "2.45%" in said.out and "5 % of the champion's requests mirrored" in said.out
    for flags, code, why in (
        (("--strategy", "direct", "--guard", "error_rate<1%"), 2, "judges nothing"),
        (("--strategy", "canary", "--guard", "auc>0.5"), 2, "classifiers"),
        (("--strategy", "canary", "--breaking"), 2, "direct or blue-green"),
    ):
        said = home.verb("plan", "line:2", "--as", name, *flags)
        assert said.code == code and why in said.err, said
    assert home.verb("plan", "line:9", "--as", name).code == 3
    assert home.verb("plan", "line:2", "--as", "nothing", "--strategy", "canary").code == 2
    assert home.deployment(name)["deployment"] == before
