"""The port through which a bundle is read, and the plain folder of blobs behind it.

Hides where blobs lie (a home's store, an exported folder, a .tar, an object store). It must not believe what it reads: whoever uses
a blob hashes the bytes that it uses.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from modelyard.files import read_limited
from modelyard.types import Digest, parse_digest


class BlobReader(Protocol):
    """A source of bytes by digest. Reads may come from several threads."""

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        """The bytes stored as `digest`, unverified. Raises NotFound, or PayloadTooLarge above `limit_bytes`."""
        ...

    def listing(self) -> frozenset[Digest] | None:
        """Every digest held, where the source is one bundle alone (nothing else may be in it); None for a store that many bundles share."""
        ...


class FolderReader:
    """A store that many bundles share: `<folder>/sha256/<hex>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: Digest) -> Path:
        """Where `digest` lies. Raises DigestMismatch when it is no digest, so that no name can leave the folder."""
        return self.folder / "sha256" / parse_digest(digest).removeprefix("sha256:")

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        """The bytes stored as `digest`, unverified. Raises NotFound, or PayloadTooLarge above `limit_bytes`."""
        return read_limited(self.path(digest), limit_bytes)

    def listing(self) -> None:
        """None: other bundles live here too."""
        return


def digest_of(data: bytes) -> Digest:
    """The SHA-256 of `data`."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
