"""What every BlobReader keeps: bytes by digest within the limit, and a listing where one bundle is alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.bundle import Built, archive, collect
from modelyard.bundle.base import BlobReader, FolderReader, digest_of
from modelyard.errors import DigestMismatch, NotFound, PayloadTooLarge
from modelyard.registry.blobs import FolderBlobs
from modelyard.types import Digest


def store(folder: Path, built: Built) -> FolderBlobs:
    made = FolderBlobs(folder / "blobs")
    for data in built.blobs.values():
        made.put(data)
    return made


def exported(name: str) -> Callable[[Path, Built], BlobReader]:
    def make(folder: Path, built: Built) -> BlobReader:
        archive.export(store(folder, built), built.index, folder / name)
        return archive.source(folder / name)

    return make


SOURCES: dict[str, Callable[[Path, Built], BlobReader]] = {
    "store": store,
    "folder of blobs": lambda folder, built: FolderReader(store(folder, built).folder),
    "layout": exported("churn"),
    "tar": exported("churn.tar"),
}


@pytest.fixture(params=SOURCES)
def reader(request: pytest.FixtureRequest, tmp_path: Path, built: Built) -> BlobReader:
    return SOURCES[request.param](tmp_path, built)


def test_bytes_come_by_digest_within_the_limit(reader: BlobReader, built: Built) -> None:
    for digest, data in built.blobs.items():
        assert reader.read(digest, limit_bytes=len(data) + 1) == data
    model = digest_of(b"a model")
    assert reader.read(model, limit_bytes=7) == b"a model"
    with pytest.raises(PayloadTooLarge):
        reader.read(model, limit_bytes=6)


def test_what_is_absent_or_no_digest_is_an_error(reader: BlobReader) -> None:
    with pytest.raises(NotFound):
        reader.read(digest_of(b"absent"), limit_bytes=9)
    for name in ("../../etc/passwd", "sha256:../index.json", ""):
        with pytest.raises((DigestMismatch, NotFound)):
            reader.read(Digest(name), limit_bytes=9)


def test_a_listing_is_exact_or_none(reader: BlobReader, built: Built) -> None:
    assert reader.listing() in (None, frozenset(built.blobs))


def test_each_gives_the_same_bundle(reader: BlobReader, built: Built) -> None:
    assert collect(reader, built.index) == built
