"""control.copies: a home goes back to a copy while it is down, and its chain tells of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from modelyard import config
from modelyard.config import Settings
from modelyard.control import copies
from modelyard.control.plane import ControlPlane
from modelyard.errors import Conflict, InvalidConfig
from modelyard.events import Part, Segment
from modelyard.monitor.intake import windows_path
from modelyard.monitor.windows import Windows
from modelyard.types import Digest, Principal

OLD = Path(__file__).parents[2] / "golden" / "homes" / "0.1.0"
WHO = Principal("local:ada", ("admin",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    shutil.copytree(OLD, tmp_path / "home")
    return config.load({"home": tmp_path / "home"})


def test_a_home_goes_back_and_tells_of_it(settings: Settings, tmp_path: Path) -> None:
    with ControlPlane(settings) as plane:
        plane.set_alias(WHO, "diabetes", "best", 2)
        copies.backup(settings, tmp_path / "copy")
        plane.set_alias(WHO, "diabetes", "best", 1)
    kept = copies.restore(settings, WHO, tmp_path / "copy")
    assert kept is not None and kept.is_file()
    with ControlPlane(settings, is_checked=True) as plane:
        assert plane.models()[0].aliases["best"] == 2
        assert [entry.action for entry in plane.audit.entries()] == ["alias", "restore"] and plane.audit_verify().is_whole


def test_what_was_counted_after_the_copy_judges_no_later_rollout(settings: Settings, tmp_path: Path) -> None:
    """The generations of then are given again, perhaps to the same versions."""
    copies.backup(settings, tmp_path / "copy")
    with contextlib.closing(Windows(windows_path(settings))) as windows:
        digest = Digest("sha256:" + "0" * 64)
        part = Part(name="diabetes", version=2, digest=digest, generation=2, requests=9)
        windows.take({"a": Segment(slot=0, pid=1, started_at=1.0, ended_at=2.0, parts=(part,))}, day_of=str)
        assert windows.evidence("diabetes", 2)[digest].requests == 9
    copies.restore(settings, WHO, tmp_path / "copy")
    with contextlib.closing(Windows(windows_path(settings))) as windows:
        assert windows.evidence("diabetes", 2) == {}


@pytest.mark.parametrize("lock", ["up.lock", "control.lock"])
def test_a_home_that_is_up_does_not_go_back(settings: Settings, tmp_path: Path, lock: str) -> None:
    copies.backup(settings, tmp_path / "copy")
    settings.run.mkdir()
    descriptor = os.open(settings.run / lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(Conflict, match="modelyard down"):
        copies.restore(settings, WHO, tmp_path / "copy")
    os.close(descriptor)
    copies.restore(settings, WHO, tmp_path / "copy")


def test_records_elsewhere_are_copied_elsewhere(tmp_path: Path) -> None:
    settings = config.load({"home": tmp_path, "records_url": "postgresql://somewhere/else"})
    with pytest.raises(InvalidConfig, match="pg_dump"):
        copies.backup(settings, tmp_path / "copy")
