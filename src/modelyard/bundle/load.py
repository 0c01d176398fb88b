"""Open: verify a whole bundle, then show it. Nothing of it is used before every byte was hashed and both seals were verified.

Hides the order of checks: documents, seals, then members; sizes before reading, digests before parsing. It must not repair, skip or fall back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.bundle import canonical, manifest, parts, selfcontained, tensors
from modelyard.bundle.artefact import Built, Bundle, Golden, Parsed
from modelyard.bundle.base import BlobReader, digest_of
from modelyard.bundle.build import EMPTY, check_golden, check_values, filled, strict
from modelyard.bundle.card import Card
from modelyard.bundle.lock import Lock
from modelyard.bundle.manifest import ATTESTED_ROLES, OPTIONAL_ATTESTED_ROLES, ROLES, Descriptor, Manifest, Member
from modelyard.errors import DigestMismatch, InvalidInput, NotFound, UnsupportedFormat
from modelyard.security.base import Verifier
from modelyard.security.statement import LIMIT_BYTES as SEAL_LIMIT_BYTES
from modelyard.types import Digest, Scalar, Schema, parse_name

_THE_MODEL = "the model's manifest"
_THE_ATTESTATION = "the attestation"


def open(  # noqa: A001 - the noun's own verb
    blobs: BlobReader, index: Digest, *, trust: Verifier
) -> Bundle:
    """The bundle whose OCI index is `index`, after every byte of it and both seals were verified.

    Raises DigestMismatch (a byte differs, is missing or is not listed; names the member), SealInvalid, UntrustedSigner or UnsupportedFormat.
    """
    reading = _Reading(blobs)
    documents = _Documents(reading, index)
    signer = trust.verify(documents.seals[0], subject=documents.digest, members=_paths(documents.members))
    trust.verify(documents.seals[1], subject=documents.attestation, members=_paths(documents.attested))
    reading.refuse_unlisted(documents.members + documents.attested)
    members = {member: reading.take(member.digest, member.size_bytes, member.path) for member in documents.members + documents.attested}
    bytes_ = {member.role: data for member, data in members.items()}
    code = {role: data for role, data in bytes_.items() if "/" in role}
    if code:
        parts.check(code)
    else:
        selfcontained.check(bytes_["model"])
    documents.check_config(bytes_["runtime"], is_code=bool(code))
    return Bundle(index=index, digest=documents.digest, signer=signer, members=members, parsed=_parse(bytes_))


def collect(blobs: BlobReader, index: Digest) -> Built:
    """Every blob of the bundle at `index`, each hashed. Says nothing of who sealed it; `open` does. Raises as that does."""
    reading = _Reading(blobs)
    documents = _Documents(reading, index)
    listed = documents.members + documents.attested
    reading.refuse_unlisted(listed)
    for member in listed:
        reading.take(member.digest, member.size_bytes, member.path)
    return Built(digest=documents.digest, index=index, blobs=reading.taken)


class _Reading:
    """Reads blobs once, checks each, and remembers what was read."""

    def __init__(self, blobs: BlobReader) -> None:
        self._blobs = blobs
        self.taken: dict[Digest, bytes] = {}

    def take(self, digest: Digest, size_bytes: int, name: str) -> bytes:
        data = self.fetch(digest, size_bytes, name)
        if len(data) != size_bytes:
            raise DigestMismatch(f"{name} has {len(data):,} bytes where {size_bytes:,} are listed; the bundle was changed or cut short", field=name)
        return data

    def fetch(self, digest: Digest, limit_bytes: int, name: str) -> bytes:
        if digest in self.taken:
            return self.taken[digest]
        try:
            data = self._blobs.read(digest, limit_bytes=limit_bytes)
        except (NotFound, InvalidInput) as error:
            raise DigestMismatch(f"{name} is missing, or is not the file that is listed; the bundle was changed or cut short", field=name) from error
        if digest_of(data) != digest:
            raise DigestMismatch(f"{name} does not hash to its digest; the bundle was changed or cut short", field=name)
        self.taken[digest] = data
        return data

    def refuse_unlisted(self, members: tuple[Member, ...]) -> None:
        """Call it when all documents were read and before members are."""
        listing = self._blobs.listing()
        if listing is None:
            return
        unlisted = sorted(listing - self.taken.keys() - {member.digest for member in members})
        if unlisted:
            raise DigestMismatch(f"the bundle holds {unlisted[0][:19]}…, which nothing in it lists", field=unlisted[0], rule="unlisted")


class _Documents:
    """The index and all manifests, configs and seals that it leads to, hashed and checked against each other; members not yet read."""

    def __init__(self, reading: _Reading, index: Digest) -> None:
        model, attestation, *seals = manifest.read_index(reading.fetch(index, manifest.DOCUMENT_LIMIT_BYTES, "index.json")).manifests
        self.digest = model.digest
        self.attestation = attestation.digest
        of_model = self._manifest(reading, model, None, _THE_MODEL)
        of_attestation = self._manifest(reading, attestation, model, _THE_ATTESTATION)
        self.members = manifest.members(of_model, ROLES, name=_THE_MODEL)
        self.attested = manifest.members(of_attestation, ATTESTED_ROLES, name=_THE_ATTESTATION)
        self._layers = of_model.layers
        self._config = reading.take(of_model.config.digest, of_model.config.size, "the model's config")
        self._check_empty(reading, of_attestation, _THE_ATTESTATION)
        self.seals = tuple(
            self._seal(reading, item, subject, name)
            for item, subject, name in zip(seals, (model, attestation), ("the seal of the model", "the seal of the attestation"), strict=True)
        )

    def check_config(self, runtime: bytes, *, is_code: bool) -> None:
        """The config is exactly what these layers and this runtime call for, and only a model that is code has members of code."""
        canonical.check_depth(runtime, name="runtime.json")
        try:
            kind = msgspec.json.decode(runtime).get("kind")
        except (msgspec.MsgspecError, RecursionError, AttributeError) as error:
            raise UnsupportedFormat("runtime.json is not a JSON object", field="runtime.json") from error
        if is_code != (kind == "python"):
            raise UnsupportedFormat("a model of kind python, and no other, has members below code/", field="runtime.json", rule="kind")
        if self._config != manifest.write_config(self._layers, kind=kind):
            raise UnsupportedFormat("the model's config says something else than its members", field="config", rule="config")

    @staticmethod
    def _manifest(reading: _Reading, item: Descriptor, subject: Descriptor | None, name: str) -> Manifest:
        return manifest.read_manifest(reading.take(item.digest, item.size, name), artifact_type=item.artifact_type or "", subject=subject, name=name)

    def _seal(self, reading: _Reading, item: Descriptor, subject: Descriptor, name: str) -> bytes:
        found = self._manifest(reading, item, subject, name)
        self._check_empty(reading, found, name)
        layer = manifest.seal_layer(found, limit_bytes=SEAL_LIMIT_BYTES, name=name)
        return reading.take(layer.digest, layer.size, name)

    @staticmethod
    def _check_empty(reading: _Reading, found: Manifest, name: str) -> None:
        if reading.take(found.config.digest, found.config.size, f"the config of {name}") != EMPTY:
            raise UnsupportedFormat(f"the config of {name} is not empty", field=name, rule="config")


def _parse(bytes_: Mapping[str, bytes]) -> Parsed:
    forms = {**ROLES, **ATTESTED_ROLES, **OPTIONAL_ATTESTED_ROLES}
    for role in ("profile", "bom", "output-profile", "performance"):
        if role in bytes_:
            canonical.check_depth(bytes_[role], name=forms[role].path)
    schema = canonical.decode(bytes_["schema"], Schema, name="schema.json")
    platform = canonical.decode(bytes_["platform"], dict[str, Any], name="platform.json")
    golden = Golden(tensors.unpack(bytes_["golden"]), tensors.unpack(bytes_["golden-outputs"]))
    values: dict[str, tuple[Scalar, ...]] = {}
    if "values" in bytes_:
        values = canonical.decode(bytes_["values"], dict[str, tuple[Scalar, ...]], name="values.json")
    try:
        check_golden(schema, golden.inputs, golden.outputs)
        check_values(schema, values)
        golden = Golden(filled(golden.inputs, values), golden.outputs)
        name = parse_name(str(platform.get("name")))
    except InvalidInput as error:
        raise UnsupportedFormat(f"the bundle's members do not fit together: {error.message}", rule=error.rule) from error
    return Parsed(
        name=name,
        schema=schema,
        strict_schema=strict(schema, values),
        lock=canonical.decode(bytes_["lock"], Lock, name="lock.json"),
        card=canonical.decode(bytes_["card"], Card, name="card.json"),
        golden=golden,
        attestation={"parity": canonical.decode(bytes_["parity"], dict[str, Any], name="parity.json"), "platform": platform},
    )


def _paths(members: tuple[Member, ...]) -> dict[str, Digest]:
    return {member.path: member.digest for member in members}
