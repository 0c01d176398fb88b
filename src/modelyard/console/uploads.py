"""Bundles on their way in: streamed to a file, within a cap, a rate and a number, and gone when the request is over.

Hides the folder and the names in it. What a process left behind that was killed is removed by the next. It must not look into what it receives.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from modelyard import files
from modelyard.bundle.archive import ARCHIVE_LIMIT_BYTES
from modelyard.errors import MalformedPayload, Overloaded, PayloadTooLarge, UnsupportedMedia

MOST = 4
"""Uploads at once."""

OF_ONE = 2
"""Of one caller: who sends slowly, on purpose or not, must not keep all others out."""

CALLED = "bundle.tar"
"""The name that refusals tell."""

MEDIA = ("application/x-tar", "application/octet-stream")
SILENT_S = 30.0
RATE_BYTES_S = 16 << 10
"""What an upload must come to on average once it has lasted for `SILENT_S`."""

_WRITE_BYTES = 1 << 20


class Uploads:
    """The folder of what is being received. Lives in one event loop; nothing else writes there but exports, which remove their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_caller: Counter[str] = Counter()
        if folder.is_dir():
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[tuple[Path, str]]:
        """The body of `request` as a file, and its SHA-256, until the block ends.

        Raises UnsupportedMedia, PayloadTooLarge, Overloaded, StorageFull, or MalformedPayload for a body that breaks off or trickles.
        """
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media not in MEDIA:
            raise UnsupportedMedia(f"a bundle is sent as {MEDIA[0]}", field="content-type")
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > ARCHIVE_LIMIT_BYTES:
            raise PayloadTooLarge(f"a bundle's archive has at most {ARCHIVE_LIMIT_BYTES:,} bytes")
        caller = request.scope["principal"].name
        if self._by_caller.total() >= MOST or self._by_caller[caller] >= OF_ONE:
            raise Overloaded(f"{MOST} bundles are being received already, or {OF_ONE} of yours; try again", retry_after_s=2.0)
        self._by_caller[caller] += 1
        place = self._folder / secrets.token_hex(16)
        try:
            path = files.make_folder(place) / CALLED
            yield path, await self._write(request, path)
        finally:
            shutil.rmtree(place, ignore_errors=True)
            self._by_caller -= Counter({caller: 1})  # who has none left is forgotten

    async def _write(self, request: Request, path: Path) -> str:
        digest = hashlib.sha256()
        started_s, size = time.monotonic(), 0
        waiting: list[bytes] = []
        held = 0
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise files.translate(error, path) from error
        try:
            stream = request.stream()
            while True:
                try:
                    async with asyncio.timeout(SILENT_S):
                        part = await anext(stream, None)
                except TimeoutError:
                    raise MalformedPayload(f"the bundle did not go on coming for {SILENT_S:.0f} s") from None
                except ClientDisconnect:
                    raise MalformedPayload("the connection ended before the bundle did") from None
                if part is not None:
                    size += len(part)
                    held += len(part)
                    waiting.append(part)
                    _check(size, time.monotonic() - started_s)
                if waiting and (part is None or held >= _WRITE_BYTES):
                    await run_in_threadpool(_append, descriptor, path, waiting, digest)
                    waiting, held = [], 0
                if part is None:
                    return digest.hexdigest()
        finally:
            os.close(descriptor)


def _check(size: int, lasted_s: float) -> None:
    if size > ARCHIVE_LIMIT_BYTES:
        raise PayloadTooLarge(f"a bundle's archive has at most {ARCHIVE_LIMIT_BYTES:,} bytes")
    if lasted_s > SILENT_S and size < RATE_BYTES_S * lasted_s:
        raise MalformedPayload(f"the bundle comes at less than {RATE_BYTES_S >> 10} KiB/s")


def _append(descriptor: int, path: Path, parts: list[bytes], digest: hashlib._Hash) -> None:
    try:
        for part in parts:
            digest.update(part)
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise files.translate(error, path) from error
