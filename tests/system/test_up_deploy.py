"""The running world: up, deploy, rollback and down as real processes, killed at every turn."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from world import World, acknowledged, alive, wait_until

from modelyard.bundle import collect
from modelyard.client import Client
from modelyard.errors import Conflict, NotFound, Unavailable
from modelyard.targets.base import Deployment
from modelyard.types import read_control_state, read_plan

pytestmark = pytest.mark.system

ROW = {"a": np.array([[1.0]]), "b": np.array([[2]]), "c": np.array([[0.5]], np.float32)}
FIRST, SECOND, THIRD = 71.0, 72.0, 73.0  # 1 + 2·10 + 0.5·100, and what versions 2 and 3 add


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A home that is up, with three versions of `line`. Tests share it, each under a name of its own; what they kill, they bring back."""
    world = World(tmp_path_factory.mktemp("serving") / "home")
    for offset in (0.0, 1.0, 2.0):
        world.home.add("line", offset=offset)
    world.up()
    yield world
    world.end()


@pytest.fixture
def name(serving: World, request: pytest.FixtureRequest) -> str:
    """A served name of the test's own, on version 1."""
    own = f"t{zlib.crc32(request.node.name.encode()):x}"
    assert serving.verb("deploy", "line:1", "--as", own).code == 0
    return own


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A home of the test's own, not up."""
    world = World(tmp_path / "home")
    yield world
    world.end()


def audited(world: World) -> int:
    """How many entries the home's audit chains have, all of them whole."""
    report = world.verb("audit", "verify", "--json").json()
    assert report["is_whole"]
    return sum(chain["entries"] for chain in report["chains"])


def ask(world: World, name: str, *, version: int | None = None) -> float:
    with Client(data_url=world.url) as client:
        return float(client.predict(name, ROW, version=version)["prediction"][0])


def test_deploy_rollback_and_undeploy_under_traffic_lose_no_request(serving: World, name: str) -> None:
    before = audited(serving)
    with serving.asked(name, ROW) as asking:
        asking.more()
        for reference, answer in (("line:2", SECOND), ("line:3", THIRD)):
            said = serving.verb("deploy", reference, "--as", name, "--json")
            assert said.json()["current"]["version"] == int(reference[-1])
            asking.more()
            assert asking.answers[-1] == answer
        for answer, generation in ((SECOND, 4), (FIRST, 5)):
            assert serving.verb("rollback", name, "--json").json()["generation"] == generation
            asking.more()
            assert asking.answers[-1] == answer
    assert asking.failures == []
    # Once the next version answers, the one before never does again: versions come in five runs.
    runs = [answer for before, answer in zip([None, *asking.answers], asking.answers, strict=False) if answer != before]
    assert runs == [FIRST, SECOND, THIRD, SECOND, FIRST]
    refused = serving.verb("rollback", name)
    assert refused.code == 4 and "nothing served" in refused.line
    assert serving.verb("undeploy", name).code == 0
    wait_until(lambda: acknowledged(serving))
    with pytest.raises(NotFound):
        ask(serving, name)
    assert audited(serving) == before + 5


def test_deploying_what_serves_is_a_no_op(serving: World, name: str) -> None:
    sequence = read_plan(serving.folder / "plan.json").sequence
    said = serving.verb("deploy", "line:1", "--as", name)
    assert said.code == 0 and "already" in said.out
    assert read_plan(serving.folder / "plan.json").sequence == sequence
    assert serving.deployment(name)["deployment"]["generation"] == 1


def test_the_name_is_the_deployments_and_the_version_the_registrys(serving: World, name: str) -> None:
    assert serving.verb("deploy", "line:2", "--as", f"{name}-b").code == 0
    assert (ask(serving, name), ask(serving, f"{name}-b"), ask(serving, f"{name}-b", version=2)) == (FIRST, SECOND, SECOND)
    with pytest.raises(NotFound):
        ask(serving, f"{name}-b", version=1)
    serving.home.add("grid")
    refused = serving.verb("deploy", "grid", "--as", name)
    assert refused.code == 4 and "--as NAME" in refused.line


def test_a_version_whose_golden_answers_differ_here_is_rejected_and_the_old_one_serves_on(serving: World, name: str) -> None:
    _, version = serving.home.add("line", offset=5.0, wrong_answers=True)
    said = serving.verb("deploy", f"line:{version}", "--as", name)
    assert said.code == 7 and "golden-replay" in said.err and "was refused" in said.err.splitlines()[0]
    assert ask(serving, name) == FIRST and serving.deployment(name)["deployment"].get("rollout") is None
    assert serving.verb("verify", f"line:{version}").code == 7
    serving.verb("delete", f"line:{version}")


def test_a_schema_that_would_refuse_requests_in_use_needs_breaking(serving: World, name: str) -> None:
    _, version = serving.home.add("shop", name="line")
    said = serving.verb("deploy", f"line:{version}", "--as", name)
    assert said.code == 7 and "input a is gone" in said.err and "--breaking" in said.err
    assert serving.verb("deploy", f"line:{version}", "--as", name, "--breaking").code == 0
    assert serving.verb("rollback", name).code == 0
    assert ask(serving, name) == FIRST


def test_a_tampered_bundle_is_refused_and_named(serving: World) -> None:
    serving.home.add("line", name="spoilt", offset=0.125)
    version = serving.home.registry.resolve("spoilt")
    model = max(collect(serving.home.registry.blobs, version.index).blobs.items(), key=lambda item: len(item[1]))[0]
    blob = serving.folder / "blobs" / "sha256" / model.removeprefix("sha256:")
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(content)
    for verb in ("deploy", "verify", "inspect"):
        said = serving.verb(verb, "spoilt")
        assert said.code == 6 and "does not hash to its digest" in said.line


def test_what_serves_or_is_a_way_back_cannot_be_deleted(serving: World) -> None:
    for offset in (0.25, 0.5, 0.75):
        serving.home.add("line", name="kept", offset=offset)
    for number in (1, 2):
        assert serving.verb("deploy", f"kept:{number}").code == 0
    for number, why in ((2, "deployed"), (1, "rollback")):
        refused = serving.verb("delete", f"kept:{number}")
        assert refused.code == 4 and why in refused.line
    assert serving.verb("delete", "kept:3").code == 0


def test_what_predict_says_is_what_the_model_answers(serving: World, name: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("b,a,more,c\n2,1.0,x,0.5\n3,1.0,y,\n")
    said = serving.verb("predict", name, "--data", str(tmp_path / "rows.csv"), "--json")
    assert said.json()["outputs"] == {"prediction": [FIRST, 31.0]}
    saved = serving.verb("predict", name, "--data", str(tmp_path / "rows.csv"), "-o", str(tmp_path / "answers.csv"))
    assert saved.code == 0 and (tmp_path / "answers.csv").read_text().splitlines() == ["prediction", "71.0", "31.0"]


def test_status_tells_traffic_latency_and_shift(serving: World, name: str) -> None:
    with serving.asked(name, ROW) as asking:
        asking.more(70)
    wait_until(lambda: (serving.deployment(name).get("traffic") or {}).get("requests", 0) >= 70)
    traffic = serving.deployment(name)["traffic"]
    assert 0 < traffic["p50_s"] <= traffic["p99_s"] and {shift["feature"] for shift in traffic["shifts"]} >= {"a", "b", "c"}
    shown = serving.verb("status")
    assert shown.code == 0 and name in shown.out and "shift (PSI)" in shown.out


def test_killing_control_at_any_moment_of_a_deploy_leaves_old_or_new_and_loses_no_prediction(serving: World, name: str) -> None:
    with serving.asked(name, ROW) as asking:
        for answers_before_the_kill in (1, 15, 45):
            asking.more()
            deploying = serving.start("deploy", "line:2", "--as", name, "--json")
            asking.more(answers_before_the_kill)
            serving.kill("control")
            _, said = deploying.communicate(timeout=120)
            wait_until(lambda: serving.verb("status").code == 0)
            wait_until(lambda: serving.deployment(name)["deployment"].get("rollout") is None and acknowledged(serving))
            asking.more()
            current = serving.deployment(name)["deployment"]["current"]["version"]
            assert asking.answers[-1] == {1: FIRST, 2: SECOND}[current]
            if deploying.returncode == 0:
                assert current == 2
            else:
                assert deploying.returncode == 8 and len(said.splitlines()) == 1
            if current == 2:
                assert serving.verb("rollback", name).code == 0
    assert asking.failures == []
    assert serving.verb("deploy", "line:2", "--as", name).code == 0 and ask(serving, name) == SECOND


def test_of_changes_at_the_same_time_each_is_made_whole_or_refused(serving: World, name: str) -> None:
    state = read_control_state(serving.folder / "run")
    key = (serving.folder / "keys" / "admin.key").read_text().strip()
    told: list[str] = []

    def change(number: int) -> None:
        with Client(state.url, key) as control:
            for turn in range(6):
                try:
                    if (number + turn) % 3 == 2:
                        control.call("POST", f"/deployments/{name}/rollback", answer=Deployment)
                    else:
                        control.call("POST", f"/deployments/{name}", {"reference": f"line:{1 + (number + turn) % 3}"}, answer=Deployment)
                    told.append("made")
                except Conflict:
                    told.append("refused")

    with serving.asked(name, ROW) as asking:
        threads = [threading.Thread(target=change, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: serving.deployment(name)["deployment"].get("rollout") is None and acknowledged(serving))
        asking.more()
        deployment = serving.deployment(name)["deployment"]
        assert asking.answers[-1] == {1: FIRST, 2: SECOND, 3: THIRD}[deployment["current"]["version"]]
    assert asking.failures == [] and len(told) == 36 and "made" in told
    assert deployment["last"]["verdict"]["outcome"] == "pass"
    audited(serving)


def test_predictions_go_on_without_a_control_process(serving: World, name: str) -> None:
    parent = serving.pids()["parent"]
    os.kill(parent, signal.SIGSTOP)  # so that it does not start another
    try:
        serving.kill("control")
        assert ask(serving, name) == FIRST
        refused = serving.verb("status")
        assert refused.code == 8 and "nothing answers" in refused.line
    finally:
        os.kill(parent, signal.SIGCONT)
    wait_until(lambda: serving.verb("status").code == 0)
    assert serving.deployment(name)["deployment"]["current"]["version"] == 1


def test_each_plane_is_started_again(serving: World, name: str) -> None:
    before = serving.pids()
    for plane in ("control", "serve"):
        serving.kill(plane)
        wait_until(lambda plane=plane: serving.pids().get(plane, before[plane]) != before[plane])  # type: ignore[misc]
    wait_until(lambda: acknowledged(serving) and serving.verb("status").code == 0)
    assert ask(serving, name) == FIRST
    assert serving.verb("deploy", "line:2", "--as", name).code == 0 and ask(serving, name) == SECOND


def test_after_kill_9_of_everything_up_finds_the_world_as_it_was(serving: World, name: str) -> None:
    serving.kill(*serving.pids())
    assert (serving.folder / "run" / "control.json").exists()
    told = serving.up()
    assert not told["was_up"] and told["key"] is None
    wait_until(lambda: acknowledged(serving))
    assert ask(serving, name) == FIRST


def test_planes_whose_parent_was_killed_serve_on_and_are_taken_over_or_stopped(serving: World, name: str) -> None:
    before = serving.pids()
    serving.kill("parent")
    assert ask(serving, name) == FIRST
    serving.up()
    assert not alive(before["serve"]) and not alive(before["control"])
    wait_until(lambda: acknowledged(serving))
    serving.kill("parent")
    orphans = serving.pids()
    assert serving.verb("down", "--json").json()["stopped"]
    assert not any(map(alive, orphans.values()))
    serving.up()
    wait_until(lambda: acknowledged(serving))
    assert ask(serving, name) == FIRST


def test_a_plane_that_had_only_begun_when_everything_was_killed_is_taken_over(serving: World, name: str) -> None:
    control_pid = serving.folder / "run" / "control.pid"
    before = serving.pids()
    serving.kill("control")
    wait_until(lambda: control_pid.read_text() not in {"", str(before["control"])})
    begun = int(control_pid.read_text())
    os.kill(begun, signal.SIGSTOP)  # it cannot say who it is, by its lock or where it listens
    try:
        assert begun not in serving.pids().values()
        serving.kill("parent", "serve", "worker-0")
    finally:
        os.kill(begun, signal.SIGCONT)
    serving.up()
    assert not alive(begun)
    wait_until(lambda: acknowledged(serving))
    assert ask(serving, name) == FIRST


def test_up_shows_its_key_once_says_where_it_is_and_down_stops_it(world: World) -> None:
    key = world.up()["key"]
    path = world.folder / "keys" / "admin.key"
    assert path.read_text().strip() == key and path.stat().st_mode & 0o777 == 0o600
    assert key.encode() not in b"".join(file.read_bytes() for file in world.folder.glob("registry.sqlite*"))
    pids = world.pids()
    assert set(pids) == {"parent", "control", "serve", "worker-0"}
    again = world.up()
    assert again["was_up"] and again["data"] == world.url and again["key"] is None and world.pids() == pids
    assert world.verb("down", "--json").json()["stopped"]
    assert not any(map(alive, pids.values()))
    assert not world.verb("down", "--json").json()["stopped"]
    with pytest.raises(Unavailable), Client(data_url=world.url) as client:
        client.inputs("line")


def test_the_foreground_parent_ends_with_ctrl_c_and_leaves_a_stale_pid_of_another_process_alone(world: World) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        run = world.folder / "run"
        run.mkdir(parents=True)
        (run / "up.lock").write_text(str(other.pid))
        (run / "control.pid").write_text(str(other.pid))
        (run / "serve.lock").write_text(str(other.pid))
        (run / "control.json").write_text(f'{{"pid": {other.pid}, "url": "http://127.0.0.1:1", "started_at": ""}}')
        (run / "serve.json").write_text(f'{{"pid": {other.pid}, "host": "127.0.0.1", "port": 1, "slots": [0], "started_at": ""}}')
        parent = world.start("up", "--json")
        wait_until(lambda: set(world.pids()) == {"parent", "control", "serve", "worker-0"} and world.pids()["control"] != other.pid)
        pids = world.pids()
        wait_until(lambda: acknowledged(world))
        parent.send_signal(signal.SIGINT)
        out, err = parent.communicate(timeout=60)
        assert parent.returncode == 0 and "Traceback" not in err, (out, err)
        assert not any(map(alive, pids.values())) and other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("which", ["port", "control_port"])
def test_a_port_in_use_is_one_clear_line(world: World, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", getattr(world, which)))
        taken.listen()
        said = world.ask_up()
    assert said.code == 8 and "is in use" in said.line and f"--{which.replace('_', '-')}" in said.line
    assert world.pids() == {}


def test_verbs_on_the_running_world_say_up_when_it_is_not(world: World) -> None:
    for arguments in (("status",), ("deploy", "line"), ("undeploy", "line"), ("rollback", "line")):
        said = world.verb(*arguments)
        assert said.code == 8 and "modelyard up" in said.line
