"""registry.stores: what a store's library raises becomes an error of ours that names the setting, and nothing is there by half."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from s3 import S3

from modelyard.errors import Conflict, InvalidConfig, Misconfigured, NotFound, PayloadTooLarge, StorageFull, Tampered, Unavailable
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


def test_all_that_lies_at_a_place_is_fetched_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("far/a.tar", "far/b/c", "farther/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    Store((tmp_path / "far").as_uri(), setting="x").fetch(tmp_path / "near", limit_bytes=100)
    found = {str(path.relative_to(tmp_path / "near")): path.read_text() for path in (tmp_path / "near").rglob("*") if path.is_file()}
    assert found == {"a.tar": "far/a.tar", "b/c": "far/b/c"}
    Store((tmp_path / "far/a.tar").as_uri(), setting="x").fetch(tmp_path / "one", limit_bytes=100)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["a.tar"]


def test_what_is_too_much_or_not_there_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    store = Store((tmp_path / "far").as_uri(), setting="x")
    with pytest.raises(NotFound):
        store.fetch(tmp_path / "1", limit_bytes=100)
    (tmp_path / "far" / "large").write_bytes(bytes(101))
    with pytest.raises(PayloadTooLarge):
        store.fetch(tmp_path / "2", limit_bytes=100)
    there, root = store.connected()
    for name in ("../x", "a/../../x", "a\\..\\x", "a//x"):
        monkeypatch.setattr(there, "find", lambda *_, name=name, **__: {f"{root}/{name}": {"size": 1}})
        folder = tmp_path / f"bad{len(name)}{name[0]}{name[-2:]!r}".replace("/", "-")
        with pytest.raises(Tampered):
            store.fetch(folder, limit_bytes=100)
        assert not list(folder.iterdir())
    assert not (tmp_path / "x").exists()


def test_what_stands_for_a_folder_in_a_store_is_no_file(tmp_path: Path, s3: S3) -> None:
    store = Store(s3.url(), setting="x")
    there, root = store.connected()
    bucket, _, prefix = root.partition("/")
    for name in ("", "bundle/"):  # as the consoles of stores make an empty folder
        there.call_s3("put_object", Bucket=bucket, Key=f"{prefix}/{name}")
    with pytest.raises(NotFound):
        store.fetch(tmp_path / "1", limit_bytes=100)
    store.write("bundle/index.json", b"{}")
    store.fetch(tmp_path / "2", limit_bytes=100)
    assert [path.relative_to(tmp_path / "2").as_posix() for path in (tmp_path / "2").rglob("*") if path.is_file()] == ["bundle/index.json"]
