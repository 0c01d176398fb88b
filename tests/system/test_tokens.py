"""Tokens of an issuer, with the real processes: a person approves as themselves from the command line, and the issuer may be away meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from issuing import Issuer, Signing, issuer
from world import World, wait_until

from modelyard.client import Client
from modelyard.errors import ModelyardError

pytestmark = pytest.mark.system


@pytest.fixture
def real() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@pytest.fixture
def world(real: Issuer, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    (made.folder / "settings.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in real.settings().items()))
    for offset in (0.0, 1.0):
        made.home.add("grid", name="churn", offset=offset)
    made.up()
    try:
        yield made
    finally:
        made.end()


def lets_in(world: World, token: str) -> bool:
    from modelyard.types import read_control_state

    try:
        with Client(read_control_state(world.folder / "run").url, token) as client:
            client.call("GET", "/models", answer=list)
    except ModelyardError:
        return False
    return True


def test_people_act_as_themselves_by_tokens(world: World, real: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.verb("deploy", "churn:1").code == 0
    monkeypatch.setenv("MODELYARD_KEY", real.token(sub="ann", groups=["ml-ops", "ml-approvers"]))
    began = ("deploy", "churn:2", "--strategy", "canary", "--steps", "10,100", "--step-time", "0s", "--step-requests", "0", "--approve", "100")
    assert world.verb(*began, "--detach").code == 0
    monkeypatch.delenv("MODELYARD_KEY")
    wait_until(lambda: "approval" in world.deployment("churn")["deployment"]["rollout"].get("waits", ""))
    monkeypatch.setenv("MODELYARD_KEY", real.token(sub="ann", groups=["ml-ops", "ml-approvers"]))
    refused = world.verb("approve", "churn")
    assert refused.code == 5 and "began this rollout" in refused.err
    monkeypatch.setenv("MODELYARD_KEY", real.token(sub="bob", groups=["ml-approvers"], aud="another"))
    refused = world.verb("approve", "churn")
    assert refused.code == 5 and "another audience" in refused.err and len(refused.err.splitlines()) == 1
    monkeypatch.setenv("MODELYARD_KEY", real.token(sub="bob", groups=["ml-approvers"]))
    assert world.verb("approve", "churn").code == 0
    told = [(event["what"], event["by"]) for event in world.verb("history", "churn", "--json").json()]
    assert ("deploy", f"oidc:{real.url}#ann") in told and ("approve", f"oidc:{real.url}#bob") in told
    entries = world.verb("audit", "list", "--json").json()
    assert [entry["entry"]["principal"] for entry in entries if entry["entry"]["action"] == "approve"][-1] == f"oidc:{real.url}#bob"


def test_the_issuer_may_be_away_over_a_restart_and_keys_are_rotated(world: World, real: Issuer) -> None:
    wait_until(lambda: lets_in(world, real.token()))
    real.status = 500
    world.kill("control")
    wait_until(lambda: lets_in(world, real.token()))
    wait_until(lambda: "issuer is away" in world.verb("status").out)
    found = world.verb("status", "--json").json()["issuer"]
    assert found["keys"] == 1 and "500" in found["trouble"] and "believed until" in world.verb("status").out.replace("\n", " ")
    assert not lets_in(world, Signing("k2").sign(real.claims()))
    before, real.status = real.token(), 200
    real.keys = [Signing("k3", "EdDSA")]
    wait_until(lambda: lets_in(world, real.token()))
    assert not lets_in(world, before), "the key was withdrawn"


def test_from_another_machine_nothing_of_the_home_is_needed(world: World, real: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CONTROL_URL", f"http://127.0.0.1:{world.control_port}")
    elsewhere = World(tmp_path / "unused")
    elsewhere.folder = tmp_path / "elsewhere"
    monkeypatch.setenv("MODELYARD_KEY", real.token(sub="ann"))
    assert "churn:2" in elsewhere.verb("plan", "churn").out
    assert "serves version 1" in elsewhere.verb("deploy", "churn:1").out and "already" in elsewhere.verb("deploy", "churn:1").out
    began = ("deploy", "churn@champion", "--strategy", "canary")
    assert elsewhere.verb(*began).code == 3, "there is no such alias there"
    began = ("deploy", "churn:2", "--strategy", "canary", "--steps", "10,100", "--step-time", "0s", "--step-requests", "0", "--approve", "100")
    assert elsewhere.verb(*began, "--detach").code == 0
    wait_until(lambda: "approval" in elsewhere.deployment("churn")["deployment"]["rollout"].get("waits", ""))
    monkeypatch.setenv("MODELYARD_KEY", real.token(sub="bob", groups=["ml-approvers"]))
    assert elsewhere.verb("approve", "churn").code == 0
    assert f"oidc:{real.url}#bob" in {event["by"] for event in elsewhere.verb("history", "churn", "--json").json()}
    assert not elsewhere.folder.exists()
