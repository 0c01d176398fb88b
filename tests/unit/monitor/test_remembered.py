from __future__ import annotations

import msgspec
import pytest

from modelyard.monitor import concept, performance, remembered
from modelyard.types import Digest

ONE, OTHER = (Digest("sha256:" + letter * 64) for letter in "ab")


class Kept(msgspec.Struct, frozen=True):
    format: int
    digest: Digest
    rows: int = 0


def test_what_was_remembered_comes_back() -> None:
    kept = Kept(2, ONE, 7)
    assert remembered.read(remembered.written(kept), Kept, form=2, digest=ONE) == kept


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing",
        msgspec.msgpack.encode([1, 2]),
        remembered.written(Kept(1, ONE, 7)),
        remembered.written(Kept(2, OTHER, 7)),
        remembered.written(Kept(2, ONE))[:-1],
    ],
)
def test_of_another_release_or_format_or_of_none_nothing_does(data: bytes) -> None:
    assert remembered.read(data, Kept, form=2, digest=ONE) is None


def test_those_of_one_detector_are_none_of_another() -> None:
    one, other = concept.State(format=concept.FORMAT, digest=ONE, rose_from=0.5), performance.State(format=performance.FORMAT, digest=ONE)
    assert remembered.read(remembered.written(one), concept.State, form=concept.FORMAT, digest=ONE) == one
    assert remembered.read(remembered.written(other), performance.State, form=performance.FORMAT, digest=ONE) == other
