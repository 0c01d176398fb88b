"""bundle.load: what open checks, in which order, and what collect gathers."""

from __future__ import annotations

import pytest

from modelyard.bundle import Built, collect
from modelyard.bundle import open as open_bundle
from modelyard.errors import DigestMismatch, NotFound, UntrustedSigner
from modelyard.security.seal import Trust
from modelyard.types import Digest


class Blobs:
    """A source that remembers what was read, and in which order."""

    def __init__(self, blobs: dict[Digest, bytes], *, is_shared: bool = False) -> None:
        self.blobs = blobs
        self.is_shared = is_shared
        self.asked: list[Digest] = []

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        self.asked.append(digest)
        if digest not in self.blobs:
            raise NotFound("gone")
        assert len(self.blobs[digest]) <= limit_bytes, "open asks for no less than there is"
        return self.blobs[digest]

    def listing(self) -> frozenset[Digest] | None:
        return None if self.is_shared else frozenset(self.blobs)


def test_every_blob_is_read_exactly_once(built: Built, trust: Trust) -> None:
    blobs = Blobs(built.blobs)
    open_bundle(blobs, built.index, trust=trust)
    assert sorted(blobs.asked) == sorted(built.blobs)


def test_no_member_is_read_before_the_seals_are_believed(built: Built, tmp_path: object) -> None:
    from pathlib import Path

    blobs = Blobs(built.blobs)
    with pytest.raises(UntrustedSigner):
        open_bundle(blobs, built.index, trust=Trust(Path(str(tmp_path))))
    model = next(digest for digest, data in built.blobs.items() if data == b"a model")
    assert model not in blobs.asked and built.digest in blobs.asked


def test_a_missing_blob_is_named(built: Built, trust: Trust) -> None:
    for gone in built.blobs:
        with pytest.raises(DigestMismatch) as caught:
            open_bundle(Blobs({digest: data for digest, data in built.blobs.items() if digest != gone}), built.index, trust=trust)
        assert caught.value.field


def test_what_others_left_in_a_shared_store_is_none_of_ours_but_alone_it_is(built: Built, trust: Trust) -> None:
    more = {**built.blobs, Digest("sha256:" + "00" * 32): b"x"}
    open_bundle(Blobs(more, is_shared=True), built.index, trust=trust)
    for act in (lambda source: open_bundle(source, built.index, trust=trust), lambda source: collect(source, built.index)):
        with pytest.raises(DigestMismatch, match="nothing in it lists"):
            act(Blobs(more))


def test_collect_gathers_the_bundle_and_nothing_else(built: Built) -> None:
    more = {**built.blobs, Digest("sha256:" + "00" * 32): b"x"}
    assert collect(Blobs(more, is_shared=True), built.index) == built
