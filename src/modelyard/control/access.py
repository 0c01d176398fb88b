"""Who is let into a home's control plane: by an access key, or by a token of its issuer; and the admin key, made at the first start and shown once.

Hides where access keys are kept: their hashes in `keys/access.json`, the admin's also in `keys/admin.key` (mode 0600), for the command line. Whoever
can read that file is the admin.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from modelyard import files
from modelyard.client.places import read_admin_key
from modelyard.config import Settings
from modelyard.errors import Forbidden, ModelyardError, NotFound, Unauthenticated
from modelyard.security import grants, tokens
from modelyard.security.base import Identity
from modelyard.security.identity import Keyring
from modelyard.security.issuer import Issuer
from modelyard.security.keys import FileKeys
from modelyard.security.uses import Uses
from modelyard.types import Principal

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


class KeysAndTokens:
    """An Identity by access keys, which have no dot, and by the tokens of `issuer`, whose holder is called `oidc:<issuer>#<subject>`."""

    def __init__(self, keyring: Keyring, issuer: Issuer, settings: Settings) -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._wanted = tokens.Wanted(settings.oidc_issuer, settings.oidc_audience, settings.oidc_max_life_s)
        self._grants = grants.Grants(settings.oidc_roles_claim, grants.parse(settings.oidc_roles), settings.oidc_models_claim)

    def coming(self, shown: str | None) -> Future[None] | None:
        """See `Identity.coming`: a look at the issuer's keys, for a token whose key is not among them."""
        if shown is None or not tokens.is_token(shown):
            return None
        try:
            return self._issuer.coming(tokens.kid(shown))
        except Unauthenticated:
            return None  # whatever keys come

    def authenticate(self, shown: str | None) -> Principal:
        """See `Identity.authenticate`."""
        if shown is None or not tokens.is_token(shown):
            return self._keyring.authenticate(shown)
        key = self._issuer.key(tokens.kid(shown))
        if key is None:
            raise tokens.unknown_key()
        claims = tokens.claims(shown, key, self._wanted, now=time.time())
        name = f"oidc:{self._wanted.issuer}#{claims['sub']}"
        try:
            roles, models = grants.granted(self._grants, claims)
        except Forbidden as error:
            error.caller = name
            raise
        return Principal(name, roles, models)


def home_issuer(settings: Settings, *, failed: Callable[[ModelyardError], None], went_well: Callable[[], None]) -> Issuer | None:
    """The issuer whose tokens the home accepts, with no thread yet; None where it accepts none."""
    return Issuer(settings, failed=failed, went_well=went_well) if settings.oidc_issuer else None


def home_identity(settings: Settings, issuer: Issuer | None, *, uses: Uses | None = None) -> Identity:
    """Who is let into the home's control plane. Raises InvalidConfig for a mapping of groups that is none."""
    keyring = home_keyring(settings, uses=uses)
    return keyring if issuer is None else KeysAndTokens(keyring, issuer, settings)


def home_keyring(settings: Settings, *, uses: Uses | None = None) -> Keyring:
    """The keys of the home, which open both planes; `keys_file` names another file for the data plane alone. Each use is noted in `uses`."""
    return Keyring(FileKeys(settings.home / "keys" / "access.json"), uses=uses)
