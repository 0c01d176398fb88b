"""Access keys: who is calling?

Hides the form of a key (`my_`, 256 random bits, a checksum by which scanners find leaks) and how it is compared. A key is shown once,
when it is made; what is kept cannot be turned back into it. It must not decide what a caller may do: that is `security.policy`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from datetime import UTC, datetime
from typing import Literal

from modelyard.errors import Unauthenticated
from modelyard.security.base import KeyRecord, KeyStore
from modelyard.security.uses import Uses
from modelyard.types import Principal

PREFIX = "my_"
ID_DIGITS = 12
"""How many digits of its fingerprint are a key's id."""

_RANDOM_CHARACTERS = 43  # 32 bytes in unpadded base64url
_CHECKSUM_CHARACTERS = 6
_LENGTH = len(PREFIX) + _RANDOM_CHARACTERS + _CHECKSUM_CHARACTERS
_KEY = re.compile(rf"{PREFIX}(?=[a-z0-9_-]*[A-Z])[A-Za-z0-9_-]{{20,}}")  # a name, which may be as long, has no capitals
_REFUSED = "no valid access key; send `Authorization: Bearer my_…`"


def mint() -> str:
    """A new access key from the system's source of randomness."""
    body = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether `key` has the form of one of ours, checksum included; says nothing of whether it is known."""
    return (
        len(key) == _LENGTH
        and key.startswith(PREFIX)
        and key.isascii()
        and hmac.compare_digest(_checksum(key[:-_CHECKSUM_CHARACTERS]), key[-_CHECKSUM_CHARACTERS:])
    )


def fingerprint(key: str) -> str:
    """SHA-256 of the key in hex; its first ID_DIGITS digits are the key's id."""
    return hashlib.sha256(key.encode()).hexdigest()


def without_keys(text: str) -> str:
    """`text` with each access key, or large part of one, covered: somebody may have given one where an id or a name was asked for."""
    return _KEY.sub(f"{PREFIX}***", text)


def new(
    name: str,
    *,
    roles: tuple[str, ...],
    models: tuple[str, ...] = (),
    expires_at: datetime | None = None,
    priority: Literal["high", "normal", "low"] = "high",
) -> tuple[str, KeyRecord]:
    """A new key for `name`, which can be seen this once, and the record to keep of it."""
    key = mint()
    digest = fingerprint(key)
    record = KeyRecord(
        id=digest[:ID_DIGITS],
        sha256=digest,
        name=name,
        roles=roles,
        models=models,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        expires_at=None if expires_at is None else expires_at.isoformat(timespec="seconds"),
        priority=priority,
    )
    return key, record


class Keyring:
    """The keys of one home. Safe to use from several threads when its store is."""

    def __init__(self, store: KeyStore, *, uses: Uses | None = None) -> None:
        self._store = store
        self._uses = uses

    def add(self, name: str, *, roles: tuple[str, ...], expires_at: datetime | None = None) -> str:
        """Make a key for `name`, keep its record, and return the key: the only time that it can be seen."""
        key, record = new(name, roles=roles, expires_at=expires_at)
        self._store.put(record)
        return key

    def revoke(self, name: str) -> None:
        """Forget every key of `name`; the next request with one is refused."""
        for record in self._store.all():
            if record.name == name:
                self._store.remove(record.id)

    def coming(self, _: str | None) -> None:
        """Nothing: a key is known or it is not. See `Identity.coming`."""
        return

    def authenticate(self, key: str | None) -> Principal:
        """Who holds `key`. Raises Unauthenticated alike for a missing, malformed, unknown or expired one."""
        if key is None or not is_well_formed(key):
            raise Unauthenticated(_REFUSED)
        digest = fingerprint(key)
        record = self._store.get(digest[:ID_DIGITS])
        expected = record.sha256 if record is not None else "0" * 64
        if not hmac.compare_digest(digest, expected) or record is None:
            raise Unauthenticated(_REFUSED)
        if record.expires_at is not None and datetime.fromisoformat(record.expires_at) <= datetime.now(UTC):
            raise Unauthenticated(_REFUSED)
        if self._uses is not None:
            self._uses.note(record.id)
        return Principal(f"key:{record.name}", record.roles, record.models)


def _checksum(body: str) -> str:
    crc = zlib.crc32(body.encode())
    return base64.urlsafe_b64encode(crc.to_bytes(4, "big")).decode().rstrip("=")
