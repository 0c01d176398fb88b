"""The examples in docs/reference.md do what they say: a model that is code, packaged, verified and served; the client, both of its faces."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from issuing import Signing
from world import World, wait_until

from modelyard import config
from modelyard.control.access import home_identity, home_issuer
from modelyard.types import Placement, Principal
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


def test_an_approval_as_it_is_typed(tmp_path: Path) -> None:
    text = (ROOT / "docs/reference.md").read_text("utf-8").partition("### `modelyard approve`")[2].partition("\n### ")[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    create, create_other, deploy, by_author, by_other, history = block.splitlines()
    world = World(tmp_path / "home")
    for offset in (0.0, 1.0):
        world.home.add("grid", name="churn", offset=offset)
    world.up()
    environment = {**world.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def typed(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False, timeout=120)

    try:
        assert world.verb("deploy", "churn:1").code == 0
        for line, name in ((create, "ANN"), (create_other, "BOB")):
            environment[name] = typed(line).stdout.split()[0]
        assert typed(deploy).returncode == 0
        wait_until(lambda: "approval" in world.deployment("churn")["deployment"]["rollout"].get("waits", ""))
        refused = typed(by_author)
        assert refused.returncode == 5 and "somebody else approves it" in refused.stderr, refused
        assert typed(by_other).returncode == 0
        wait_until(lambda: world.deployment("churn")["deployment"].get("rollout") is None)
        shown = typed(history)
        told = [tuple(line.split()[3:5]) for line in shown.stdout.splitlines() if "key:" in line]
        assert [each for each in told if each[1] != "step"] == [("key:admin", "deploy"), ("key:ann", "deploy"), ("key:bob", "approve")], shown
        auditor = world.verb("audit", "list", "--json").json()
        assert [each["entry"]["principal"] for each in auditor if each["entry"]["action"] == "approve"] == ["key:ann", "key:bob"]
    finally:
        world.end()


def test_the_settings_for_an_issuer_let_its_people_in(tmp_path: Path) -> None:
    text = (ROOT / "docs/reference.md").read_text("utf-8").partition("### Tokens of an issuer")[2]
    (block,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    signing, now = Signing("k1"), int(time.time())
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [signing.jwk()]}))
    (tmp_path / "settings.toml").write_text(f'{block}oidc_keys_file = "{tmp_path}/keys.json"\n')
    settings = config.load({"home": tmp_path})
    issuer = home_issuer(settings, failed=lambda _: None, went_well=lambda: None)
    assert issuer is not None
    issuer.look()
    claims = {"iss": "https://login.example/realms/ml", "aud": ["account", "modelyard"], "sub": "f:1:ann", "iat": now, "exp": now + 300}
    token = signing.sign({**claims, "realm_access": {"roles": ["offline_access", "ml-reviewers"]}})
    assert home_identity(settings, issuer).authenticate(token) == Principal("oidc:https://login.example/realms/ml#f:1:ann", ("viewer", "approver"))
