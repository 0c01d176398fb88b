"""The command line as processes: what bad surroundings get, and that an interrupt leaves nothing half-written."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from world import World, free_ports

from modelyard.bundle import archive
from serving import children

pytestmark = pytest.mark.system

SUPPORT = Path(__file__).parents[1] / "support"
MOUNT = 'mount -t tmpfs -o size=12m none "$1" && shift && exec "$@"'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A home of the test's own, not up."""
    world = World(tmp_path / "home")
    yield world
    world.end()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an XGBoost model file that takes a while to convert, and its data."""
    import xgboost

    folder = tmp_path_factory.mktemp("trained")
    draw = np.random.default_rng(0)
    X = draw.random((3000, 8))
    trained = xgboost.XGBRegressor(n_estimators=200, max_depth=6, n_jobs=1).fit(X, X.sum(axis=1))
    trained.get_booster().feature_names = [f"x{number}" for number in range(8)]
    trained.get_booster().save_model(folder / "model.json")
    np.savetxt(folder / "rows.csv", X, delimiter=",", header=",".join(f"x{number}" for number in range(8)), comments="")
    return folder


def package(trained: Path, name: str = "sum") -> list[str]:
    return ["package", str(trained / "model.json"), "--name", name, "--data", str(trained / "rows.csv")]


def test_an_interrupted_package_leaves_nothing_and_can_be_repeated(world: World, trained: Path) -> None:
    interrupted = world.start(*package(trained))
    assert interrupted.stderr is not None
    first = interrupted.stderr.readline()
    assert first.startswith("Packaging sum: ")
    interrupted.send_signal(signal.SIGINT)
    _, err = interrupted.communicate(timeout=120)
    assert interrupted.returncode == 130 and "Traceback" not in err and "interrupted" in err.splitlines()[-1]
    assert world.verb("models", "--json").json() == []
    assert not list((world.folder / "blobs" / "sha256").glob("*"))
    assert world.verb(*package(trained), "--json").json()["reference"] == "sum:1"


def test_two_packages_at_once_give_one_version_each_or_the_same(world: World, trained: Path) -> None:
    started = [world.start(*package(trained, name), "--json") for name in ("sum", "sum", "other")]
    told = []
    for process in started:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        told.append(json.loads(out)["reference"])
    assert sorted(told) == ["other:1", "sum:1", "sum:1"]


def test_serve_answers_the_curl_line_that_it_prints(world: World) -> None:
    world.home.add("line")
    (port,) = free_ports(1)
    serving = world.start("serve", "line", "--port", str(port), "--workers", "1")
    try:
        assert serving.stdout is not None
        said = []
        while not any("curl" in line for line in said):
            line = serving.stdout.readline()
            assert line, said
            said.append(line)
        assert f"http://127.0.0.1:{port}" in said[0]
        command = said[-1][said[-1].index("curl") :]
        answer = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
        assert json.loads(answer) == {"predictions": [45.5]}
    finally:
        serving.send_signal(signal.SIGINT)
        _, err = serving.communicate(timeout=60)
    assert serving.returncode == 0 and "Traceback" not in err


def test_a_worker_that_starts_again_has_its_model_though_it_was_deleted(world: World) -> None:
    world.home.add("line")
    (port,) = free_ports(1)
    serving = world.start("serve", "line", "--port", str(port), "--grpc-port", "-1", "--workers", "1", "--json")
    held = world.home.folder / "blobs" / "held"
    try:
        assert serving.stdout is not None and "ready" in serving.stdout.readline()
        world.verb("delete", "line:1")
        world.verb("gc")
        assert world.home.registry.blobs.list() == ()
        (victim,) = children(serving.pid)
        os.kill(victim, signal.SIGKILL)
        until = time.monotonic() + 30
        while time.monotonic() < until and not _predicts(port):
            time.sleep(0.05)
        assert children(serving.pid) != [victim] and _predicts(port)
        assert len(list(held.iterdir())) == 1
    finally:
        serving.kill()
        serving.communicate(timeout=60)
    (left,) = held.iterdir()
    old = time.time() - 60
    os.utime(left / "holder.lock", (old, old))
    world.verb("models")
    assert not list(held.iterdir()), "one that was killed does not hold for ever"


def _predicts(port: int) -> bool:
    import urllib.request

    body = b'{"instances": [{"a": 1, "b": 2, "c": 3}]}'
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/line:predict", body, timeout=10) as answer:
            return bool(json.loads(answer.read()) == {"predictions": [321.0]})
    except OSError:
        return False


def test_an_image_started_by_a_platform_finds_port_and_model_and_ignores_its_argument(world: World, tmp_path: Path) -> None:
    world.home.add("line")
    (tmp_path / "mounted").mkdir()
    archive.export(world.home.registry.blobs, world.home.registry.versions("line")[-1].index, tmp_path / "mounted" / "line.tar")
    (port,) = free_ports(1)
    del world.environment["MODELYARD_PORT"]  # ours would win
    world.environment |= {"AZUREML_MODEL_DIR": str(tmp_path / "mounted"), "PORT": str(port)}
    serving = world.start("serve", "serve", "--grpc-port", "-1", "--workers", "1", "--json")
    try:
        assert serving.stdout is not None
        card = json.loads(serving.stdout.readline())
        assert card["url"].endswith(f":{port}") and [each["name"] for each in card["models"]] == ["line"]
        assert _predicts(port)
    finally:
        serving.send_signal(signal.SIGINT)
        _, err = serving.communicate(timeout=60)
    assert "listens on loopback" in err and serving.returncode == 0


def test_serve_of_a_model_whose_golden_answers_differ_ends_with_one_line(world: World) -> None:
    world.home.add("line", wrong_answers=True)
    (port,) = free_ports(1)
    serving = world.start("serve", "line", "--port", str(port), "--workers", "1")
    _, err = serving.communicate(timeout=60)
    assert serving.returncode == 1 and any("line is not served" in line for line in err.splitlines())


@pytest.mark.parametrize("where", ["below a file", "in /proc"])
@pytest.mark.parametrize("verb", [["models"], ["up", "--detach"], ["package", "m.onnx", "--name", "m", "--data", "d.csv"], ["trust", "list"]])
def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path, where: str, verb: list[str]) -> None:
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "home" if where == "below a file" else Path("/proc/modelyard")
    if where == "in /proc" and not Path("/proc").is_dir():
        pytest.skip("there is no /proc here")
    done = subprocess.run([sys.executable, "-m", "modelyard.cli", *verb, "--home", str(home)], capture_output=True, text=True, check=False)
    assert done.returncode in (2, 3) and len(done.stderr.splitlines()) == 1 and str(home) in done.stderr


def test_a_pickle_is_refused_wherever_it_is_offered(world: World, tmp_path: Path) -> None:
    import pickle

    (tmp_path / "model.pkl").write_bytes(pickle.dumps({}))
    (tmp_path / "rows.csv").write_text("a\n1\n")
    for verb in (["package", "--name", "m", "--data", str(tmp_path / "rows.csv")], ["inspect"], ["verify"], ["import"], ["serve"]):
        said = world.verb(verb[0], str(tmp_path / "model.pkl"), *verb[1:])
        lines = [line for line in said.err.splitlines() if line.startswith("modelyard: ")]
        assert said.code in (2, 3, 6) and len(lines) == 1 and "Traceback" not in said.err, (verb, said)
    assert world.verb("models", "--json").json() == []


DISK = """
import json, os, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from world import World

world = World(Path(sys.argv[2]) / "home")
row = {"a": np.array([[1.0]]), "b": np.array([[2]]), "c": np.array([[0.5]], np.float32)}
world.home.add("line")
world.home.add("line", offset=1.0)
try:
    world.up()
    assert world.verb("deploy", "line:1").code == 0
    with world.asked("line", row) as asking:
        asking.more()
        ballast = Path(sys.argv[2]) / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        before = (world.folder / "plan.json").read_bytes()
        said = world.verb("deploy", "line:2")
        assert said.code == 11 and "no space left" in said.line, said
        said = world.verb("rollback", "line")
        assert said.code in (4, 11) and len(said.err.splitlines()) == 1, said
        said = world.verb("alias", "line", "champion", "1")
        assert said.code == 11, said
        assert (world.folder / "plan.json").read_bytes() == before
        assert world.home.registry.models()[0].aliases == {}
        asking.more(20)
        ballast.unlink()
        assert world.verb("deploy", "line:2").code == 0
        asking.more()
        assert asking.answers[-1] == 72.0
    assert asking.failures == [], asking.failures
    assert world.home.registry.records and world.verb("audit", "verify").code == 0
    print("WELL")
finally:
    world.end()
"""


def test_a_full_disk_refuses_changes_and_keeps_answering(tmp_path: Path, lacks: Callable[[str], NoReturn]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(disk)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        lacks("leave to mount a small disk")
    done = subprocess.run([*inside, sys.executable, "-c", DISK, str(SUPPORT), str(disk)], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("WELL\n"), done.stdout + done.stderr
