"""registry.objects: what an object store may do to a blob, and what goes on while it is away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fsspec
import pytest
from s3 import S3

from modelyard.bundle.base import FolderReader, digest_of
from modelyard.errors import DigestMismatch, InvalidConfig, NotFound, PayloadTooLarge, Unavailable
from modelyard.registry import objects
from modelyard.registry.blobs import FolderBlobs
from modelyard.registry.objects import ObjectBlobs
from modelyard.types import Digest


def machine(folder: Path, url: str, *, grace_s: float = 0) -> ObjectBlobs:
    """The store as one machine sees it."""
    return ObjectBlobs(url, FolderBlobs(folder), grace_s=grace_s)


def far(tmp_path: Path, digest: Digest) -> Path:
    """Where the store behind `url_of` keeps a blob."""
    return tmp_path / "far" / "sha256" / digest.removeprefix("sha256:")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/far"


def test_what_one_machine_puts_another_fetches(tmp_path: Path, url: str) -> None:
    digest = machine(tmp_path / "a", url).put(b"abc")
    there = machine(tmp_path / "b", url)
    folder = there.fetch([digest])
    assert folder == there.folder and FolderReader(folder).read(digest, limit_bytes=3) == b"abc"
    far(tmp_path, digest).unlink()
    assert there.fetch([digest]) == folder and there.read(digest, limit_bytes=3) == b"abc", "what is here is not asked for again"
    with pytest.raises(NotFound):
        machine(tmp_path / "c", url).fetch([digest])


@pytest.mark.parametrize("wrong", [b"abd", b"ab", b"abcd", b""])
def test_wrong_bytes_never_come_in(tmp_path: Path, url: str, wrong: bytes) -> None:
    digest = machine(tmp_path / "a", url).put(b"abc")
    far(tmp_path, digest).write_bytes(wrong)
    there = machine(tmp_path / "b", url)
    for take in (lambda: there.fetch([digest]), lambda: there.read(digest, limit_bytes=9)):
        with pytest.raises(DigestMismatch, match="something else"):
            take()
    assert not [path for path in (tmp_path / "b").rglob("*") if path.is_file() and path.name != ".lock"]
    machine(tmp_path / "a", url).put(b"abc")
    assert there.fetch([digest]) == there.folder


def test_what_is_too_large_is_not_brought(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = machine(tmp_path / "a", url).put(b"abc")
    monkeypatch.setattr(objects, "BLOB_LIMIT_BYTES", 2)
    with pytest.raises(PayloadTooLarge):
        machine(tmp_path / "b", url).fetch([digest])


def test_a_transfer_that_breaks_goes_on_where_it_broke(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(1000)
    digest = machine(tmp_path / "a", url).put(data)
    monkeypatch.setattr(objects, "PART_BYTES", 100)
    there = machine(tmp_path / "b", url)
    store, _ = there._connected()
    asked: list[int] = []
    read = store.cat_file

    def breaking(path: str, start: int, end: int) -> bytes:
        asked.append(start)
        if len(asked) % 3 == 0:
            raise ConnectionResetError(104, "reset")
        return bytes(read(path, start=start, end=end))

    monkeypatch.setattr(store, "cat_file", breaking)
    there.fetch([digest])
    assert there.read(digest, limit_bytes=1000) == data
    assert sorted(set(asked)) == list(range(0, 1000, 100)) and len(asked) == 14

    def broken(path: str, start: int, end: int) -> bytes:
        raise ConnectionResetError(104, "reset")

    other = machine(tmp_path / "c", url)
    store, _ = other._connected()
    monkeypatch.setattr(store, "cat_file", broken)
    with pytest.raises(Unavailable):
        other.fetch([digest])
    assert not list((tmp_path / "c").rglob("*.tmp")) and not other._local.list()


def test_a_sweep_spares_what_is_young_and_a_put_makes_young(tmp_path: Path, url: str) -> None:
    store = machine(tmp_path / "a", url, grace_s=objects.GRACE_S)
    young, old, again = store.put(b"young"), store.put(b"old"), store.put(b"again")
    for digest in (old, again):
        os.utime(far(tmp_path, digest), (1, 1))
    machine(tmp_path / "b", url).put(b"again")  # a writer elsewhere, whose record is still to come
    assert store.sweep(frozenset, min_age_s=0).blobs == 1
    assert store.list() == tuple(sorted((young, again)))


def test_what_killed_writers_left_goes_with_a_sweep(tmp_path: Path, url: str) -> None:
    store = machine(tmp_path / "a", url)
    store.put(b"abc")
    left, fresh = tmp_path / "far" / "half" / "left", tmp_path / "far" / "half" / "fresh"
    for path in (left, fresh):
        path.write_bytes(b"half")
    os.utime(left, (1, 1))
    store.sweep(frozenset, min_age_s=0)
    assert not left.exists() and fresh.exists()


def test_a_blob_is_beside_its_place_until_it_is_whole(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machine(tmp_path / "a", url)
    remote, _ = store._connected()

    def refuse(*_: object) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(remote, "mv", refuse)
    with pytest.raises(Unavailable):
        store.put(b"abc")
    assert store.list() == () and not [path for path in (tmp_path / "far").rglob("*") if path.is_file()]


def test_while_the_store_is_away_what_was_fetched_goes_on(tmp_path: Path, s3: S3) -> None:
    url = s3.url()
    here, there = machine(tmp_path / "a", url), machine(tmp_path / "b", url)
    known, unknown = here.put(b"known"), here.put(b"unknown")
    there.fetch([known])
    s3.stop()
    try:
        assert there.fetch([known]) == there.folder and there.read(known, limit_bytes=9) == b"known"
        with there.hold([known]) as folder:
            assert FolderReader(folder).read(known, limit_bytes=9) == b"known"
        for call in (lambda: there.fetch([unknown]), lambda: there.put(b"new"), there.list, lambda: there.sweep(frozenset, min_age_s=0)):
            start = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                call()
            assert caught.value.retryable and time.monotonic() - start < 30, "only what waits without an end takes so long"
        with pytest.raises(NotFound):
            there._local.read(digest_of(b"new"), limit_bytes=9)
    finally:
        s3.start()


def test_places_that_are_not_there_are_told(tmp_path: Path, s3: S3) -> None:
    with pytest.raises(NotFound, match="bucket"):
        machine(tmp_path / "a", "s3://no-such-bucket/x").put(b"abc")
    with pytest.raises(InvalidConfig, match="nonsense"):
        machine(tmp_path / "a", "nonsense://x").put(b"abc")


def test_a_store_that_needs_no_folder_beside_gets_none(tmp_path: Path) -> None:
    machine(tmp_path / "a", f"memory://{tmp_path.name}").put(b"abc")
    assert {path.rpartition("/")[0] for path in fsspec.filesystem("memory").find(f"/{tmp_path.name}")} == {f"/{tmp_path.name}/sha256"}
