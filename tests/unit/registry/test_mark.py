"""registry.mark: what was told is read, and whatever else lies there tells nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.registry.mark import Mark, Point


def test_the_latest_is_read(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "mark")
    assert mark.read() is None
    mark.write(Point(10**18, 10**18))
    mark.write(Point(7, 3))
    assert mark.read() == Point(7, 3)
    mark.remove()
    mark.remove()
    assert mark.read() is None


@pytest.mark.parametrize("found", [b"", b"7", b"7 x\n", b"-1 2\n", b"\0" * 44, b"7 3"])
def test_what_cannot_be_read_tells_nothing(tmp_path: Path, found: bytes) -> None:
    (tmp_path / "mark").write_bytes(found)
    assert Mark(tmp_path / "mark").read() is None


def test_a_disk_that_takes_no_note_keeps_nobody_from_going_on(tmp_path: Path) -> None:
    (tmp_path / "mark").mkdir()
    Mark(tmp_path / "mark").write(Point(1, 1))
    assert Mark(tmp_path / "mark").read() is None
