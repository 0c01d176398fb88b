"""The examples in docs/reference.md do what they say: a model that is code, packaged, verified and served; the client, both of its faces."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from world import World

from modelyard.types import Placement
from serving import Home, running

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs/reference.md").read_text("utf-8").partition("### Models that are code")[2].partition("\n### ")[0]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def test_the_model_that_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, call = BLOCKS
    name = source.partition("\n")[0].removeprefix("# ")
    (tmp_path / name).write_text(source)
    (tmp_path / "train.py").write_text(call)
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    home = Home(tmp_path / "home")
    version = home.registry.resolve("churn")
    home.placements[version.digest] = Placement(blobs=str(home.registry.blobs.folder), index=version.index)
    home.deploy("churn", {(version.digest, version.version): 100})
    with running(home) as server:
        assert server.predict("churn", [[4.0, 4.0, 8.0]]).json() == {"predictions": [5.0]}


def test_the_command_line_gives_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    (tmp_path / "src").mkdir()
    np.savez(tmp_path / "w.npz", np.array([0.5, 0.25, 0.25]))
    rows = np.random.default_rng(0).random((80, 3))
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,c", *(",".join(map(str, row)) for row in rows)]) + "\n")
    by_column = "sum(inputs[n][:, 0] * w for n, w in zip('abc', self.weights))"
    (tmp_path / "src" / "churn.py").write_text(BLOCKS[0].replace('inputs["X"] @ self.weights', by_column))
    given = ["package", "churn:Churn", "--name", "churn", "--data", "rows.csv", "--code", "src", "--file", "weights=w.npz"]
    done = subprocess.run([sys.executable, "-m", "modelyard.cli", *given], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "two processes of the code give the same answers to 80 rows" in done.stdout, done.stdout + done.stderr
    shown = {}
    for verb in ("inspect", "verify"):
        done = subprocess.run([sys.executable, "-m", "modelyard.cli", verb, "churn"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        shown[verb] = done.stdout
    assert "code/churn.py" in shown["inspect"]


def test_the_client_in_both_of_its_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/reference.md").read_text("utf-8").partition("### `modelyard.Client`")[2].partition("\n## ")[0]
    now, later = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    world = World(tmp_path / "home")
    for offset in (0.0, 1.0):
        world.home.add("grid", name="iris", offset=offset)
    world.up()
    try:
        said = []
        for example in (now, later):
            done = subprocess.run([sys.executable, "-c", example], env=world.environment, capture_output=True, text=True, check=False, timeout=120)
            assert done.returncode == 0, done.stderr
            said.append(done.stdout.splitlines())
        assert re.fullmatch(r"\[[01]\] \[\[.*\]\]", said[0][0])
        assert "2 serves" in said[1] and said[1][said[1].index("2 serves") + 1] == "1"
        assert any("key:admin rollback 1" in line for line in said[1])
    finally:
        world.end()
