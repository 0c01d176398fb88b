"""Blobs in an object store, or whatever else fsspec reaches, with a folder of this machine before it.

Hides fsspec, its protocols and their errors, and which of the two a blob comes from. What is in the folder was hashed as it came in, and serves
while the store is away. It must not know what refers to a blob.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modelyard.bundle.base import digest_of
from modelyard.errors import InvalidConfig, ModelyardError, NotFound, PayloadTooLarge, StorageFull, Unavailable
from modelyard.files import translate
from modelyard.registry.base import Swept
from modelyard.registry.blobs import FolderBlobs
from modelyard.types import Digest, parse_digest

GRACE_S = 3600.0
"""A sweep leaves younger blobs alone: writers of other machines, whom no lock holds off, put theirs again, which makes them young."""

BLOB_LIMIT_BYTES = 4 << 30
PART_BYTES = 8 << 20
TRIES = 3
_WHOLE_BY_THEMSELVES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"})
"""Stores in which an object is there whole or not at all; elsewhere it is written beside its place and moved."""

_HEX = re.compile(r"[0-9a-f]{64}")
_S3 = {"use_listings_cache": False, "config_kwargs": {"connect_timeout": 2, "read_timeout": 10, "retries": {"max_attempts": 1}}}


class ObjectBlobs:
    """A BlobStore at `url`, shared by all machines that reach it; `local` holds what this one has put or fetched. Connects when first needed.

    Raises InvalidConfig at the first call that needs the store, for a protocol that is not installed or a place that is not there.
    """

    def __init__(self, url: str, local: FolderBlobs, *, grace_s: float = GRACE_S) -> None:
        self.folder = local.folder
        self._url = url
        self._local = local
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._found: tuple[Any, str] | None = None

    def put(self, data: bytes) -> Digest:
        """Keep `data` in both places, even if it is there: that makes it young, and heals what was damaged. Raises Unavailable or StorageFull."""
        digest = digest_of(data)
        with self._remote() as (store, root):
            _write(store, f"{root}/{_hex(digest)}", data)
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
        self._remove_leftovers()
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

    def _remove_leftovers(self) -> None:
        """What writers that were killed left beside its place, in a store that needs such a place."""
        with self._remote() as (store, root), suppress(FileNotFoundError):
            for path in store.find(f"{root}/half"):
                if time.time() - store.modified(path).timestamp() > GRACE_S:
                    store.rm_file(path)

    @contextmanager
    def _remote(self) -> Iterator[tuple[Any, str]]:
        """The file system of the store and the folder in it; what its library raises becomes an error of ours."""
        try:
            yield self._connected()
        except ModelyardError:
            raise
        except FileNotFoundError as error:
            raise NotFound("the object store has no such blob, or no such bucket; see the setting blobs_url") from error
        except PermissionError as error:
            raise InvalidConfig("the object store refuses these credentials; see the setting blobs_url", field="blobs_url") from error
        except Exception as error:  # each protocol's library raises its own
            told = translate(error, self.folder) if isinstance(error, OSError) else None
            if isinstance(told, StorageFull):
                raise StorageFull("the store of blobs_url has no space left; nothing was kept. Free some space and try again") from error
            raise Unavailable(f"the object store of blobs_url cannot be reached ({type(error).__name__}); try again") from error

    def _connected(self) -> tuple[Any, str]:
        with self._lock:
            if self._found is None:
                self._found = _connect(self._url)
            return self._found


def _connect(url: str) -> tuple[Any, str]:
    import fsspec

    protocol = url.partition("://")[0]
    options: dict[str, Any] = dict(_S3) if protocol in ("s3", "s3a") else {}
    try:
        store, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        extra = "pip install 'modelyard[s3]'" if protocol in ("s3", "s3a") else f"install what fsspec needs for {protocol}://"
        raise InvalidConfig(f"blobs_url cannot be used: {extra}", field="blobs_url") from error
    if protocol in ("s3", "s3a"):
        store.retries = 2
    return store, str(path).rstrip("/")


def _hex(digest: Digest) -> str:
    return f"sha256/{parse_digest(digest).removeprefix('sha256:')}"


def _write(store: Any, path: str, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all."""
    protocols = {store.protocol} if isinstance(store.protocol, str) else set(store.protocol)
    if protocols & _WHOLE_BY_THEMSELVES:
        store.pipe_file(path, data)
        return
    root, _, name = path.rpartition("/sha256/")
    beside = f"{root}/half/{name[:12]}.{secrets.token_hex(6)}"
    store.makedirs(f"{root}/half", exist_ok=True)
    store.makedirs(f"{root}/sha256", exist_ok=True)
    try:
        with store.open(beside, "wb") as file:
            file.write(data)
            file.flush()
            with suppress(OSError, AttributeError):  # a file of this machine's, or a mount
                os.fsync(file.fileno())
        store.mv(beside, path)
    except BaseException:
        with suppress(Exception):
            store.rm_file(beside)
        raise
