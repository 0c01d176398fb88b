"""The ports of security: who signs, and who says whether a seal is good.

Hides where keys live (a folder today, a key service for others). It must not import cryptography: everything that
builds or opens a bundle loads this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from modelyard.types import Digest


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
