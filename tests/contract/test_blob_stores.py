"""What every BlobStore keeps: whole or not at all, once, and not swept from under a writer."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modelyard.bundle.base import FolderReader, digest_of
from modelyard.errors import Conflict, DigestMismatch, NotFound, PayloadTooLarge, StorageFull
from modelyard.registry import blobs as blobs_module
from modelyard.registry.base import BlobStore
from modelyard.registry.blobs import FolderBlobs
from modelyard.registry.objects import ObjectBlobs
from modelyard.types import Digest


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """A store of each kind; the object stores without their grace, so that a sweep may take what was just put."""
    if request.param == "folder":
        return FolderBlobs(tmp_path / "blobs")
    urls = {"file": f"file://{tmp_path}/far", "memory": f"memory://{tmp_path.name}"}
    url = urls.get(request.param) or request.getfixturevalue("s3").url()
    return ObjectBlobs(url, FolderBlobs(tmp_path / "blobs"), grace_s=0)


def test_what_is_put_is_read_once_however_often_it_is_put(store: BlobStore) -> None:
    digest = store.put(b"abc")
    assert digest == store.put(b"abc") == digest_of(b"abc")
    assert store.put(b"") == digest_of(b"")
    assert store.read(digest, limit_bytes=3) == b"abc"
    assert store.list() == tuple(sorted((digest, digest_of(b""))))
    assert store.has(digest) and not store.has(digest_of(b"other"))
    assert store.listing() is None


def test_absent_and_oversized_blobs_are_errors(store: BlobStore) -> None:
    with pytest.raises(NotFound):
        store.read(digest_of(b"abc"), limit_bytes=3)
    with pytest.raises(PayloadTooLarge):
        store.read(store.put(b"abc"), limit_bytes=2)
    with pytest.raises(DigestMismatch):
        store.read(Digest("sha256:../../x"), limit_bytes=3)


def test_delete_is_a_no_op_the_second_time(store: BlobStore) -> None:
    digest = store.put(b"abc")
    store.delete(digest)
    store.delete(digest)
    assert not store.has(digest) and store.list() == ()


def test_a_damaged_blob_is_healed_by_putting_it_again(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put(b"abc")
    path = next(path for path in tmp_path.rglob(digest.removeprefix("sha256:")))
    for damaged in (b"abd", b"ab", b"abcd"):
        path.write_bytes(damaged)
        store.put(b"abc")
        assert store.read(digest, limit_bytes=3) == b"abc"


def test_a_sweep_takes_old_blobs_that_nobody_keeps(store: BlobStore) -> None:
    kept, gone = store.put(b"kept"), store.put(b"gone")
    assert store.sweep(lambda: frozenset((kept,)), min_age_s=60).blobs == 0
    swept = store.sweep(lambda: frozenset((kept,)), min_age_s=0)
    assert (swept.blobs, swept.size_bytes) == (1, 4)
    assert store.list() == (kept,) and not store.has(gone)


def test_a_sweep_waits_for_writers_and_asks_only_then(store: BlobStore) -> None:
    recorded: set[Digest] = set()
    inside, release = threading.Event(), threading.Event()

    def package() -> None:
        with store.writing():
            digest = store.put(b"new")
            inside.set()
            release.wait(10)
            recorded.add(digest)

    writer = threading.Thread(target=package)
    writer.start()
    inside.wait(10)
    sweeper = threading.Thread(target=lambda: store.sweep(lambda: frozenset(recorded), min_age_s=0))
    sweeper.start()
    release.set()
    writer.join()
    sweeper.join()
    assert store.has(digest_of(b"new"))


def test_a_sweep_gives_up_when_writers_stay(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "SWEEP_WAIT_S", 0.05)
    with store.writing(), store.writing(), pytest.raises(Conflict):
        store.sweep(frozenset, min_age_s=0)
    store.sweep(frozenset, min_age_s=0)


def test_a_full_store_is_said_so_and_keeps_nothing(store: BlobStore, tmp_path: Path) -> None:
    store.put(b"before")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageFull):
            store.put(b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    store.put(b"x" * 10_000)


PUT_FOR_EVER = """
import sys
from pathlib import Path
from modelyard.registry.blobs import FolderBlobs
store = FolderBlobs(Path(sys.argv[1]))
print("go", flush=True)
for number in range(10**6):
    store.put(number.to_bytes(4, "little") * 100_000)
"""


def test_a_killed_writer_leaves_whole_blobs_and_its_leftovers_go_at_the_next_start(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", PUT_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.1)
        writer.kill()
        writer.communicate()
    folder = tmp_path / "sha256"
    (folder / "left.tmp").write_bytes(b"half")
    alive = os.open(folder / "alive.tmp", os.O_WRONLY | os.O_CREAT)
    import fcntl

    fcntl.flock(alive, fcntl.LOCK_EX)
    for path in folder.glob("*.tmp"):
        os.utime(path, (1, 1))
    store = FolderBlobs(tmp_path)
    assert [path.name for path in folder.glob("*.tmp")] == ["alive.tmp"], "a living writer keeps its file"
    os.close(alive)
    assert store.list()
    for digest in store.list():
        assert digest_of(store.read(digest, limit_bytes=1 << 20)) == digest


def _put_all(folder: str) -> None:
    store = FolderBlobs(Path(folder))
    for number in range(50):
        store.put(str(number).encode() * 1000)


def test_processes_may_put_the_same_blobs_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_put_all, args=(str(tmp_path),)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert len(FolderBlobs(tmp_path).list()) == 50 and not list(tmp_path.rglob("*.tmp"))


def test_what_is_held_can_be_read_whatever_is_deleted_and_swept(store: BlobStore) -> None:
    digests = [store.put(b"abc"), store.put(b"def")]
    with store.hold(digests) as folder:
        for digest in digests:
            store.delete(digest)
        store.sweep(lambda: frozenset(), min_age_s=0)
        assert store.list() == ()
        assert FolderReader(folder).read(digests[0], limit_bytes=9) == b"abc" and FolderReader(folder).read(digests[1], limit_bytes=9) == b"def"
    assert not folder.exists()
    with pytest.raises(NotFound), store.hold(digests):
        pytest.fail("what is gone cannot be held")


def test_what_is_held_is_copied_where_there_are_no_links(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put(b"abc")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr("modelyard.registry.blobs.os.link", refuse)
    with store.hold([digest]) as folder:
        store.delete(digest)
        assert FolderReader(folder).read(digest, limit_bytes=9) == b"abc"


def test_a_process_that_was_killed_holds_nothing_and_one_that_lives_does(tmp_path: Path) -> None:
    digest = FolderBlobs(tmp_path / "blobs").put(b"abc")
    code = (
        "import sys, time; from pathlib import Path; from modelyard.registry.blobs import FolderBlobs\n"
        "with FolderBlobs(Path(sys.argv[1])).hold([sys.argv[2]]) as folder:\n    print(folder, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "blobs"), digest], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    old = time.time() - 60
    os.utime(folder / "holder.lock", (old, old))
    FolderBlobs(tmp_path / "blobs")
    assert (folder / "sha256").is_dir(), "its holder lives"
    process.kill()
    process.wait()
    process.stdout.close()
    assert folder.exists()
    FolderBlobs(tmp_path / "blobs")
    assert not folder.exists()
