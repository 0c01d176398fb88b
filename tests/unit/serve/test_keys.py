from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from modelyard.errors import InvalidConfig, NotFound, Unauthenticated
from modelyard.files import read_limited
from modelyard.serve.keys import Keys


def line(key: str) -> str:
    return f"{hashlib.sha256(key.encode()).hexdigest()} somebody\n"


def test_a_known_key_passes_and_others_do_not(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# who may ask\n\n" + line("one") + line("two"))
    keys = Keys(path)
    keys.require(b"Bearer one")
    keys.require(b"bearer two")
    for given in (b"", b"Bearer", b"Bearer three", b"Basic one", b"one", b"Bearer one two"):
        with pytest.raises(Unauthenticated):
            keys.require(given)


def test_changes_are_seen_and_a_file_that_cannot_be_read_leaves_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(line("one"))
    keys = Keys(path)
    path.write_text(line("two") + line("three"))
    keys.refresh()
    keys.require(b"Bearer two")
    with pytest.raises(Unauthenticated):
        keys.require(b"Bearer one")
    path.write_text("nonsense")
    keys.refresh()
    with pytest.raises(Unauthenticated):
        keys.require(b"Bearer two")


def test_what_is_no_keys_file_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(NotFound):
        Keys(path)
    for text in ("my_key\n", "é\n"):
        path.write_text(text)
        with pytest.raises(InvalidConfig):
            Keys(path)


def test_a_change_while_the_file_is_first_read_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text(line("revoked"))

    def read_then_revoke(place: Path, limit_bytes: int) -> bytes:
        data = read_limited(place, limit_bytes)
        path.write_text("# none\n")
        return data

    monkeypatch.setattr("modelyard.serve.keys.read_limited", read_then_revoke)
    keys = Keys(path)
    keys.refresh()
    with pytest.raises(Unauthenticated):
        keys.require(b"Bearer revoked")
