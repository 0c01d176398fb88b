"""A home has one name among hosts, for good."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from world import wait_until

from modelyard.bundle.base import FolderReader
from modelyard.config import Settings
from modelyard.control.host import FetchedStock, HomeStock, host_id
from modelyard.errors import InvalidConfig, Unavailable
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


class Fetching:
    """A registry whose fetches wait to be let go, and fail where told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.may_go, self.fails = folder, threading.Event(), False
        self.asked: list[tuple[str, int]] = []
        (folder / "sha256").mkdir(exist_ok=True)

    def fetch(self, name: str, version: int) -> Path:
        self.asked.append((name, version))
        assert self.may_go.wait(10)
        if self.fails:
            raise Unavailable("away")
        (self.folder / "sha256" / ("1" * 64)).touch()
        return self.folder


def test_bytes_are_brought_beside_the_turns_and_once(tmp_path: Path) -> None:
    registry: Any = Fetching(tmp_path)
    stock = FetchedStock(registry)
    digest = Digest("sha256:" + "1" * 64)
    release = Release(model="m", version=1, digest=digest, index=digest)
    assert stock.place(release) is None and stock.place(release) is None
    registry.may_go.set()
    wait_until(lambda: stock.place(release) is not None)
    assert stock.place(release) == Placement(blobs=str(tmp_path), index=digest) and registry.asked == [("m", 1)]
    FolderReader(tmp_path).path(digest).unlink()  # its version was deleted and swept, and is there again
    assert stock.place(release) is None
    wait_until(lambda: stock.place(release) is not None)
    assert registry.asked == [("m", 1)] * 2


def test_what_keeps_bytes_from_coming_is_told_and_tried_again(tmp_path: Path) -> None:
    registry: Any = Fetching(tmp_path)
    registry.may_go.set()
    registry.fails = True
    stock = FetchedStock(registry)
    digest = Digest("sha256:" + "1" * 64)
    release = Release(model="m", version=1, digest=digest, index=digest)

    def told() -> bool:
        try:
            return stock.place(release) is not None
        except Unavailable:
            return True

    wait_until(told)
    with pytest.raises(Unavailable, match="away"):
        stock.place(release)
    registry.fails = False

    def brought() -> bool:
        with contextlib.suppress(Unavailable):
            return stock.place(release) is not None
        return False

    wait_until(brought)
    assert len(registry.asked) == 2
