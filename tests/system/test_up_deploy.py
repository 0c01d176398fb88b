"""The running world: up, deploy, rollback and down as real processes, killed at every turn."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from world import World, acknowledged, alive, wait_until

from modelyard.errors import NotFound, Unavailable
from modelyard.security.audit import AuditLog, FileLines
from modelyard.types import read_plan

pytestmark = pytest.mark.system

ROW = {"a": np.array([[1.0]]), "b": np.array([[2]]), "c": np.array([[0.5]], np.float32)}
FIRST, SECOND, THIRD = 71.0, 72.0, 73.0  # 1 + 2·10 + 0.5·100, and what versions 2 and 3 add


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A home with three versions of `line`, not up."""
    world = World(tmp_path / "home")
    for offset in (0.0, 1.0, 2.0):
        world.home.add("line", offset=offset)
    yield world
    world.end()


@pytest.fixture
def serving(world: World) -> World:
    """The same, up and serving version 1."""
    world.up()
    assert world.verb("deploy", "line:1").code == 0
    return world


def ask(world: World, name: str = "line", *, version: int | None = None) -> float:
    from modelyard.client import Client

    with Client(world.url) as client:
        return float(client.predict(name, ROW, version=version)["prediction"][0])


def test_deploy_rollback_and_undeploy_under_traffic_lose_no_request(serving: World) -> None:
    with serving.asked("line", ROW) as asking:
        asking.more()
        for reference, answer in (("line:2", SECOND), ("line:3", THIRD)):
            said = serving.verb("deploy", reference, "--json")
            assert said.json()["current"]["version"] == int(reference[-1])
            asking.more()
            assert asking.answers[-1] == answer
        for answer, generation in ((SECOND, 4), (FIRST, 5)):
            assert serving.verb("rollback", "line", "--json").json()["generation"] == generation
            asking.more()
            assert asking.answers[-1] == answer
    assert asking.failures == [] and set(asking.answers) == {FIRST, SECOND, THIRD}
    # Once the next version answers, the one before never does again: versions come in five runs.
    runs = [answer for before, answer in zip([None, *asking.answers], asking.answers, strict=False) if answer != before]
    assert runs == [FIRST, SECOND, THIRD, SECOND, FIRST]
    refused = serving.verb("rollback", "line")
    assert refused.code == 4 and "nothing served as line before" in refused.line
    assert serving.verb("undeploy", "line").code == 0
    wait_until(lambda: acknowledged(serving))
    with pytest.raises(NotFound):
        ask(serving)
    assert AuditLog(FileLines(serving.folder / "audit.jsonl")).verify() == 6


def test_deploying_what_serves_is_a_no_op(serving: World) -> None:
    sequence = read_plan(serving.folder / "plan.json").sequence
    said = serving.verb("deploy", "line:1")
    assert said.code == 0 and "already" in said.out
    assert read_plan(serving.folder / "plan.json").sequence == sequence
    assert serving.deployment("line")["deployment"]["generation"] == 1


def test_the_name_is_the_deployments_and_the_version_the_registrys(serving: World) -> None:
    assert serving.verb("deploy", "line:2", "--as", "other").code == 0
    assert (ask(serving), ask(serving, "other"), ask(serving, "other", version=2)) == (FIRST, SECOND, SECOND)
    with pytest.raises(NotFound):
        ask(serving, "other", version=1)
    serving.home.add("grid")
    refused = serving.verb("deploy", "grid", "--as", "other")
    assert refused.code == 4 and "--as NAME" in refused.line


def test_a_version_whose_golden_answers_differ_here_is_rejected_and_the_old_one_serves_on(serving: World) -> None:
    _, version = serving.home.add("line", offset=5.0, wrong_answers=True)
    said = serving.verb("deploy", f"line:{version}")
    assert said.code == 7 and "golden-replay" in said.err and "was refused" in said.err.splitlines()[0]
    assert ask(serving) == FIRST and serving.deployment("line")["deployment"].get("rollout") is None
    verified = serving.verb("verify", f"line:{version}")
    assert verified.code == 7


def test_a_schema_that_would_refuse_requests_in_use_needs_breaking(serving: World) -> None:
    serving.home.add("shop", name="line")
    said = serving.verb("deploy", "line:4")
    assert said.code == 7 and "input a is gone" in said.err and "--breaking" in said.err
    assert serving.verb("deploy", "line:4", "--breaking").code == 0
    assert serving.verb("rollback", "line").code == 0
    assert ask(serving) == FIRST


def test_a_tampered_bundle_is_refused_and_named(serving: World) -> None:
    version = serving.home.registry.resolve("line:2")
    from modelyard.bundle import collect

    model = max(collect(serving.home.registry.blobs, version.index).blobs.items(), key=lambda item: len(item[1]))[0]
    blob = serving.folder / "blobs" / "sha256" / model.removeprefix("sha256:")
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(content)
    said = serving.verb("deploy", "line:2")
    assert said.code == 6 and "does not hash to its digest" in said.line
    assert serving.verb("verify", "line:2").code == 6
    assert ask(serving) == FIRST


def test_what_serves_cannot_be_deleted(serving: World) -> None:
    assert serving.verb("deploy", "line:2").code == 0
    for number, why in ((2, "deployed"), (1, "rollback")):
        refused = serving.verb("delete", f"line:{number}")
        assert refused.code == 4 and why in refused.line
    assert serving.verb("delete", "line:3").code == 0


@pytest.mark.parametrize("delay_turns", [0, 1, 2, 4, 8, 16])
def test_killing_control_at_any_moment_of_a_deploy_leaves_old_or_new_and_loses_no_prediction(serving: World, delay_turns: int) -> None:
    with serving.asked("line", ROW) as asking:
        asking.more()
        deploying = serving.start("deploy", "line:2", "--json")
        asking.more(1 + 12 * delay_turns)
        serving.kill("control")
        _, said = deploying.communicate(timeout=120)
        wait_until(lambda: serving.verb("status").code == 0)
        wait_until(lambda: serving.deployment("line")["deployment"].get("rollout") is None and acknowledged(serving))
        asking.more()
        current = serving.deployment("line")["deployment"]["current"]["version"]
        assert asking.answers[-1] == {1: FIRST, 2: SECOND}[current]
        if deploying.returncode == 0:
            assert current == 2
        else:
            assert deploying.returncode == 8 and len(said.splitlines()) == 1
    assert asking.failures == []
    assert serving.verb("deploy", "line:2").code == 0 and ask(serving) == SECOND


def test_predictions_go_on_without_a_control_process(serving: World) -> None:
    os.kill(serving.pids()["parent"], signal.SIGSTOP)  # so that it is not started again
    try:
        serving.kill("control")
        assert ask(serving) == FIRST
        refused = serving.verb("status")
        assert refused.code == 8 and "nothing answers" in refused.line
    finally:
        os.kill(serving.pids()["parent"], signal.SIGCONT)
    wait_until(lambda: serving.verb("status").code == 0)
    assert serving.deployment("line")["deployment"]["current"]["version"] == 1


def test_each_plane_is_started_again(serving: World) -> None:
    before = serving.pids()
    for name in ("control", "serve"):
        serving.kill(name)
        wait_until(lambda name=name: serving.pids().get(name, before[name]) != before[name])  # type: ignore[misc]
    wait_until(lambda: acknowledged(serving))
    assert ask(serving) == FIRST
    assert serving.verb("deploy", "line:2").code == 0 and ask(serving) == SECOND


def test_after_kill_9_of_everything_up_finds_the_world_as_it_was(serving: World) -> None:
    pids = serving.pids()
    serving.kill(*pids)
    assert (serving.folder / "run" / "control.json").exists()
    told = serving.up()
    assert not told["was_up"] and told["key"] is None
    wait_until(lambda: acknowledged(serving))
    assert ask(serving) == FIRST


def test_planes_whose_parent_was_killed_serve_on_and_the_next_up_takes_their_place(serving: World) -> None:
    before = serving.pids()
    serving.kill("parent")
    assert ask(serving) == FIRST
    serving.up()
    assert not alive(before["serve"]) and not alive(before["control"])
    wait_until(lambda: acknowledged(serving))
    assert ask(serving) == FIRST
    serving.kill("parent")
    orphans = serving.pids()
    assert serving.verb("down", "--json").json()["stopped"]
    assert not any(map(alive, orphans.values()))


def test_up_on_a_home_that_is_up_says_where(serving: World) -> None:
    pids = serving.pids()
    told = serving.verb("up", "--json").json()
    assert told["was_up"] and told["data"] == serving.url and told["key"] is None
    assert serving.pids() == pids


def test_down_stops_everything_and_again_is_no_error(serving: World) -> None:
    pids = serving.pids()
    assert set(pids) >= {"parent", "control", "serve", "worker-0"}
    assert serving.verb("down", "--json").json()["stopped"]
    assert not any(map(alive, pids.values()))
    assert not serving.verb("down", "--json").json()["stopped"]
    with pytest.raises(Unavailable):
        ask(serving)


def test_the_foreground_parent_ends_with_ctrl_c(world: World) -> None:
    parent = world.start("up", "--json")
    wait_until(lambda: set(world.pids()) >= {"parent", "control", "serve", "worker-0"})
    pids = world.pids()
    wait_until(lambda: acknowledged(world))
    parent.send_signal(signal.SIGINT)
    _, err = parent.communicate(timeout=60)
    assert parent.returncode == 0 and "Traceback" not in err, err
    assert not any(map(alive, pids.values()))


def test_the_admin_key_is_shown_once_and_its_file_is_private(world: World) -> None:
    key = world.up()["key"]
    path = world.folder / "keys" / "admin.key"
    assert path.read_text().strip() == key and path.stat().st_mode & 0o777 == 0o600
    assert key.encode() not in b"".join(file.read_bytes() for file in world.folder.glob("registry.sqlite*"))
    assert world.verb("up", "--json").json()["key"] is None
    world.verb("down")
    assert world.up()["key"] is None


@pytest.mark.parametrize("which", ["port", "control_port"])
def test_a_port_in_use_is_one_clear_line(world: World, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", getattr(world, which)))
        taken.listen()
        said = world.verb("up", "--detach")
    assert said.code == 8 and "is in use" in said.line and f"--{which.replace('_', '-')}" in said.line
    assert world.pids() == {}


def test_a_stale_pid_that_now_belongs_to_another_process_is_left_alone(world: World) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        run = world.folder / "run"
        run.mkdir(parents=True)
        (run / "up.lock").write_text(str(other.pid))
        (run / "control.json").write_text(f'{{"pid": {other.pid}, "url": "http://127.0.0.1:1", "started_at": ""}}')
        (run / "serve.json").write_text(f'{{"pid": {other.pid}, "host": "127.0.0.1", "port": 1, "slots": [0], "started_at": ""}}')
        world.up()
        assert world.verb("down").code == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_verbs_on_the_running_world_say_up_when_it_is_not(world: World) -> None:
    for arguments in (("status",), ("deploy", "line"), ("undeploy", "line"), ("rollback", "line"), ("predict", "line", "--data", "x.csv")):
        said = world.verb(*arguments)
        assert said.code in (3, 8) and len(said.err.splitlines()) == 1
        assert "modelyard up" in said.line or arguments[0] == "predict"
