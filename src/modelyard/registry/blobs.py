"""Blobs in a folder: `<folder>/sha256/<hex>`, the layout that a worker reads by a plan's Placement.

Hides temporary files, fsyncs and the lock between writers and the sweep. It must not know what refers to a blob.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.bundle.base import FolderReader, digest_of
from modelyard.errors import Conflict, DigestMismatch, ModelyardError, NotFound
from modelyard.files import make_folder, sync_folder, translate, write_atomically
from modelyard.registry.base import Swept
from modelyard.types import Digest

SWEEP_WAIT_S = 10.0
_HOLDER = "holder.lock"
_HEX = re.compile(r"[0-9a-f]{64}")


class FolderBlobs(FolderReader):
    """A BlobStore in `folder`, shared by threads and processes of one machine. Opening it removes what writers that died left behind."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._blobs = make_folder(folder / "sha256")
        self._lock = folder / ".lock"
        self._held = folder / "held"
        self._remove_leftovers()

    def put(self, data: bytes) -> Digest:
        """Keep `data`; durable when it returns. A blob that is there already is left, unless its bytes were damaged. Raises StorageFull."""
        digest = digest_of(data)
        path = self.path(digest)
        try:
            if digest_of(self.read(digest, limit_bytes=len(data))) == digest:
                os.utime(path)
                return digest
        except (ModelyardError, FileNotFoundError):
            pass  # absent, damaged or just deleted: write it
        self.take_in(digest, (data,))
        return digest

    def take_in(self, digest: Digest, parts: Iterable[bytes]) -> None:
        """Keep the bytes that come in `parts` as `digest`, durably, once all have come and hash to it.

        Raises DigestMismatch when they do not, StorageFull, or what `parts` raises; then nothing of them is kept.
        """
        path = self.path(digest)
        try:
            self._write(path, digest, parts)
        except OSError as error:
            raise translate(error, path) from error

    def fetch(self, digests: Iterable[Digest]) -> Path:
        """See `BlobStore.fetch`: all that is kept is here already."""
        for digest in digests:
            if not self.has(digest):
                raise _gone(digest)
        return self.folder

    def has(self, digest: Digest) -> bool:
        """Whether the store holds `digest`."""
        return self.path(digest).is_file()

    def delete(self, digest: Digest) -> None:
        """Remove `digest`; one that is absent stays so."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise translate(error, self.path(digest)) from error

    def list(self) -> tuple[Digest, ...]:
        """Every digest held, sorted."""
        return tuple(Digest(f"sha256:{path.name}") for path in sorted(self._blobs.iterdir()) if _HEX.fullmatch(path.name))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off `sweep` from the first put to the record that refers to the blobs. Many may hold it at once."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def hold(self, digests: Iterable[Digest]) -> Iterator[Path]:
        """See `BlobStore.hold`. Links, where the file system has them, so that it costs no space; a process that was killed holds nothing."""
        place = self._held / secrets.token_hex(8)
        try:
            make_folder(place / "sha256")
            lock = os.open(place / _HOLDER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise translate(error, place) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self._locked(fcntl.LOCK_SH):
                for digest in digests:
                    self._link(digest, FolderReader(place).path(digest))
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            os.close(lock)

    def _link(self, digest: Digest, target: Path) -> None:
        try:
            os.link(self.path(digest), target, follow_symlinks=False)
        except FileNotFoundError as error:
            raise _gone(digest) from error
        except OSError:  # no links here, or not for us
            write_atomically(target, self.path(digest).read_bytes(), durable=False)

    def sweep(self, keep: Callable[[], frozenset[Digest]], *, min_age_s: float) -> Swept:
        """Remove blobs older than `min_age_s` that `keep()` does not name. Raises Conflict when writers hold it off for 10 s."""
        with self.alone():
            return self.sweep_all_but(keep(), min_age_s=min_age_s)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold off this machine's writers while the block runs. Raises Conflict when they do not end."""
        with self._locked(fcntl.LOCK_EX):
            yield

    def sweep_all_but(self, kept: frozenset[Digest], *, min_age_s: float) -> Swept:
        """Remove blobs older than `min_age_s` that are not `kept`; call it `alone`."""
        removed = size_bytes = 0
        newest = time.time() - min_age_s
        for digest in self.list():
            if digest in kept:
                continue
            status = self.path(digest).stat()
            if status.st_mtime <= newest:
                self.delete(digest)
                removed += 1
                size_bytes += status.st_size
        return Swept(removed, size_bytes)

    def _write(self, path: Path, digest: Digest, parts: Iterable[bytes]) -> None:
        temporary = self._blobs / f"{secrets.token_hex(8)}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            # Held while the writer lives; `_remove_leftovers` takes files whose lock is free.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            hashed = hashlib.sha256()
            for part in parts:
                hashed.update(part)
                view = memoryview(part)
                while view:
                    view = view[os.write(descriptor, view) :]
            if hashed.hexdigest() != digest.removeprefix("sha256:"):
                raise DigestMismatch(f"what came as blob {digest[:19]}… is something else; nothing of it was kept")
            os.fsync(descriptor)
            temporary.replace(path)
            sync_folder(self._blobs)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def _remove_leftovers(self) -> None:
        for temporary in self._blobs.glob("*.tmp"):
            _remove_if_orphan(temporary, temporary)
        for place in self._held.glob("*") if self._held.is_dir() else ():
            _remove_if_orphan(place, place / _HOLDER)

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise translate(error, self._lock) from error
        try:
            give_up = time.monotonic() + SWEEP_WAIT_S
            while not _try_lock(descriptor, mode):
                if time.monotonic() > give_up:
                    raise Conflict("another process is writing to this home or sweeping it; try again when it is done")
                time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)


def _gone(digest: Digest) -> NotFound:
    return NotFound(f"the home has no blob {digest[:19]}…; the version was deleted meanwhile")


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_if_orphan(path: Path, locked: Path) -> None:
    """Remove `path`, a file or a folder, unless the process that has the lock on `locked` still lives."""
    try:
        descriptor = os.open(locked, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return  # its owner was done first, or has just begun
    try:
        # One second of grace covers the moment between an owner's open and its lock.
        if time.time() - os.fstat(descriptor).st_mtime > 1 and _try_lock(descriptor, fcntl.LOCK_EX):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
