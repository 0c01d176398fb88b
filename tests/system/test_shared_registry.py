"""Two homes on one PostgreSQL and one S3-compatible store: what one registers the other opens and keeps, and none undoes the other's work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from postgres import Postgres
from s3 import S3

from modelyard import bundle, config
from modelyard.bundle import Built
from modelyard.control.plane import ControlPlane
from modelyard.errors import Conflict, NotFound, Unavailable
from modelyard.types import Principal

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
