"""The registry: which bundles a home has, under which names, versions and aliases.

Hides how records and blobs work together: blobs are written before the record, and the record is the commit point. It must not open or
judge a bundle, and it knows of deployments only what keeps a version from being deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from modelyard.bundle import Built
from modelyard.errors import Conflict, InvalidConfig, InvalidInput, NotFound, Tampered
from modelyard.files import make_folder
from modelyard.registry.base import Also, BlobStore, Record, Records, RecordStore, Swept
from modelyard.registry.references import is_file as is_file
from modelyard.registry.references import parse, parse_alias
from modelyard.types import Digest, parse_name

CHAMPION = "champion"
MODEL, VERSION, DEPLOYMENT = "model", "version", "deployment"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One registered bundle. `index` leads to its blobs; `created_at` is when it was registered, UTC; `summary` is the caller's, to be listed."""

    name: str
    version: int
    digest: Digest
    index: Digest
    created_at: str
    aliases: tuple[str, ...] = ()
    summary: dict[str, Any] = {}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A name with its versions (increasing) and aliases. `latest` is the highest number ever given; numbers are never given twice."""

    name: str
    latest: int
    aliases: dict[str, int]
    versions: tuple[int, ...]


def open(home: Path, *, records_url: str = "", blobs_url: str = "", is_checked: bool = False) -> Registry:  # noqa: A001 - the noun's own verb
    """The registry of `home`, made at the first call. Close it when done.

    With `records_url` its records are in that PostgreSQL; with `blobs_url` its blobs in that object store, and the folder holds what is used here.
    `is_checked` reads all of the home's database for damage, which a process that stays does once.

    Raises InvalidConfig (not writable, or no driver for the URL), StorageFull, Tampered (damaged, or gone while its blobs are there),
    UnsupportedFormat (newer).
    """
    from modelyard.registry.blobs import FolderBlobs

    make_folder(home)
    records = _postgres(records_url) if records_url else _sqlite(home, has_all_blobs=not blobs_url, is_checked=is_checked)
    local = FolderBlobs(home / "blobs")
    if not blobs_url:
        return Registry(local, records)
    from modelyard.registry.objects import ObjectBlobs

    return Registry(ObjectBlobs(blobs_url, local), records)


def _sqlite(home: Path, *, has_all_blobs: bool, is_checked: bool) -> RecordStore:
    from modelyard.registry.records import SqliteRecords

    blobs, database = home / "blobs", home / "registry.sqlite"
    # Asked in this order: a home being made by another process has its database first.
    if has_all_blobs and next((blobs / "sha256").glob("*"), None) is not None and not database.exists():
        raise Tampered("this home has blobs but no registry.sqlite; restore it from a copy, or move the folder blobs away to begin anew")
    return SqliteRecords(database, is_checked=is_checked)


def _postgres(url: str) -> RecordStore:
    try:
        from modelyard.registry.postgres import PostgresRecords
    except ImportError as error:
        raise InvalidConfig("records_url needs the PostgreSQL driver: pip install 'modelyard[postgres]'", field="records_url") from error
    return PostgresRecords(url)


class Registry:
    """Names, versions and aliases over two stores. Holds no state of its own: any number of processes may use one home at once."""

    def __init__(self, blobs: BlobStore, records: RecordStore) -> None:
        self.blobs = blobs
        self.records = records

    def close(self) -> None:
        """Let go of the stores."""
        self.records.close()

    def add(self, name: str, built: Built, *, summary: dict[str, Any] | None = None, also: Also | None = None) -> Version:
        """Register `built` as the next version of `name`, and do `also`; a digest that `name` already has gives the version that it has, no more.

        Nothing is registered when a blob could not be written. Raises StorageFull or Unavailable.
        """
        parse_name(name)
        known = self._known(self.records, name, built.digest)
        if known is not None:
            return known
        with self.blobs.writing():
            for data in built.blobs.values():
                self.blobs.put(data)
            with self.records.transaction() as records:
                known = self._known(records, name, built.digest)
                if known is not None:
                    return known
                version = _record(records, name, built, summary or {})
                if also is not None:
                    also(records)
                return version

    def resolve(self, ref: str) -> Version:
        """The version that `ref` names: a bare name is the champion if set, else the newest. Raises NotFound or InvalidInput."""
        reference = parse(ref)
        name = reference.name
        model = self.records.get(MODEL, name)
        if model is None:
            raise NotFound(f"no model is called {name!r}; see: modelyard models", field="reference")
        if reference.digest is not None:
            return self._by_digest(name, reference.digest)
        aliases = model.body["aliases"]
        if reference.alias is not None and reference.alias not in aliases:
            raise NotFound(f"{name} has no alias {reference.alias!r}; set it: modelyard alias {name} {reference.alias} VERSION", field="reference")
        number = reference.version or aliases.get(reference.alias or CHAMPION)
        if number is None:
            versions = self.versions(name)
            if not versions:
                raise NotFound(f"all versions of {name} were deleted", field="reference")
            return versions[-1]
        record = self.records.get(VERSION, _key(name, number))
        if record is None:
            raise NotFound(f"{name} has no version {number}; see: modelyard versions {name}", field="reference")
        return _version(record, aliases)

    def models(self) -> tuple[Model, ...]:
        """Every name, sorted."""
        numbers: dict[str, list[int]] = {}
        for record in self.records.list(VERSION):
            numbers.setdefault(record.body["name"], []).append(record.body["version"])
        return tuple(
            Model(name=item.key, latest=item.body["latest"], aliases=item.body["aliases"], versions=tuple(numbers.get(item.key, ())))
            for item in self.records.list(MODEL)
        )

    def versions(self, name: str) -> tuple[Version, ...]:
        """The versions of `name`, increasing. Raises NotFound for a name that never had one."""
        model = self.records.get(MODEL, name)
        if model is None:
            raise NotFound(f"no model is called {name!r}; see: modelyard models", field="name")
        return tuple(_version(record, model.body["aliases"]) for record in self.records.list(VERSION, prefix=f"{name}:"))

    def versions_in(self, records: Records, digest: Digest) -> tuple[Version, ...]:
        """The versions that have `digest`, read inside a transaction: what that transaction then writes cannot race with `delete`."""
        aliases = {model.key: model.body["aliases"] for model in records.list(MODEL)}
        return tuple(_version(item, aliases[item.body["name"]]) for item in records.list(VERSION) if item.body["digest"] == digest)

    def set_alias(self, name: str, alias: str, version: int | None, *, also: Also | None = None) -> None:
        """Point `alias` of `name` at `version`; None removes it. Doing it twice is a no-op. Raises NotFound or InvalidInput."""
        parse_alias(alias)
        with self.records.transaction() as records:
            model = records.get(MODEL, name)
            if model is None:
                raise NotFound(f"no model is called {name!r}; see: modelyard models", field="name")
            if version is not None and records.get(VERSION, _key(name, version)) is None:
                raise NotFound(f"there is no {name}:{version}; see: modelyard versions {name}", field="version")
            aliases = {key: number for key, number in model.body["aliases"].items() if key != alias}
            if version is not None:
                aliases[alias] = version
            records.put(MODEL, name, {**model.body, "aliases": aliases}, expected=model.revision)
            if also is not None:
                also(records)

    def delete(self, name: str, version: int, *, also: Also | None = None) -> None:
        """Forget a version; its blobs go with the next `gc`. The last version takes its name with it, but not its number.

        Raises NotFound, or Conflict while it has an alias, is deployed, or is what a rollback would go back to.
        """
        with self.records.transaction() as records:
            record, model = records.get(VERSION, _key(name, version)), records.get(MODEL, name)
            if record is None or model is None:
                raise NotFound(f"there is no {name}:{version}; see: modelyard versions {name}", field="version")
            holders = sorted(alias for alias, number in model.body["aliases"].items() if number == version)
            if holders:
                raise Conflict(f"{name}:{version} has the alias {', '.join(holders)}; move it first: modelyard alias {name} {holders[0]} VERSION")
            _refuse_if_needed(records, f"{name}:{version}", record.body["digest"])
            records.delete(VERSION, record.key, expected=record.revision)
            if also is not None:
                also(records)

    def fetch(self, name: str, version: int) -> Path:
        """A folder of this machine in which all blobs of a version lie, brought there where need be. Raises what `BlobStore.fetch` does."""
        record = self.records.get(VERSION, _key(name, version))
        if record is None:
            raise NotFound(f"there is no {name}:{version}; see: modelyard versions {name}", field="version")
        return self.blobs.fetch(record.body["blobs"])

    def hold(self, versions: Iterable[Version]) -> AbstractContextManager[Path]:
        """A folder of blobs with all that `versions` need, whatever is deleted and swept until the block, or its process, ends. Raises NotFound."""
        needed: set[Digest] = set()
        for version in versions:
            record = self.records.get(VERSION, _key(version.name, version.version))
            if record is None:
                raise NotFound(f"{version.name}:{version.version} was deleted meanwhile", field="reference")
            needed.update(record.body["blobs"])
        return self.blobs.hold(sorted(needed))

    def gc(self, *, min_age_s: float = 0.0) -> Swept:
        """Remove the blobs that no version refers to; safe beside packages that run at the same time. Raises Conflict when those do not end."""
        return self.blobs.sweep(self._referenced, min_age_s=min_age_s)

    def _referenced(self) -> frozenset[Digest]:
        return frozenset(digest for record in self.records.list(VERSION) for digest in record.body["blobs"])

    def _known(self, records: Records, name: str, digest: Digest) -> Version | None:
        model = records.get(MODEL, name)
        if model is None:
            return None
        found = (item for item in records.list(VERSION, prefix=f"{name}:") if item.body["digest"] == digest)
        return next((_version(item, model.body["aliases"]) for item in found), None)

    def _by_digest(self, name: str, prefix: str) -> Version:
        found = [item for item in self.versions(name) if item.digest.startswith(prefix)]
        if not found:
            raise NotFound(f"{name} has no version with this digest; see: modelyard versions {name}", field="reference")
        if len(found) > 1:
            raise InvalidInput("several versions have a digest that begins so; give more digits", field="reference", rule="unique")
        return found[0]


def _record(records: Records, name: str, built: Built, summary: dict[str, Any]) -> Version:
    model = records.get(MODEL, name)
    body: dict[str, Any] = model.body if model else {"latest": 0, "aliases": {}}
    number = body["latest"] + 1
    records.put(MODEL, name, {**body, "latest": number}, expected=model.revision if model else 0)
    version = {
        "name": name,
        "version": number,
        "digest": built.digest,
        "index": built.index,
        "blobs": sorted(built.blobs),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "summary": summary,
    }
    return _version(records.put(VERSION, _key(name, number), version, expected=0), body["aliases"])


def _refuse_if_needed(records: Records, what: str, digest: Digest) -> None:
    for deployment in records.list(DEPLOYMENT):
        if digest in deployment.body.get("digests", ()):
            name = deployment.key
            raise Conflict(f"{what} is deployed as {name}; run: modelyard undeploy {name}, or modelyard abort {name} where a rollout only brings it")
        if any(step.get("digest") == digest for step in deployment.body.get("history", ())):
            raise Conflict(f"{what} is what a rollback of {deployment.key} would go back to; undeploy it first")


def _version(record: Record, aliases: dict[str, int]) -> Version:
    body = record.body
    return Version(
        name=body["name"],
        version=body["version"],
        digest=body["digest"],
        index=body["index"],
        created_at=body["created_at"],
        aliases=tuple(sorted(alias for alias, number in aliases.items() if number == body["version"])),
        summary=body["summary"],
    )


def _key(name: str, version: int) -> str:
    # Fixed width: records come sorted by key, so versions come in their order.
    return f"{name}:{version:09d}"
