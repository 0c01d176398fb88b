"""Who is believed and who is let in, over HTTP: trusted signers and access keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from modelyard.console.operations import Call, Operation, in_utc
from modelyard.errors import InvalidInput
from modelyard.security.base import KeyRecord
from modelyard.security.seal import TrustedKey

PEM_CHARACTERS = 60_000


class TrustRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signer's public key, or the certificate of an authority, in PEM."""

    pem: Annotated[str, msgspec.Meta(min_length=1, max_length=PEM_CHARACTERS)]


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """The id of a signer who is believed now, or no longer."""

    key_id: str


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new access key: for whom, what it may, which models (none: all), and until when (ISO 8601 with a zone)."""

    name: str
    roles: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=16)] = ("invoker",)
    models: Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)] = ()
    expires_at: datetime | None = None
    priority: Literal["high", "normal", "low"] = "high"


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told of an access key: never what it is known by."""

    id: str
    name: str
    roles: tuple[str, ...]
    created_at: str
    expires_at: str | None = None
    models: tuple[str, ...] = ()
    priority: str = "high"
    last_used_at: str | None = None


class NewKey(Key, frozen=True, kw_only=True, omit_defaults=True):
    """A new access key, told this once."""

    key: str


def _trusted(call: Call) -> tuple[TrustedKey, ...]:
    return call.plane.trusted()


def _trust(call: Call) -> Trusted:
    asked: TrustRequest = call.body
    return Trusted(key_id=call.plane.trust_add_pem(call.who, asked.pem.encode(), called="a key sent by the API"))


def _distrust(call: Call) -> Trusted:
    return Trusted(key_id=call.plane.trust_remove(call.who, call.path["id"]))


def _keys(call: Call) -> tuple[Key, ...]:
    uses = call.plane.key_uses()
    return tuple(_shown(record, uses.get(record.id)) for record in call.plane.key_list())


def _create_key(call: Call) -> NewKey:
    asked: KeyRequest = call.body
    until = None if asked.expires_at is None else in_utc(asked.expires_at, "expires_at")
    if asked.expires_at is not None and until is not None and (asked.expires_at.tzinfo is None or until <= datetime.now(UTC)):
        raise InvalidInput("a key ends at a time to come, which names its zone", field="expires_at", rule="range")
    key, record = call.plane.key_create(call.who, asked.name, roles=asked.roles, models=asked.models, expires_at=until, priority=asked.priority)
    return NewKey(key=key, **msgspec.structs.asdict(_shown(record)))


def _revoke_key(call: Call) -> Key:
    return _shown(call.plane.key_revoke(call.who, call.path["id"]))


def _shown(record: KeyRecord, last_used_at: str | None = None) -> Key:
    kept = {field.name: getattr(record, field.name) for field in msgspec.structs.fields(Key) if field.name != "last_used_at"}
    return Key(**kept, last_used_at=last_used_at)


OPERATIONS = (
    Operation("GET", "/trust", "list_trusted", "Every signer that this home trusts, its own key first.", _trusted, tuple[TrustedKey, ...]),
    Operation("POST", "/trust", "trust", "Trust a signer.", _trust, Trusted, TrustRequest),
    Operation("DELETE", "/trust/{id}", "distrust", "Trust a signer no longer, by the first digits of the id.", _distrust, Trusted),
    Operation("GET", "/keys", "list_keys", "What is kept of every access key.", _keys, tuple[Key, ...]),
    Operation(
        "POST", "/keys", "create_key", "Make an access key, which is told this once.",
        _create_key, NewKey, KeyRequest, status=lambda _: 201, statuses=(201,), is_secret=True,
    ),
    Operation("DELETE", "/keys/{id}", "revoke_key", "Revoke an access key, by the first digits of its id.", _revoke_key, Key),
)  # fmt: skip
