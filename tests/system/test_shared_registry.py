"""Two homes on one PostgreSQL and one S3-compatible store: what one registers the other opens and keeps, and none undoes the other's work."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from postgres import Postgres
from s3 import S3
from world import World, alive, wait_until

from modelyard import bundle, config, registry
from modelyard.bundle import Built
from modelyard.client import Client
from modelyard.control.plane import ControlPlane
from modelyard.errors import Conflict, NotFound, Unavailable
from modelyard.types import Principal
from serving import make_bundle

pytestmark = pytest.mark.system

ROW = {"a": np.array([[1.0]]), "b": np.array([[2]]), "c": np.array([[0.5]], np.float32)}
ADA, BOB = Principal("local:ada", ("admin",)), Principal("local:bob", ("admin",))


@pytest.fixture
def homes(tmp_path: Path, postgres: Postgres, s3: S3) -> Any:
    places = {"records_url": postgres.url(), "blobs_url": s3.url()}
    planes = [ControlPlane(config.load({"home": tmp_path / name, **places})) for name in ("a", "b")]
    yield planes
    for plane in planes:
        plane.close()


def test_what_one_home_registers_another_opens(homes: list[ControlPlane], built: Built, trust: Any, s3: S3) -> None:
    here, there = homes
    version = here.registry.add("churn", built)
    assert there.registry.resolve("churn") == version
    assert bundle.open(there.registry.blobs, version.index, trust=trust).digest == built.digest
    folder = there.registry.fetch("churn", 1)
    assert folder == there.settings.home / "blobs"
    assert {path.name for path in (folder / "sha256").iterdir()} == {digest.removeprefix("sha256:") for digest in built.blobs}
    with pytest.raises(NotFound):
        there.registry.fetch("churn", 2)
    s3.stop()
    try:
        assert there.registry.fetch("churn", 1) == folder
        assert bundle.open(there.registry.blobs, version.index, trust=trust).digest == built.digest
        with pytest.raises(Unavailable):
            there.registry.add("other", built)
        assert [model.name for model in here.models()] == ["churn"]
    finally:
        s3.start()


def test_both_homes_write_one_history(homes: list[ControlPlane], built: Built) -> None:
    here, there = homes
    here.registry.add("churn", built)
    here.set_alias(ADA, "churn", "champion", 1)
    with pytest.raises(Conflict):
        there.delete(BOB, "churn", 1)
    there.set_alias(BOB, "churn", "champion", None)
    told = [(each.entry.sequence, each.entry.principal, each.entry.action, each.entry.outcome) for each in here.audit_list()]
    assert told == [(1, "local:ada", "alias", "done"), (2, "local:bob", "delete", "failed"), (3, "local:bob", "alias", "done")]
    assert here.audit_verify() == there.audit_verify() and here.audit_verify().is_whole
    assert here.gc(ADA).blobs == 0, "what was just put is too young"


def test_a_home_on_both_stores_serves_on_while_they_are_away(tmp_path: Path, postgres: Postgres, s3: S3) -> None:
    """Deployed as ever; without its stores it answers, also by a worker that starts then, and says that it cannot be changed."""
    world = World(tmp_path / "home")
    places = {"records_url": postgres.url(), "blobs_url": s3.url()}
    (tmp_path / "home" / "settings.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in places.items()))
    world.home.registry.close()
    (tmp_path / "maker").mkdir()
    with contextlib.closing(registry.open(tmp_path / "maker", **places)) as elsewhere:
        for offset in (0.0, 1.0):
            elsewhere.add("line", make_bundle(tmp_path / "home", "line", offset=offset))
    try:
        world.up()
        assert world.verb("deploy", "line:1").code == 0
        with world.asked("line", ROW) as asking:
            asking.more()
            postgres.stop()
            s3.stop()
            try:
                asking.more()
                worker = world.pids()["worker-0"]
                world.kill("worker-0")
                wait_until(lambda: "worker-0" in world.pids() and world.pids()["worker-0"] != worker and alive(world.pids()["worker-0"]))
                asking.more()
                refused = world.verb("deploy", "line:2")
                assert refused.code == 8 and "try again" in refused.line
            finally:
                s3.start()
                postgres.start()
            asking.more()
            assert set(asking.answers) == {71.0}
            wait_until(lambda: world.verb("rollback", "line").code == 4)  # the database is there again: nothing to go back to
        with Client(world.url) as client:
            assert client.predict("line", ROW)["prediction"] == [71.0]
    finally:
        world.end()
