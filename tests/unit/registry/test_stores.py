"""registry.stores: what a store's library raises becomes an error of ours that names the setting, and nothing is there by half."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from s3 import S3

from modelyard.errors import Conflict, InvalidConfig, Misconfigured, NotFound, StorageFull, Unavailable
from modelyard.registry.stores import Store


@pytest.mark.parametrize("kind", ["file", "memory", "s3"])
def test_what_is_written_is_there(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "s3":
        server: S3 = request.getfixturevalue("s3")
        url = server.url()
    else:
        url = (tmp_path / "far").as_uri() if kind == "file" else f"memory://{tmp_path.name}"
    store = Store(url, setting="export_url")
    for data in (b"1", b"22"):
        store.write("a/b/c", data)
    with store.reached() as (there, root):
        assert there.cat_file(f"{root}/a/b/c") == b"22"
        assert [path.rpartition("/")[2] for path in there.find(root)] == ["c"], "and nothing beside it"


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (FileNotFoundError(), NotFound),
        (PermissionError(), Misconfigured),
        (OSError(errno.ENOSPC, "full"), StorageFull),
        (OSError(errno.EIO, "broken"), Unavailable),
        (RuntimeError("a library's own"), Unavailable),
        (Conflict("ours"), Conflict),
    ],
)
def test_what_its_library_raises_is_told_as_ours(raised: Exception, told: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(told) as caught, Store(tmp_path.as_uri(), setting="export_url").reached():
        raise raised
    assert type(caught.value) is told and (told is Conflict or "export_url" in str(caught.value))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path.as_uri(), setting="export_url")
    there, _ = store.connected()
    monkeypatch.setattr(there, "mv", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(Unavailable):
        store.write("a/b", b"1")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_killed_writers_left_goes_when_it_is_old(tmp_path: Path) -> None:
    store = Store(tmp_path.as_uri(), setting="export_url")
    store.remove_leftovers(older_s=0)
    store.write("a/b", b"1")
    old, fresh = tmp_path / "half" / "old", tmp_path / "half" / "fresh"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    store.remove_leftovers(older_s=3600)
    assert not old.exists() and fresh.exists() and (tmp_path / "a" / "b").exists()


def test_a_protocol_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"export_url cannot be used.*nonsense"):
        Store("nonsense://x", setting="export_url").write("a", b"")
