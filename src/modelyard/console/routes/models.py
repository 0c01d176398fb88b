"""The registry over HTTP: models, their versions, what a bundle holds, aliases, bundles in and out."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from modelyard.bundle.card import Card
from modelyard.bundle.lock import Lock
from modelyard.bundle.manifest import Member
from modelyard.console.operations import Call, Download, Operation
from modelyard.control.once import Effect
from modelyard.errors import InvalidInput
from modelyard.files import make_folder
from modelyard.registry import Model, Version
from modelyard.registry.base import Swept
from modelyard.types import Digest, Schema, Verdict

NUMBER_DIGITS = 9


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle holds; every byte and both seals were verified to tell it."""

    name: str
    version: int
    aliases: tuple[str, ...]
    digest: Digest
    signer: str
    schema: Schema
    card: Card
    lock: Lock
    attestation: dict[str, Any]
    members: tuple[Member, ...]


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What every gate found here and now. `is_fit` when none failed."""

    digest: Digest
    is_fit: bool
    verdicts: tuple[Verdict, ...]


class AliasRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version that the alias shall mean."""

    version: Annotated[int, msgspec.Meta(ge=1, le=10**NUMBER_DIGITS - 1)]


class Aliased(msgspec.Struct, frozen=True, kw_only=True):
    """An alias and the version that it means; none when it was removed."""

    name: str
    alias: str
    version: int | None


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """A version that the registry has no longer."""

    name: str
    version: int


class ImportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which name to register the bundle; without it, its own."""

    name: str | None = None


def _models(call: Call) -> tuple[Model, ...]:
    return call.plane.models()


def _my_models(found: tuple[Model, ...], sees: Callable[[str], bool]) -> tuple[Model, ...]:
    return tuple(model for model in found if sees(model.name))


def _versions(call: Call) -> tuple[Version, ...]:
    return call.plane.versions(call.name)


def _inspect(call: Call) -> Inspected:
    opened, version = call.plane.open(reference(call))
    return Inspected(
        name=opened.name,
        version=version.version if version else 0,
        aliases=version.aliases if version else (),
        digest=opened.digest,
        signer=opened.signer,
        schema=opened.schema,
        card=opened.card,
        lock=opened.lock,
        attestation=opened.attestation,
        members=opened.members,
    )


def _verify(call: Call) -> Verified:
    opened, found = call.plane.verify(reference(call))
    return Verified(digest=opened.digest, is_fit=all(verdict.outcome != "fail" for verdict in found), verdicts=found)


def _export(call: Call) -> Download:
    said = reference(call)
    folder = make_folder(call.plane.settings.uploads)
    target = folder / f"{secrets.token_hex(16)}.tar"
    opened = call.plane.export(said, target)
    return Download(target, f"{call.name}-{opened.digest.removeprefix('sha256:')[:12]}.tar")


def _delete(call: Call) -> Deleted:
    number = _number(call.path["version"])
    call.plane.delete(call.who, call.name, number)
    return Deleted(name=call.name, version=number)


def _deleted_again(call: Call, _: Effect) -> Deleted:
    return Deleted(name=call.name, version=_number(call.path["version"]))


def _set_alias(call: Call) -> Aliased:
    asked: AliasRequest = call.body
    call.plane.set_alias(call.who, call.name, call.path["alias"], asked.version)
    return Aliased(name=call.name, alias=call.path["alias"], version=asked.version)


def _remove_alias(call: Call) -> Aliased:
    call.plane.set_alias(call.who, call.name, call.path["alias"], None)
    return Aliased(name=call.name, alias=call.path["alias"], version=None)


def _aliased_again(call: Call, _: Effect) -> Aliased:
    return Aliased(name=call.name, alias=call.path["alias"], version=call.body.version if call.body is not None else None)


def _import(call: Call) -> Version:
    return call.plane.import_(call.who, call.file, name=call.path.get("name") or call.query.name)


def _imported_again(call: Call, effect: Effect) -> Version:
    if effect.kind != "version":
        raise InvalidInput("this idempotency key was used for another request", field="Idempotency-Key", rule="idempotency")
    return call.plane.registry.resolve(f"{effect.body['name']}:{effect.body['version']}")


def _gc(call: Call) -> Swept:
    return call.plane.gc(call.who)


def reference(call: Call) -> str:
    """The reference that `{name}` and `{version}` of the path make: a number, an alias, or `sha256:…`."""
    name, version = call.name, call.path["version"]
    return f"{name}:{version}" if version.isdigit() else f"{name}@{version}"


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS and int(text) > 0):
        raise InvalidInput("say which version by its number", field="version", rule="version")
    return int(text)


def _created(_: Any) -> int:
    return 201


VERSION = "/models/{name}/versions/{version}"

OPERATIONS = (
    Operation("GET", "/models", "list_models", "Every model of this home.", _models, tuple[Model, ...], sift=_my_models),
    Operation("GET", "/models/{name}/versions", "list_versions", "The versions of a model.", _versions, tuple[Version, ...]),
    Operation("GET", VERSION, "inspect", "What a version (number, alias or digest) holds; verified to tell.", _inspect, Inspected, is_long=True),
    Operation("POST", VERSION + "/verify", "verify", "Run every gate on a version, here and now.", _verify, Verified, is_long=True, is_reading=True),
    Operation("GET", VERSION + "/export", "export_bundle", "The bundle of a version, as a .tar.", _export, bytes, kind="download", is_long=True),
    Operation("DELETE", VERSION, "delete_version", "Remove a version that nothing uses.", _delete, Deleted, recall=_deleted_again),
    Operation(
        "PUT", "/models/{name}/aliases/{alias}", "set_alias", "Let an alias mean a version.", _set_alias, Aliased, AliasRequest, recall=_aliased_again
    ),
    Operation("DELETE", "/models/{name}/aliases/{alias}", "remove_alias", "Remove an alias.", _remove_alias, Aliased, recall=_aliased_again),
    Operation(
        "POST", "/models/{name}/versions", "import_version", "Register the bundle in the body, a .tar, as a version of this model.",
        _import, Version, kind="upload", status=_created, statuses=(201,), recall=_imported_again, is_long=True,
    ),
    Operation(
        "POST", "/bundles", "import_bundle", "Register the bundle in the body, a .tar, under its own name or another.",
        _import, Version, query=ImportQuery, kind="upload", status=_created, statuses=(201,), recall=_imported_again, is_long=True,
    ),
    Operation("POST", "/gc", "gc", "Free the space of what no version needs.", _gc, Swept),
)  # fmt: skip
