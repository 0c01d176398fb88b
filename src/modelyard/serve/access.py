"""Who may ask what on the data plane: one answer for every wire.

Hides the file of keys and how it is watched, when a key is wanted, and what a browser may do. Both edges ask `Access.caller` once per head (or
connection), remember the `Caller` with `epoch`, and ask the Caller about each model. It must not know HTTP or gRPC.

- A key is wanted on every address but loopback, unless `insecure`; and everywhere when `keys_file` names a file. Where none is wanted, one of ours
  (`my_…`) that is sent must be valid all the same; another Authorization, such as a platform's own, means nothing.
- Loading and unloading wants a key on every address but loopback, `insecure` or not, unless `insecure_loading`.
- A model that a key is not for answers 403 whether it is there or not, and stands in no listing.
- A page in a browser can reach loopback: a foreign Origin is refused everywhere, and on loopback a Host that is not local, unless a key is shown.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from datetime import UTC, datetime

from modelyard.config import Settings
from modelyard.errors import Forbidden, InvalidConfig, ModelyardError, NotFound, Unauthenticated
from modelyard.security import keys
from modelyard.security.base import KeyRecord
from modelyard.security.identity import PREFIX
from modelyard.security.policy import LOAD, RIGHTS, Right, rights
from modelyard.security.uses import Uses
from modelyard.serve.admission import HIGH, PRIORITIES
from modelyard.types import Principal

REMEMBERED = 4096
BURST = 20
"""How many wrong keys a second are answered at once; further ones are held back, so that guessing is slow and costs nothing."""

HOLD_BACK_S = 1.0
READ_AT_ONCE_BYTES = 128 << 10
"""A file up to this size is read in the event loop, when an unknown key comes and it has changed."""

_INDEX_BYTES = 8
_REFUSED = "no valid access key; send `Authorization: Bearer my_…`"
_NO_TOKENS = "tokens are the control plane's alone; send an access key, `Authorization: Bearer my_…`"


class Caller:
    """Who asks, and what they may do here. Immutable; good for as long as the epoch under which it was given."""

    __slots__ = ("id", "lowest", "models", "principal", "rights")

    def __init__(
        self, principal: Principal, may: frozenset[Right], models: frozenset[str] | None = None, *, id: str = "", lowest: int = HIGH
    ) -> None:
        self.principal = principal
        self.rights = may
        self.models = models
        """The models that this caller may ask for; None means every one."""
        self.id = id
        """The key's; empty for who has none."""
        self.lowest = lowest
        """The highest class of priority that their requests have, as its number: a request has this or a lower one."""

    def require(self, right: Right, model: str = "") -> None:
        """Return when the caller may do this (with this model, where one is given). Raises Forbidden."""
        if right not in self.rights:
            raise Forbidden("your key has no role that may do this", rule="role")
        if model:
            self.require_model(model)

    def require_model(self, model: str) -> None:
        """Return when the caller may ask for `model`. Raises Forbidden, whether there is such a model or not."""
        if self.models is not None and model not in self.models:
            raise Forbidden("your key is not for this model", field="model", rule="grant")

    def require_all(self) -> None:
        """Return when the caller is not held to some models: for what tells of all of them at once. Raises Forbidden."""
        if self.models is not None:
            raise Forbidden("your key is for some models, and this tells of all", field="model", rule="grant")

    def sees(self, model: str) -> bool:
        """Whether `model` may stand in a listing for this caller."""
        return self.models is None or model in self.models


ANYONE = Caller(Principal("anonymous"), RIGHTS["admin"] - {LOAD})
"""Whoever asks without a key where none is wanted."""

ANYONE_HERE = Caller(Principal("anonymous"), RIGHTS["admin"])
"""The same on loopback: what is loaded may be changed as well."""

Index = dict[bytes, tuple[KeyRecord, ...]]


class Access:
    """The keys in force for one worker, as of `epoch`. Lives in the event loop, but for `read`, which blocks and belongs in a thread."""

    def __init__(self, settings: Settings, *, process: str = "worker") -> None:
        self._path = settings.access_keys
        self.uses = Uses(settings.run, process)
        self._must_exist = bool(settings.keys_file)
        self._is_required = wants_key(settings)
        self._is_local = is_loopback(settings.host)
        self._anyone = ANYONE_HERE if self._is_local or settings.insecure_loading else ANYONE
        self._hosts = frozenset(name.strip().lower() for name in f"{settings.host},{settings.allowed_hosts}".split(",") if name.strip())
        self._callers: dict[bytes, Caller] = {}
        self._hold_back = (0.0, 0.0)
        self.epoch = 0
        """Grows with every change, a key's expiry included, so that a decision may be remembered with it."""
        self._stamp: keys.Stamp | None = None
        self._expires_s = float("inf")
        self._index: Index = {}
        self._take(self._stamp_now(), self._read())

    def caller(self, authorization: bytes, *, host: bytes = b"", origin: bytes = b"") -> Caller:
        """Who sends `authorization` (the header's value, empty when there is none). Raises Unauthenticated, or Forbidden for a browser's page.

        `host` and `origin` are the headers of that name, `:authority` for HTTP/2.
        """
        if origin and not self._is_own(origin, host):
            raise Forbidden("pages of other origins may not ask here", rule="origin")
        found = self._callers.get(authorization) or self._authenticate(authorization)
        if found is self._anyone and self._is_local and host and not self._is_known(_name(host)):
            raise Forbidden("this Host is not served here; name it in allowed_hosts, or send a key", rule="host")
        if found.id:
            self.uses.note(found.id)
        return found

    def hold_back_s(self) -> float:
        """How long to wait before a wrong key is told so; asked once for each."""
        now = time.monotonic()
        left, at = self._hold_back
        left = min(BURST, left + (now - at) * BURST) - 1
        self._hold_back = (max(left, 0.0), now)
        return 0.0 if left >= 0 else HOLD_BACK_S

    @property
    def has_live_key(self) -> bool:
        """Whether there is a key that lets somebody in."""
        now = time.time()
        return any(_expiry_s(record) > now for records in self._index.values() for record in records)

    @property
    def is_stale(self) -> bool:
        """Whether the file has changed, or a key has expired, since the last look."""
        return self._stamp_now() != self._stamp or time.time() >= self._expires_s

    def forget_decisions(self) -> None:
        """Let every caller be asked about again, as a new epoch: of who goes on asking with a remembered head, a use is noted once a minute."""
        self.epoch += 1

    def read(self) -> tuple[keys.Stamp | None, Index]:
        """What the file says now, for `take`. A file that has gone or cannot be read leaves no key valid."""
        stamp = self._stamp_now()  # before reading: what changes in between is then read again
        try:
            return stamp, self._read()
        except ModelyardError:
            return stamp, {}

    def take(self, found: tuple[keys.Stamp | None, Index]) -> None:
        """Let what `read` found be in force."""
        self.epoch += 1
        self._take(*found)

    def _take(self, stamp: keys.Stamp | None, index: Index) -> None:
        self._stamp, self._index = stamp, index
        self._callers = {}
        now = time.time()
        later = (at for records in index.values() for record in records if (at := _expiry_s(record)) > now)
        self._expires_s = min(later, default=float("inf"))

    def _stamp_now(self) -> keys.Stamp | None:
        return keys.stamp(self._path)

    def _read(self) -> Index:
        try:
            found = keys.read(self._path)
        except NotFound:
            if self._must_exist:
                raise
            found = ()
        index: Index = {}
        for record in found:
            _expiry_s(record)  # a time that is none is a file that is none
            try:
                at = bytes.fromhex(record.sha256)[:_INDEX_BYTES]
            except ValueError as error:
                raise InvalidConfig("the keys file holds something else than SHA-256 in hex", field="keys_file", rule="form") from error
            index[at] = (*index.get(at, ()), record)
        return index

    def _authenticate(self, authorization: bytes) -> Caller:
        """Found by the first bytes of the key's hash, which a caller cannot choose, then compared in constant time."""
        scheme, _, key = authorization.partition(b" ")
        key = key.strip()
        digest = hashlib.sha256(key)
        records = self._index.get(digest.digest()[:_INDEX_BYTES], ())
        found = digest.hexdigest()
        match = [record for record in records if hmac.compare_digest(found, record.sha256)]
        if scheme.lower() == b"bearer" and match and _expiry_s(match[0]) > time.time():
            record = match[0]
            principal = Principal(f"key:{record.id}", record.roles, record.models)
            lowest = PRIORITIES[record.priority]
            caller = Caller(principal, rights(record.roles), frozenset(record.models) or None, id=record.id, lowest=lowest)
            if len(self._callers) >= REMEMBERED:
                self._callers.clear()
            self._callers[authorization] = caller
            return caller
        if self._is_required or key.startswith(PREFIX.encode()):
            if key and self._looks_again():
                return self._authenticate(authorization)
            raise Unauthenticated(_NO_TOKENS if key.startswith(b"ey") and b"." in key else _REFUSED)
        return self._anyone

    def _looks_again(self) -> bool:
        """Whether the file has changed since the last look, and so has been read: a key that was just made is good at once, not at the next look."""
        stamp = self._stamp_now()
        if stamp is None or stamp == self._stamp or stamp[2] > READ_AT_ONCE_BYTES:
            return False
        self.take(self.read())
        return True

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        """Whether the page came from here: the same host and port, or a host that the operator named."""
        scheme, _, rest = origin.decode("latin-1").lower().partition("://")
        default = {"http": ":80", "https": ":443"}.get(scheme)
        if not rest or default is None:
            return False
        return rest.removesuffix(default) == host.decode("latin-1").lower().removesuffix(default) or _name(rest.encode("latin-1")) in self._hosts

    def _is_known(self, name: str) -> bool:
        return is_loopback(name) or name.endswith(".localhost") or name in self._hosts


def wants_key(settings: Settings) -> bool:
    """Whether the data plane lets nobody in without a key."""
    return bool(settings.keys_file) or not (settings.insecure or is_loopback(settings.host))


def require_keys(settings: Settings) -> None:
    """Return when these settings let somebody in. Raises InvalidConfig, saying how: keys cannot be read, or one is wanted and none is live."""
    found = Access(settings)
    if not settings.keys_file and wants_key(settings) and not found.has_live_key:
        raise InvalidConfig(
            f"serving on {settings.host} lets others in: make a key first (modelyard keys create NAME), or say --insecure in as many words",
            field="host",
            rule="keys",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: bytes) -> str:
    """The name in a Host header, without port, brackets and a last dot."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _expiry_s(record: KeyRecord) -> float:
    """When the key ends, in seconds of the epoch; a key without an end never does. Raises InvalidConfig."""
    if record.expires_at is None:
        return float("inf")
    try:
        at = datetime.fromisoformat(record.expires_at)
    except ValueError as error:
        raise InvalidConfig("the keys file holds a time that is none", field="keys_file", rule="form") from error
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
