"""Bundles on their way in: bounded in size, number and patience, and gone afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from modelyard.console import uploads
from modelyard.console.uploads import MOST, OF_ONE, Uploads
from modelyard.errors import MalformedPayload, ModelyardError, Overloaded, PayloadTooLarge, StorageFull, UnsupportedMedia
from modelyard.types import Principal


def sending(*parts: bytes | float | None, media: str = "application/x-tar", length: int | None = None, by: str = "ann") -> Request:
    """A request whose body comes in `parts`: bytes, seconds of silence, or None for a caller who goes."""
    left = list(parts)

    async def receive() -> Any:
        while left and isinstance(left[0], float):
            await asyncio.sleep(left.pop(0))  # type: ignore[arg-type]
        if left and left[0] is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0) if left else b"", "more_body": bool(left)}

    headers = [(b"content-type", media.encode())] + ([(b"content-length", str(length).encode())] if length is not None else [])
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers, "principal": Principal(by)}, receive)


async def take(folder: Uploads, request: Request) -> tuple[bytes, str]:
    async with folder.receive(request) as (path, digest):
        return path.read_bytes(), digest


def refused(folder: Uploads, request: Request) -> type[ModelyardError]:
    with pytest.raises(ModelyardError) as caught:
        asyncio.run(take(folder, request))
    return type(caught.value)


def test_what_is_sent_is_a_file_until_the_end_of_the_request(tmp_path: Path) -> None:
    folder = Uploads(tmp_path)
    data = bytes(range(256)) * 10_000
    assert asyncio.run(take(folder, sending(data[:7], data[7:9], data[9:]))) == (data, hashlib.sha256(data).hexdigest())
    assert list(tmp_path.iterdir()) == []


def test_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Uploads(tmp_path)
    monkeypatch.setattr(uploads, "ARCHIVE_LIMIT_BYTES", 10)
    assert refused(folder, sending(b"x" * 6, b"x" * 5)) is PayloadTooLarge
    assert refused(folder, sending(b"x", length=11)) is PayloadTooLarge
    assert refused(folder, sending(b"x", media="application/json")) is UnsupportedMedia
    assert refused(folder, sending(b"x", None)) is MalformedPayload
    monkeypatch.setattr(uploads, "SILENT_S", 0.05)
    assert refused(folder, sending(b"x", 5.0, b"y")) is MalformedPayload
    monkeypatch.setattr(uploads, "ARCHIVE_LIMIT_BYTES", 10_000)
    assert refused(folder, sending(*(part for _ in range(20) for part in (b"x", 0.02)))) is MalformedPayload  # never silent, always slow
    assert list(tmp_path.iterdir()) == []


def test_so_many_at_once_and_no_more(tmp_path: Path) -> None:
    folder = Uploads(tmp_path)

    async def all_at_once(*callers: str) -> list[Any]:
        return await asyncio.gather(*(take(folder, sending(b"x", 0.2, b"y", by=each)) for each in callers), return_exceptions=True)

    said = asyncio.run(all_at_once(*map(str, range(MOST + 1))))
    assert sum(isinstance(each, Overloaded) for each in said) == 1 and sum(isinstance(each, tuple) for each in said) == MOST
    said = asyncio.run(all_at_once(*["ann"] * (OF_ONE + 1), "bob"))
    assert [isinstance(each, Overloaded) for each in said] == [False] * OF_ONE + [True, False], "she keeps him not out"
    assert asyncio.run(take(folder, sending(b"x")))[0] == b"x"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    folder = Uploads(tmp_path)
    monkeypatch.setattr(uploads.os, "write", full)
    assert refused(folder, sending(b"x")) is StorageFull
    assert list(tmp_path.iterdir()) == []
