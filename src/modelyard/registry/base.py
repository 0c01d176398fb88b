"""The ports of the registry: blobs by digest, and small named records under compare-and-swap, with the audit chain beside them.

Hides which store holds them: SQLite and a folder in the home, PostgreSQL and an object store by URL. It must not know what a record means.
Contract suites: `tests/contract/test_blob_stores.py`, `tests/contract/test_record_stores.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from modelyard.security.base import AuditStore
from modelyard.types import Digest


class Record(msgspec.Struct, frozen=True):
    """A named value. `revision` rises with every write in the whole store, so that an old one never comes back."""

    kind: str
    key: str
    revision: int
    body: dict[str, Any]


class Stamp(NamedTuple):
    """The latest revision of a record of a kind, and how many there are.

    Law: while it is the same, so are the records: a write gives a higher revision than any before, and without one there can only be fewer.
    """

    revision: int
    records: int


class Records(Protocol):
    """The verbs, on a store (each call its own transaction) or inside a transaction."""

    def get(self, kind: str, key: str) -> Record | None:
        """The record, or None."""
        ...

    def list(self, kind: str, *, prefix: str = "") -> tuple[Record, ...]:
        """All records of a kind whose key begins with `prefix`, by key."""
        ...

    def stamp(self, kind: str) -> Stamp:
        """The stamp of a kind: while it is the same, so is what `list` gives, at a fraction of its price."""
        ...

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        """Write a record. `expected` is the revision that it must have now, 0 that there must be none, None that any will do. Raises Conflict."""
        ...

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        """Remove a record; one that is absent stays so, unless a revision was expected. Raises Conflict."""
        ...


class Transaction(Records, AuditStore, Protocol):
    """Records and the audit chain, changed together: `AuditLog(transaction).record(…)` tells of what the transaction does, or neither comes to be."""


Also = Callable[[Transaction], None]
"""What else is to be done in the transaction of a change: tell the audit chain of it, keep the answer for one who asks again."""


class RecordStore(Transaction, Protocol):
    """Named records and one audit chain. A write that has returned survives a crash of the machine. Safe for threads and processes.

    Every call answers or raises Unavailable within 5 s, whoever holds the store or has taken it away.
    """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Several verbs as one: serialisable, all or nothing, nothing when the block raises. Writers take turns, so that a block sees no other's
        half. Must not be nested. Raises Conflict, StorageFull or Unavailable.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Swept(msgspec.Struct, frozen=True):
    """What a sweep removed."""

    blobs: int
    size_bytes: int


class BlobStore(Protocol):
    """Bytes by their SHA-256: written whole or not at all, once however often they are put. Safe for threads and processes."""

    def put(self, data: bytes) -> Digest:
        """Keep `data`; durable when it returns. Raises StorageFull with nothing half-written."""
        ...

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        """The bytes stored as `digest`, unverified. Raises NotFound, or PayloadTooLarge above `limit_bytes`."""
        ...

    def listing(self) -> None:
        """None: a store that many bundles share (see `bundle.base.BlobReader`)."""
        ...

    def has(self, digest: Digest) -> bool:
        """Whether the store holds `digest`."""
        ...

    def delete(self, digest: Digest) -> None:
        """Remove `digest`; one that is absent stays so."""
        ...

    def list(self) -> tuple[Digest, ...]:
        """Every digest held, sorted."""
        ...

    def fetch(self, digests: Iterable[Digest]) -> Path:
        """A folder of this machine (`<folder>/sha256/<hex>`) in which these blobs lie, brought from elsewhere where need be and hashed on the way.

        Raises NotFound when one is not there, DigestMismatch when what is there is something else, Unavailable, StorageFull; what was brought stays.
        """
        ...

    def hold(self, digests: Iterable[Digest]) -> AbstractContextManager[Path]:
        """A folder (`<folder>/sha256/<hex>`) in which these blobs can be read, whatever is deleted or swept, until the block or its process ends.

        Raises NotFound when one is not there.
        """
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Hold off `sweep` from the first put to the record that refers to the blobs. Many may hold it at once."""
        ...

    def sweep(self, keep: Callable[[], frozenset[Digest]], *, min_age_s: float) -> Swept:
        """Remove blobs older than `min_age_s` that `keep()` does not name; it is asked when no writer is left. Raises Conflict when writers stay."""
        ...
