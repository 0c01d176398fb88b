"""A home has one name among hosts, for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.config import Settings
from modelyard.control.host import HomeStock, host_id
from modelyard.errors import InvalidConfig
from modelyard.targets.base import Release
from modelyard.types import Digest, Placement


def test_the_name_stays_and_differs_between_homes(tmp_path: Path) -> None:
    homes = [Settings(home=tmp_path / name) for name in ("a", "b")]
    for settings in homes:
        settings.home.mkdir()
    first, second = map(host_id, homes)
    assert first == host_id(homes[0]) and first != second


def test_a_spoilt_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "host.id").write_text("a b/../c")
    with pytest.raises(InvalidConfig, match=r"host\.id"):
        host_id(Settings(home=tmp_path))


def test_what_a_home_registers_lies_in_it(tmp_path: Path) -> None:
    digest = Digest("sha256:" + "1" * 64)
    place = HomeStock(tmp_path).place(Release(model="m", version=1, digest=digest, index=digest))
    assert place == Placement(blobs=str(tmp_path), index=digest)
