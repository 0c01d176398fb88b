"""The admin key of a home: made at its first start, shown once, kept for the command line in a file of mode 0600.

Hides where access keys are kept: their hashes in `keys/access.json`, this one key also in `keys/admin.key`. Whoever can read that file is the admin.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from modelyard import files
from modelyard.client.places import read_admin_key
from modelyard.config import Settings
from modelyard.errors import NotFound, Unauthenticated
from modelyard.security.identity import Keyring
from modelyard.security.keys import FileKeys
from modelyard.security.uses import Uses

ADMIN = "admin"


class AdminKey(NamedTuple):
    """The admin key, and the same again if this call has made it (None otherwise): what is to be shown once."""

    key: str
    if_new: str | None


def admin_key(settings: Settings) -> AdminKey:
    """The admin key of the home; a new one when the file is not there or its key is not known, and then every older admin key is void.

    Of several first starts at once one makes it, and the others find it.
    """
    keyring = home_keyring(settings)
    found = _found(settings, keyring)
    if found is not None:
        return AdminKey(found, None)
    with _alone(files.make_folder(settings.home / "keys")):
        found = _found(settings, keyring)
        if found is not None:
            return AdminKey(found, None)
        keyring.revoke(ADMIN)
        key = keyring.add(ADMIN, roles=(ADMIN,))
        files.write_atomically(settings.home / "keys" / "admin.key", f"{key}\n".encode(), mode=0o600)
        return AdminKey(key, key)


def _found(settings: Settings, keyring: Keyring) -> str | None:
    try:
        key = read_admin_key(settings)
        keyring.authenticate(key)
    except (NotFound, Unauthenticated):
        return None
    return key


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    path = folder / ".admin.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise files.translate(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def home_keyring(settings: Settings, *, uses: Uses | None = None) -> Keyring:
    """The keys of the home, which open both planes; `keys_file` names another file for the data plane alone. Each use is noted in `uses`."""
    return Keyring(FileKeys(settings.home / "keys" / "access.json"), uses=uses)
