"""The ports of security: who signs, who says whether a seal is good, who calls, and where access keys and audit entries are kept.

Hides where keys live (a folder today, a key service for others). No secret passes: an access key is kept as its id and
SHA-256. It must not import cryptography: everything that builds or opens a bundle loads this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from modelyard.types import Digest, Principal

if TYPE_CHECKING:
    from concurrent.futures import Future


class Signer(Protocol):
    """A private key that signs and never leaves its place. ECDSA on P-384 with SHA-384; signatures are DER."""

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) of the public key's SPKI PEM: the `hint` of the seals that it makes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`."""
        ...


class Verifier(Protocol):
    """Decides which signers are believed."""

    def verify(self, seal: bytes, *, subject: Digest, members: Mapping[str, Digest]) -> str:
        """The key id of the trusted signer who sealed exactly `members` (digests by path) as `subject`.

        Raises SealInvalid or UntrustedSigner.
        """
        ...


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of an access key: `sha256` of the whole key in hex, never the key. Times are ISO 8601 in UTC; no `models` means every model.

    `priority` is the highest class that a request with this key has, whatever it asks for.
    """

    id: str
    sha256: str
    name: str
    roles: tuple[str, ...]
    created_at: str
    expires_at: str | None = None
    models: tuple[str, ...] = ()
    priority: Literal["high", "normal", "low"] = "high"


class KeyStore(Protocol):
    """Access keys by id."""

    def get(self, id: str) -> KeyRecord | None:
        """The key with this id, or None."""
        ...

    def put(self, record: KeyRecord) -> None:
        """Keep `record`, replacing what has its id."""
        ...

    def remove(self, id: str) -> None:
        """Forget a key; nothing happens when there is none."""
        ...

    def all(self) -> tuple[KeyRecord, ...]:
        """Every key kept."""
        ...


class Identity(Protocol):
    """Says who a caller of the control plane is, by what they show. Any thread may ask."""

    def coming(self, shown: str | None) -> Future[None] | None:
        """What is under way that may decide about `shown`, and is worth a short wait; None for nothing. Does not block."""
        ...

    def authenticate(self, shown: str | None) -> Principal:
        """Who shows this. Raises Unauthenticated or Forbidden, or Unavailable where nobody can tell now."""
        ...


class AuditLine(Protocol):
    """Makes the next line from the one before it."""

    def __call__(self, last: bytes | None) -> bytes:
        """The next line, without its end."""
        ...


class AuditStore(Protocol):
    """An append-only sequence of lines, one writer at a time."""

    def append(self, make: AuditLine) -> None:
        """Append `make(last line or None)` durably, alone among all writers.

        Raises StorageFull, Unavailable or InvalidConfig, and then nothing was kept.
        """
        ...

    def lines(self) -> Iterator[bytes]:
        """Every line, oldest first, without its end."""
        ...
