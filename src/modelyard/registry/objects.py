"""Blobs in an object store, or whatever else fsspec reaches, with a folder of this machine before it.

Hides which of the two a blob comes from. What is in the folder was hashed as it came in, and serves
while the store is away. It must not know what refers to a blob.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modelyard.bundle.base import digest_of
from modelyard.errors import PayloadTooLarge, Unavailable
from modelyard.registry.base import Swept
from modelyard.registry.blobs import FolderBlobs
from modelyard.registry.stores import Store
from modelyard.types import Digest, parse_digest

GRACE_S = 3600.0
"""A sweep leaves younger blobs alone: writers of other machines, whom no lock holds off, put theirs again, which makes them young."""

BLOB_LIMIT_BYTES = 4 << 30
PART_BYTES = 8 << 20
TRIES = 3
_HEX = re.compile(r"[0-9a-f]{64}")


class ObjectBlobs:
    """A BlobStore at `url`, shared by all machines that reach it; `local` holds what this one has put or fetched. Connects when first needed.

    Raises InvalidConfig at the first call that needs the store, for a protocol that is not installed or a place that is not there.
    """

    def __init__(self, url: str, local: FolderBlobs, *, grace_s: float = GRACE_S) -> None:
        self.folder = local.folder
        self._store = Store(url, setting="blobs_url")
        self._local = local
        self._grace_s = grace_s

    def put(self, data: bytes) -> Digest:
        """Keep `data` in both places, even if it is there: that makes it young, and heals what was damaged. Raises Unavailable or StorageFull."""
        digest = digest_of(data)
        self._store.write(_hex(digest), data)
        return self._local.put(data)

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        """The bytes stored as `digest`. Raises NotFound, PayloadTooLarge above `limit_bytes`, or DigestMismatch."""
        if not self._local.has(digest):
            self._bring(digest, limit_bytes)
        return self._local.read(digest, limit_bytes=limit_bytes)

    def listing(self) -> None:
        """None: other bundles live here too."""
        return

    def has(self, digest: Digest) -> bool:
        """Whether the store holds `digest`."""
        with self._remote() as (store, root):
            return bool(store.exists(f"{root}/{_hex(digest)}"))

    def delete(self, digest: Digest) -> None:
        """Remove `digest` from both places; one that is absent stays so."""
        with self._remote() as (store, root), suppress(FileNotFoundError):
            store.rm_file(f"{root}/{_hex(digest)}")
        self._local.delete(digest)

    def list(self) -> tuple[Digest, ...]:
        """Every digest held by the store, sorted."""
        return tuple(sorted(digest for digest, _ in self._listed()))

    def fetch(self, digests: Iterable[Digest]) -> Path:
        """See `BlobStore.fetch`. A transfer that breaks goes on where it broke."""
        for digest in digests:
            if not self._local.has(digest):
                self._bring(digest, BLOB_LIMIT_BYTES)
        return self.folder

    @contextmanager
    def hold(self, digests: Iterable[Digest]) -> Iterator[Path]:
        """See `BlobStore.hold`."""
        needed = tuple(digests)
        with self._local.writing():  # until they are held, no sweep of this machine's
            self.fetch(needed)
            holding = self._local.hold(needed)
            folder = holding.__enter__()
        try:
            yield folder
        finally:
            holding.__exit__(None, None, None)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off sweeps of this machine; those of others spare what is young."""
        with self._local.writing():
            yield

    def sweep(self, keep: Callable[[], frozenset[Digest]], *, min_age_s: float) -> Swept:
        """See `BlobStore.sweep`. What is younger than the grace of this store stays in any case."""
        removed = size_bytes = 0
        with self._local.alone():
            listed = tuple(self._listed())
            kept = keep()  # asked after the list: what was recorded before it came to be is known
            for digest, size in listed:
                if digest not in kept and self._remove_if_old(digest, max(min_age_s, self._grace_s)):
                    removed += 1
                    size_bytes += size
            self._local.sweep_all_but(kept, min_age_s=min_age_s)
        self._store.remove_leftovers(older_s=GRACE_S)
        return Swept(removed, size_bytes)

    def _bring(self, digest: Digest, limit_bytes: int) -> None:
        path = _hex(digest)
        with self._remote() as (store, root):
            size = int(store.info(f"{root}/{path}")["size"])
            if size > limit_bytes:
                raise PayloadTooLarge(f"blob {digest[:19]}… has {size:,} bytes; the limit is {limit_bytes:,}")
        self._local.take_in(digest, self._parts(path, size))

    def _parts(self, path: str, size: int) -> Iterator[bytes]:
        """The bytes at `path` in order; a part that does not come is asked for again, a few times."""
        for start in range(0, size, PART_BYTES):
            for left in reversed(range(TRIES)):
                try:
                    with self._remote() as (store, root):
                        part: bytes = store.cat_file(f"{root}/{path}", start=start, end=min(start + PART_BYTES, size))
                    break
                except Unavailable:
                    if not left:
                        raise
                    time.sleep(0.1)
            yield part

    def _listed(self) -> Iterator[tuple[Digest, int]]:
        with self._remote() as (store, root):
            try:
                found = store.find(f"{root}/sha256", detail=True)
            except FileNotFoundError:  # nothing was ever put
                return
            for path, about in found.items():
                name = path.rpartition("/")[2]
                if _HEX.fullmatch(name):
                    yield Digest(f"sha256:{name}"), int(about["size"])

    def _remove_if_old(self, digest: Digest, age_s: float) -> bool:
        with self._remote() as (store, root), suppress(FileNotFoundError):
            path = f"{root}/{_hex(digest)}"
            if age_s and time.time() - store.modified(path).timestamp() < age_s:
                return False
            store.rm_file(path)
            return True
        return False

    @contextmanager
    def _remote(self) -> Iterator[tuple[Any, str]]:
        """The file system of the store and the folder in it; what its library raises becomes an error of ours."""
        with self._store.reached() as found:
            yield found

    def _connected(self) -> tuple[Any, str]:
        return self._store.connected()


def _hex(digest: Digest) -> str:
    return f"sha256/{parse_digest(digest).removeprefix('sha256:')}"
