"""bundle.archive: the same bundle gives the same bytes, and only a bundle alone is read."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.bundle import Built, archive, collect
from modelyard.bundle import open as open_bundle
from modelyard.errors import Conflict, InvalidConfig, NotFound, StorageFull, UnsupportedFormat
from modelyard.security.seal import Trust
from modelyard.types import Digest


class Blobs:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        return self.blobs[digest]

    def listing(self) -> None:
        return None


@pytest.mark.parametrize("name", ["churn.tar", "churn"])
def test_what_is_exported_is_read_back_and_is_the_same_each_time(tmp_path: Path, built: Built, trust: Trust, name: str) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        archive.export(Blobs(built.blobs), built.index, tmp_path / folder / name)
        assert os.listdir(tmp_path / folder) == [name]
    source = archive.source(tmp_path / "a" / name)
    assert source.index == built.index and collect(source, source.index) == built
    assert open_bundle(source, source.index, trust=trust).digest == built.digest
    files = [
        sorted((path.relative_to(root).as_posix(), path.read_bytes()) for path in root.rglob("*") if path.is_file())
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]


def test_a_folder_and_a_tar_give_each_other(tmp_path: Path, built: Built, component: Callable[[str], str]) -> None:
    archive.export(Blobs(built.blobs), built.index, tmp_path / "folder")
    subprocess.run([component("tar"), "-cf", str(tmp_path / "by-hand.tar"), "-C", str(tmp_path / "folder"), "."], check=True)
    source = archive.source(tmp_path / "by-hand.tar")
    assert collect(source, source.index) == built
    archive.export(source, source.index, tmp_path / "ours.tar")
    with tarfile.open(tmp_path / "ours.tar") as written:
        assert {(entry.mtime, entry.uid, entry.uname, entry.mode) for entry in written} == {(0, 0, "", 0o644)}
        assert written.getnames()[:2] == ["oci-layout", "index.json"]


def test_an_existing_target_is_left_alone(tmp_path: Path, built: Built) -> None:
    target = tmp_path / "x.tar"
    target.write_bytes(b"mine")
    with pytest.raises(Conflict):
        archive.export(Blobs(built.blobs), built.index, target)
    assert target.read_bytes() == b"mine"
    (tmp_path / "dangling.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict):
        archive.export(Blobs(built.blobs), built.index, tmp_path / "dangling.tar")


def test_a_target_that_cannot_be_written_is_one_clear_error(tmp_path: Path, built: Built) -> None:
    with pytest.raises(NotFound):
        archive.export(Blobs(built.blobs), built.index, tmp_path / "none" / "x.tar")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidConfig):
        archive.export(Blobs(built.blobs), built.index, tmp_path / "file" / "x")


@pytest.mark.parametrize("name", ["x.tar", "x"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, built: Built, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The limit stands in for a full disk: the kernel refuses the write half way, with its own errno.
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises(StorageFull):
            archive.export(Blobs(built.blobs), built.index, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert os.listdir(tmp_path) == []
    archive.export(Blobs(built.blobs), built.index, tmp_path / name)


def test_what_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        archive.source(tmp_path / "none")
    with pytest.raises(UnsupportedFormat, match="no oci-layout"):
        archive.source(tmp_path)
    (tmp_path / "x.tar").write_bytes(b"\0" * 1024)
    with pytest.raises(UnsupportedFormat, match="no oci-layout"):
        archive.source(tmp_path / "x.tar")
    if sys.platform == "linux":
        with pytest.raises(UnsupportedFormat, match="neither"):
            archive.source(Path("/dev/null"))


def test_bundles_of_a_folder_are_found_where_platforms_put_them(tmp_path: Path, built: Built) -> None:
    blobs = Blobs(built.blobs)
    archive.export(blobs, built.index, tmp_path / "whole")
    assert archive.find(tmp_path / "whole") == (tmp_path / "whole",)
    nested = tmp_path / "a" / "1" / "INPUT_model"
    nested.mkdir(parents=True)
    assert archive.find(tmp_path / "a") == () == archive.find(tmp_path / "nothing")
    archive.export(blobs, built.index, nested / "b.tar")
    assert archive.find(tmp_path / "a") == (nested / "b.tar",) == archive.find(nested / "b.tar")
    archive.export(blobs, built.index, nested / "c")
    (nested / "notes.txt").write_text("")
    assert archive.find(tmp_path / "a") == (nested / "b.tar", nested / "c")


def test_a_bundle_is_placed_as_workers_read_it(tmp_path: Path, built: Built) -> None:
    archive.export(Blobs(built.blobs), built.index, tmp_path / "b.tar")
    archive.place(archive.source(tmp_path / "b.tar"), tmp_path / "placed")
    assert collect(archive.FolderReader(tmp_path / "placed"), built.index) == built
