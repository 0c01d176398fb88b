"""The admin key of a home: made at its first start, shown once, kept for the command line in a file of mode 0600.

Hides where access keys are kept: their hashes in the registry's records, this one key also in `keys/admin.key`. Whoever can read that file is the
admin.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from modelyard import files, registry
from modelyard.config import Settings
from modelyard.errors import InvalidConfig, NotFound, Unauthenticated
from modelyard.security.base import KeyRecord
from modelyard.security.identity import Keyring

if TYPE_CHECKING:
    from modelyard.registry.base import RecordStore

KIND = "access-key"
ADMIN = "admin"
_KEY_LIMIT_BYTES = 1024


class RecordKeys:
    """A KeyStore in the registry's records."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def get(self, id: str) -> KeyRecord | None:
        """See `KeyStore.get`."""
        record = self._records.get(KIND, id)
        return None if record is None else msgspec.convert(record.body, KeyRecord)

    def put(self, record: KeyRecord) -> None:
        """See `KeyStore.put`."""
        self._records.put(KIND, record.id, msgspec.to_builtins(record), expected=None)

    def remove(self, id: str) -> None:
        """See `KeyStore.remove`."""
        found = self._records.get(KIND, id)
        if found is not None:
            self._records.delete(KIND, id, expected=found.revision)

    def all(self) -> tuple[KeyRecord, ...]:
        """See `KeyStore.all`."""
        return tuple(msgspec.convert(record.body, KeyRecord) for record in self._records.list(KIND))


class AdminKey(NamedTuple):
    """The admin key, and the same again if this call has made it (None otherwise): what is to be shown once."""

    key: str
    if_new: str | None


def admin_key(settings: Settings) -> AdminKey:
    """The admin key of the home; a new one when the file is not there or its key is not known, and then every older admin key is void."""
    with contextlib.closing(registry.open(settings.home)) as records:
        keyring = Keyring(RecordKeys(records.records))
        try:
            key = read_admin_key(settings)
            keyring.authenticate(key)
        except (NotFound, Unauthenticated):
            files.make_folder(settings.home / "keys")
            keyring.revoke(ADMIN)
            key = keyring.add(ADMIN, roles=(ADMIN,))
            files.write_atomically(settings.home / "keys" / "admin.key", f"{key}\n".encode(), mode=0o600)
            return AdminKey(key, key)
        return AdminKey(key, None)


def read_admin_key(settings: Settings) -> str:
    """The key in `keys/admin.key`. Raises NotFound, or InvalidConfig when other users can read it."""
    path = settings.home / "keys" / "admin.key"
    key = files.read_limited(path, _KEY_LIMIT_BYTES).decode("ascii", "replace").strip()
    if path.stat().st_mode & 0o077:
        raise InvalidConfig(f"{path} can be read by other users; remove it and run `modelyard up` again for a new key")
    return key
