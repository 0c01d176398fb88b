"""Deployments as records: what is written is read back, and what it names is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.errors import Conflict, NotFound
from modelyard.rollout import machine
from modelyard.rollout.deployments import KIND, Deployments
from modelyard.targets.base import Deployment, Release
from serving import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    for offset in (0.0, 1.0):
        home.add("line", offset=offset)
    return home


def release(home: Home, number: int) -> Release:
    version = home.registry.resolve(f"line:{number}")
    return Release(model=version.name, version=number, digest=version.digest, index=version.index)


def test_what_is_put_is_found_and_listed(home: Home) -> None:
    deployments = Deployments(home.registry)
    assert deployments.find("line") is None and deployments.all() == ()
    with pytest.raises(NotFound, match="modelyard status"):
        deployments.get("line")
    begun = machine.begin(Deployment(name="line", model="line", generation=0), release(home, 1), kind="deploy", gates=(), at="t")
    stored = deployments.put(begun, expected=0)
    assert stored.deployment == begun and deployments.get("line") == stored and deployments.all() == (stored,)


def test_the_record_names_all_that_must_not_be_deleted(home: Home) -> None:
    serving = Deployment(name="line", model="line", generation=2, current=release(home, 2), previous=(release(home, 1),))
    Deployments(home.registry).put(serving, expected=0)
    record = home.registry.records.get(KIND, "line")
    assert record is not None
    assert record.body["digests"] == [release(home, 2).digest] and [step["version"] for step in record.body["history"]] == [1]


def test_a_stale_revision_is_refused(home: Home) -> None:
    deployments = Deployments(home.registry)
    serving = Deployment(name="line", model="line", generation=1, current=release(home, 1))
    stored = deployments.put(serving, expected=0)
    with pytest.raises(Conflict):
        deployments.put(serving, expected=0)
    newer = deployments.put(serving, expected=stored.revision)
    with pytest.raises(Conflict):
        deployments.remove(stored)
    deployments.remove(newer)
    assert deployments.find("line") is None


def test_a_rollout_written_by_0_1_0_is_read(home: Home) -> None:
    goal = {"model": "line", "version": 1, "digest": release(home, 1).digest, "index": release(home, 1).index}
    gate = {"outcome": "pass", "rule": "seal", "evidence": "it is sealed"}
    rollout = {"kind": "deploy", "strategy": "direct", "goal": goal, "generation": 3, "phase": "holding", "started_at": "t", "verdicts": [gate]}
    old = {"name": "line", "model": "line", "generation": 2, "current": goal, "rollout": rollout}
    home.registry.records.put(KIND, "line", {"digests": [goal["digest"]], "history": [], "deployment": old}, expected=0)
    found = Deployments(home.registry).get("line").deployment
    assert found.rollout is not None and found.rollout.strategy == machine.DIRECT and found.rollout.gates[0].rule == "seal"
    assert machine.plan(found) is not None


def test_the_list_is_read_again_only_when_it_has_changed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    deployments, elsewhere = Deployments(home.registry), Deployments(home.registry)
    kept = deployments.put(Deployment(name="a", model="line", generation=1, current=release(home, 1)), expected=0)
    assert deployments.all() == (kept,) and deployments.all() is deployments.all()
    other = elsewhere.put(Deployment(name="b", model="line", generation=1, current=kept.deployment.current), expected=0)
    assert deployments.all() == (kept, other)
    elsewhere.remove(kept)
    assert deployments.all() == (other,)
