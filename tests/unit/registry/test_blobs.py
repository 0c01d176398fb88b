"""registry.blobs: the folder's layout is the one that a plan's Placement promises (the rest: tests/contract/test_blob_stores.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.bundle.base import FolderReader
from modelyard.errors import InvalidConfig
from modelyard.registry.blobs import FolderBlobs


def test_a_worker_reads_the_folder_without_the_store(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path / "blobs")
    digest = store.put(b"abc")
    assert FolderReader(store.folder).read(digest, limit_bytes=3) == b"abc"
    assert (tmp_path / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes() == b"abc"


def test_files_of_others_are_neither_listed_nor_swept(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path)
    (tmp_path / "sha256" / "README").write_bytes(b"")
    assert store.list() == ()
    store.sweep(frozenset, min_age_s=0)
    assert (tmp_path / "sha256" / "README").exists()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"")
    with pytest.raises(InvalidConfig):
        FolderBlobs(tmp_path / "blobs")
