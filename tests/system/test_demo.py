"""The demo as a person runs it: a real process, a real home, real requests."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from modelyard.demo.world import private_world
from modelyard.errors import ModelyardError

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
DEMO = [sys.executable, "-m", "modelyard.cli", "demo"]


def processes_of(home):
    """Pids of all processes whose home lies in `home`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"MODELYARD_HOME={home}".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@pytest.fixture
def environment(tmp_path):
    return {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "2"}


@pytest.fixture
def kept(environment, tmp_path):
    """A demo that was left running, and its report."""
    done = subprocess.run([*DEMO, "--keep", "--json"], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    yield report
    subprocess.run([sys.executable, "-m", "modelyard.cli", "down", "--home", report["home"]], check=True, capture_output=True, timeout=60)
    assert processes_of(tmp_path) == []


def test_the_whole_story_and_what_it_leaves_running(kept):
    packaged, traffic, months = kept["packaged"], kept["traffic"], kept["months"]
    assert packaged["rows"] == 4250
    assert packaged["largest_difference"] < 1e-5
    assert packaged["digest"].startswith("sha256:")
    assert traffic["answered"] == traffic["requests"] == 13_129
    assert traffic["refused"] == {}
    assert 0 < traffic["p50_s"] <= traffic["p99_s"]
    assert [month["month"] for month in months] == [f"{year}-{number:02}" for year in (2011, 2012) for number in range(1, 13)][6:]
    assert sum(month["rows"] for month in months) == 13_129
    assert max(month["error"] for month in months) > 3 * packaged["training_error"]
    assert "fall" not in months[0]["unseen"]
    assert months[3]["unseen"]["fall"] > 700
    assert months[0]["shifts"]["temp"] > 0.25
    assert kept["speed"]["trained_s"] > 0 < kept["speed"]["endpoint_s"]
    assert kept["live"]["profiled_rows"] >= traffic["answered"]
    assert kept["live"]["requests"] > traffic["requests"]
    assert kept["live"]["shifts"]["season"] > 0.25
    assert sum(kept["live"]["failures"].values()) == 1
    assert kept["refusal"].startswith("HTTP 4")
    assert "hour" in kept["refusal"]

    watched = kept["watched"]
    assert all("2012-02-01" <= watched[each]["at"] < "2012-04-01" for each in ("drift", "error")) and 0 < watched["hours"] < 1440
    assert watched["error"]["rule"].partition(":")[0] in ("concept", "performance") and watched["error"]["harm"] > 0.5 and watched["error"]["why"]
    assert watched["message"].startswith("[page] bikes: ")
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert f"```text\n{watched['message'].splitlines()[0]}\n" in readme, "the README shows the alert that the demo does"
    assert f"on {date.fromisoformat(watched['error']['at']):%-d %B}:" in readme

    live, bad = kept["releases"]
    assert live["is_live"] and live["version"] == 2 and live["weights"] == [10, 50, 100]
    assert live["errors"]["2"] < 0.95 * live["errors"]["1"]
    assert not bad["is_live"] and bad["version"] == 3 and bad["weights"] == [10] and "prediction_shift" in bad["why"]
    assert live["failed"] == bad["failed"] == 0

    asked = subprocess.run(kept["curl"], shell=True, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(asked.stdout) == json.loads(kept["answer"])


def test_an_interrupt_leaves_nothing(environment, tmp_path):
    demo = subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while demo.poll() is None and not list(tmp_path.glob("modelyard-demo-*/run/serve.json")):
            time.sleep(0.05)
        assert processes_of(tmp_path), "nothing was running when the interrupt came"
        os.killpg(demo.pid, signal.SIGINT)
        _, said = demo.communicate(timeout=60)
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()
    assert demo.returncode == 130, said
    assert "Traceback" not in said
    assert processes_of(tmp_path) == []
    assert list(tmp_path.glob("modelyard-demo-*")) == []


def test_planes_whose_parent_was_killed_are_stopped_too(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private_world() as world:
        world.start()
        home = world.settings.home
        assert world.verb("status")["data_plane"]["workers"] >= 1
        parent = int((home / "run" / "up.lock").read_text())
        os.kill(parent, signal.SIGKILL)
        assert len(processes_of(home)) > 1
    assert processes_of(home) == []
    assert not home.exists()


def test_a_verb_that_fails_says_what_the_command_line_said(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private_world() as world, pytest.raises(ModelyardError, match="is not up; start it"):
        world.verb("status")
