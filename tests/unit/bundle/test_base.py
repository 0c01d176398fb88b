"""bundle.base: a folder of blobs gives bytes by digest and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.bundle.base import FolderReader, digest_of
from modelyard.errors import DigestMismatch, InvalidConfig, NotFound, PayloadTooLarge
from modelyard.types import Digest


def test_a_folder_gives_what_lies_at_the_digest(tmp_path: Path) -> None:
    reader, digest = FolderReader(tmp_path), digest_of(b"abc")
    assert digest == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(NotFound):
        reader.read(digest, limit_bytes=3)
    reader.path(digest).parent.mkdir()
    reader.path(digest).write_bytes(b"abc")
    assert reader.read(digest, limit_bytes=3) == b"abc"
    with pytest.raises(PayloadTooLarge):
        reader.read(digest, limit_bytes=2)
    assert reader.listing() is None


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    reader = FolderReader(tmp_path / "blobs")
    for name in ("../../secret", "sha256:../../secret", "sha256:" + "A" * 64, ""):
        with pytest.raises(DigestMismatch):
            reader.read(Digest(name), limit_bytes=9)
    link = reader.path(digest_of(b"s"))
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidConfig):
        reader.read(digest_of(b"s"), limit_bytes=9)
