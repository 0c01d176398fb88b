"""A place in an object store, or wherever else fsspec reaches, by its URL.

Hides fsspec, its protocols and their errors, and how something is put there whole or not at all. It must not know what lies there.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modelyard.errors import Misconfigured, ModelyardError, NotFound, PayloadTooLarge, StorageFull, Tampered, Unavailable
from modelyard.files import translate

BESIDE = "half"
FILES = 10_000
"""Files that are fetched at once."""
_WHOLE_BY_THEMSELVES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"})
"""Stores in which an object is there whole or not at all; elsewhere it is written beside its place and moved."""
_S3 = {"use_listings_cache": False, "config_kwargs": {"connect_timeout": 2, "read_timeout": 10, "retries": {"max_attempts": 1}}}


class Store:
    """The place at `url`, which the setting `setting` names. Connects when first needed; any thread may use it."""

    def __init__(self, url: str, *, setting: str) -> None:
        self._url = url
        self._setting = setting
        self._lock = threading.Lock()
        self._found: tuple[Any, str] | None = None

    @contextmanager
    def reached(self) -> Iterator[tuple[Any, str]]:
        """The file system of the store and the folder in it; what its library raises becomes an error of ours.

        Raises NotFound, InvalidConfig (credentials, or a protocol that is not installed), StorageFull, or Unavailable.
        """
        try:
            yield self.connected()
        except ModelyardError:
            raise
        except FileNotFoundError as error:
            raise NotFound(f"the object store has no such blob, or no such bucket; see the setting {self._setting}") from error
        except PermissionError as error:
            raise Misconfigured(f"the object store refuses these credentials; see the setting {self._setting}", field=self._setting) from error
        except Exception as error:  # each protocol's library raises its own
            told = translate(error, Path(self._setting)) if isinstance(error, OSError) else None
            if isinstance(told, StorageFull):
                raise StorageFull(f"the store of {self._setting} has no space left; nothing was kept. Free some space and try again") from error
            raise Unavailable(f"the object store of {self._setting} cannot be reached ({type(error).__name__}); try again") from error

    def connected(self) -> tuple[Any, str]:
        """The same, its errors untranslated."""
        with self._lock:
            if self._found is None:
                self._found = _connect(self._url, self._setting)
            return self._found

    def write(self, path: str, data: bytes) -> None:
        """Put `data` at `path` of the place, whole or not at all. Raises as `reached` does."""
        with self.reached() as (store, root):
            _write(store, root, path, data)

    def fetch(self, folder: Path, *, limit_bytes: int) -> None:
        """Bring what lies at the place, a file or all below a folder, into the new folder `folder`.

        Raises as `reached` does, PayloadTooLarge for more than `limit_bytes` or FILES, Tampered for a name that would leave the folder.
        """
        folder.mkdir()
        with self.reached() as (store, root):
            # What ends with a slash stands for a folder, as consoles of stores make them.
            found: dict[str, Any] = {path: about for path, about in store.find(root, detail=True).items() if not path.endswith("/")}
            if not found:
                raise NotFound(f"nothing lies at the place that {self._setting} names", field=self._setting)
            if len(found) > FILES or sum(int(about["size"] or 0) for about in found.values()) > limit_bytes:
                raise PayloadTooLarge(f"at the place that {self._setting} names lies more than {limit_bytes:,} bytes or {FILES:,} files")
            for path in sorted(found):
                name = path.removeprefix(root).strip("/") or path.rpartition("/")[2]
                if any(part in {"", ".", ".."} for part in name.split("/")) or "\\" in name or "\0" in name:
                    raise Tampered(f"a name at the place that {self._setting} names would leave its folder")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(path, str(target))

    def remove_leftovers(self, *, older_s: float) -> None:
        """Remove what writers that were killed left beside its place, in a store that needs such a place."""
        with self.reached() as (store, root), suppress(FileNotFoundError):
            for path in store.find(f"{root}/{BESIDE}"):
                if time.time() - store.modified(path).timestamp() > older_s:
                    store.rm_file(path)


def _connect(url: str, setting: str) -> tuple[Any, str]:
    import fsspec

    protocol = url.partition("://")[0]
    options: dict[str, Any] = dict(_S3) if protocol in ("s3", "s3a") else {}
    try:
        store, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        extra = "pip install 'modelyard[s3]'" if protocol in ("s3", "s3a") else f"install what fsspec needs for {protocol}://"
        raise Misconfigured(f"{setting} cannot be used: {extra}", field=setting) from error
    if protocol in ("s3", "s3a"):
        store.retries = 2
    return store, str(path).rstrip("/")


def _write(store: Any, root: str, path: str, data: bytes) -> None:
    protocols = {store.protocol} if isinstance(store.protocol, str) else set(store.protocol)
    if protocols & _WHOLE_BY_THEMSELVES:
        store.pipe_file(f"{root}/{path}", data)
        return
    folder, _, name = path.rpartition("/")
    beside = f"{root}/{BESIDE}/{name[:12]}.{secrets.token_hex(6)}"
    store.makedirs(f"{root}/{BESIDE}", exist_ok=True)
    store.makedirs(f"{root}/{folder}", exist_ok=True)
    try:
        with store.open(beside, "wb") as file:
            file.write(data)
            file.flush()
            with suppress(OSError, AttributeError):  # a file of this machine's, or a mount
                os.fsync(file.fileno())
        store.mv(beside, f"{root}/{path}")
    except BaseException:
        with suppress(Exception):
            store.rm_file(beside)
        raise
