"""The OCI documents of a bundle: image index, manifests and descriptors, with ModelPack's media types.

Hides those forms and the literal table of members: which role lies at which path, under which type, how large at most. It must not
read or verify bytes; it says what they must be.
Sources: OCI image-spec 1.1 (manifest, index, layout, `subject`), CNCF ModelPack model-spec 1.0 (artifactType, config, raw layers,
`org.cncf.model.filepath`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.bundle import canonical, parts
from modelyard.bundle.base import digest_of
from modelyard.errors import DigestMismatch, UnsupportedFormat
from modelyard.security.statement import BUNDLE_MEDIA_TYPE as SEAL
from modelyard.types import Digest, parse_digest

FORMAT = "1"
DOCUMENT_LIMIT_BYTES = 1 << 20
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
MODEL = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
ATTESTATION = "application/vnd.modelyard.attestation.v1+json"
_WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
_CODE = "application/vnd.cncf.model.code.v1.raw"
_DOC = "application/vnd.cncf.model.doc.v1.raw"
_DATASET = "application/vnd.cncf.model.dataset.v1.raw"
_FILEPATH = "org.cncf.model.filepath"
_ROLE = "org.modelyard.role"
_FORMAT = "org.modelyard.format"
_MIB = 1 << 20


class Form(msgspec.Struct, frozen=True):
    """What a member of one role must be."""

    path: str
    media_type: str
    limit_bytes: int


# Members under the Digest, in the order of the manifest's layers, and those of the attestation.
ROLES = {
    "model": Form("model.onnx", _WEIGHT, 2048 * _MIB),
    "runtime": Form("runtime.json", _WEIGHT_CONFIG, 16 * _MIB),
    "schema": Form("schema.json", _WEIGHT_CONFIG, 16 * _MIB),
    "lock": Form("lock.json", _WEIGHT_CONFIG, _MIB),
    "profile": Form("profile.json", _WEIGHT_CONFIG, 64 * _MIB),
    "golden": Form("golden.bin", _DATASET, 256 * _MIB),
    "card": Form("card.json", _DOC, 32 * _MIB),
    "card-text": Form("card.md", _DOC, 32 * _MIB),
    "bom": Form("bom.json", _DOC, 16 * _MIB),
}
# Members that a bundle has only where it needs them, behind the others. A release that does not know one refuses the bundle.
OPTIONAL_ROLES = {
    "values": Form("values.json", _WEIGHT_CONFIG, 16 * _MIB),
}
# A model that is code has these, any number of each, behind the others and in the order of their paths, and no member `model`.
OPEN_ROLES = {
    "code": Form(parts.CODE, _CODE, parts.CODE_LIMIT_BYTES),
    "file": Form(parts.FILES, _WEIGHT, parts.FILE_LIMIT_BYTES),
}
ATTESTED_ROLES = {
    "golden-outputs": Form("golden-outputs.bin", _DATASET, 256 * _MIB),
    "output-profile": Form("output-profile.json", _DOC, 64 * _MIB),
    "parity": Form("parity.json", _DOC, 16 * _MIB),
    "platform": Form("platform.json", _DOC, _MIB),
}
# As OPTIONAL_ROLES, at the end of the attestation.
OPTIONAL_ATTESTED_ROLES = {
    "performance": Form("performance.json", _DOC, 64 * _MIB),
}


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """A pointer to bytes."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """An OCI image manifest: of the model, of its attestation, or of a seal."""

    schema_version: int
    media_type: str
    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """An OCI image index: here always model, attestation, seal of the model, seal of the attestation."""

    schema_version: int
    media_type: str
    manifests: tuple[Descriptor, ...]


class Member(msgspec.Struct, frozen=True):
    """One file of a bundle, as its manifest lists it."""

    role: str
    path: str
    digest: Digest
    size_bytes: int


def describe(data: bytes, *, media_type: str, artifact_type: str | None = None, annotations: dict[str, str] | None = None) -> Descriptor:
    """The descriptor of `data`."""
    return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data), artifact_type=artifact_type, annotations=annotations)


def describe_member(role: str, form: Form, data: bytes) -> Descriptor:
    """The layer of one member: raw bytes, never an archive."""
    return describe(data, media_type=form.media_type, annotations={_FILEPATH: form.path, _ROLE: role})


def describe_part(path: str, data: bytes) -> Descriptor:
    """The layer of one member of a model that is code, below `code/` or `files/`."""
    role = "code" if path.startswith(parts.CODE) else "file"
    return describe(data, media_type=OPEN_ROLES[role].media_type, annotations={_FILEPATH: path, _ROLE: role})


def write_config(layers: tuple[Descriptor, ...], *, kind: str) -> bytes:
    """ModelPack's config of a model of runtime `kind`."""
    diff_ids = [layer.digest for layer in layers]
    return canonical.encode({"descriptor": {}, "config": {"format": kind}, "modelfs": {"type": "layers", "diffIds": diff_ids}})


def write_manifest(artifact_type: str, *, config: Descriptor, layers: tuple[Descriptor, ...], subject: Descriptor | None = None) -> bytes:
    """The canonical manifest."""
    manifest = Manifest(
        schema_version=2,
        media_type=MANIFEST_TYPE,
        artifact_type=artifact_type,
        config=config,
        layers=layers,
        subject=_plain_subject(subject),
        annotations={_FORMAT: FORMAT},
    )
    return canonical.encode(manifest)


def write_index(manifests: tuple[Descriptor, ...]) -> bytes:
    """The canonical index."""
    return canonical.encode(Index(schema_version=2, media_type=INDEX_TYPE, manifests=manifests))


def read_index(data: bytes) -> Index:
    """The index in `data`, which lists exactly model, attestation and the seal of each. Raises UnsupportedFormat or DigestMismatch."""
    index = canonical.decode(data, Index, name="index.json")
    kinds = tuple(item.artifact_type for item in index.manifests)
    if index.schema_version != 2 or index.media_type != INDEX_TYPE:
        raise UnsupportedFormat("index.json is not an OCI image index", field="index.json")
    if kinds != (MODEL, ATTESTATION, SEAL, SEAL):
        raise UnsupportedFormat(
            "a bundle lists one model, one attestation and the seal of each, and nothing else", field="index.json", rule="manifests"
        )
    for item in index.manifests:
        _check_descriptor(item, MANIFEST_TYPE, DOCUMENT_LIMIT_BYTES, name="a manifest")
    return index


def read_manifest(data: bytes, *, artifact_type: str, subject: Descriptor | None, name: str) -> Manifest:
    """The manifest in `data`, of the kind and about the subject that the index calls for. Raises UnsupportedFormat or DigestMismatch."""
    manifest = canonical.decode(data, Manifest, name=name)
    if manifest.schema_version != 2 or manifest.media_type != MANIFEST_TYPE or manifest.artifact_type != artifact_type:
        raise UnsupportedFormat(f"{name} is a manifest of another kind", field=name, rule="artifactType")
    if manifest.annotations != {_FORMAT: FORMAT}:
        raise UnsupportedFormat(f"{name} is not of bundle format {FORMAT}; a newer release may have made it", field=name, rule="format")
    if manifest.subject != _plain_subject(subject):
        raise DigestMismatch(f"{name} is about another bundle", field=name, rule="subject")
    config_type = CONFIG_TYPE if artifact_type == MODEL else EMPTY_TYPE
    _check_descriptor(manifest.config, config_type, DOCUMENT_LIMIT_BYTES, name=f"the config of {name}")
    return manifest


def members(manifest: Manifest, roles: dict[str, Form], *, name: str) -> tuple[Member, ...]:
    """The members that `manifest` lists: each role of the table once, at its own path; of the optional ones those that it has, behind the others;
    of a model that is code, its parts behind them instead of `model`.

    Raises UnsupportedFormat or DigestMismatch.
    """
    found: list[Member] = []
    opened: list[Member] = []
    forms = {**roles, **(OPTIONAL_ROLES if roles is ROLES else OPTIONAL_ATTESTED_ROLES)}
    for layer in manifest.layers:
        annotations = layer.annotations or {}
        role, path = annotations.get(_ROLE, ""), annotations.get(_FILEPATH, "")
        is_part = role in OPEN_ROLES and roles is ROLES
        form = OPEN_ROLES[role] if is_part else forms.get(role)
        if form is None:
            raise UnsupportedFormat(f"{name} lists a member of a role that this release does not know", field=name, rule="role")
        if set(annotations) != {_FILEPATH, _ROLE} or (not path.startswith(form.path) if is_part else path != form.path):
            raise UnsupportedFormat(f"{name} lists {form.path} under another path", field=form.path, rule="path")
        _check_descriptor(layer, form.media_type, form.limit_bytes, name=path)
        if is_part:
            opened.append(Member(path, path, layer.digest, layer.size))
        elif opened:
            raise DigestMismatch(f"{name} lists a member out of order", field=name, rule="members")
        else:
            found.append(Member(role, path, layer.digest, layer.size))
    wanted = [role for role in roles if not (opened and role == "model")]
    listed = [member.role for member in found]
    if listed != [role for role in forms if role in wanted or (role in listed and role not in roles)]:
        missing = sorted(set(wanted) - set(listed))
        what = f"lacks {', '.join(roles[role].path for role in missing)}" if missing else "lists a member twice or out of order"
        raise DigestMismatch(f"{name} {what}", field=name, rule="members")
    paths = [member.path for member in opened]
    parts.check_paths(paths)
    if paths != sorted(set(paths)):
        raise DigestMismatch(f"{name} lists a member twice or out of order", field=name, rule="members")
    return (*found, *opened)


def seal_layer(manifest: Manifest, *, limit_bytes: int, name: str) -> Descriptor:
    """The one layer of a seal's manifest. Raises UnsupportedFormat."""
    if len(manifest.layers) != 1 or manifest.layers[0].annotations is not None:
        raise UnsupportedFormat(f"{name} has exactly one layer", field=name, rule="layers")
    _check_descriptor(manifest.layers[0], SEAL, limit_bytes, name=name)
    return manifest.layers[0]


def _plain_subject(subject: Descriptor | None) -> Descriptor | None:
    return msgspec.structs.replace(subject, artifact_type=None, annotations=None) if subject else None


def _check_descriptor(item: Descriptor, media_type: str, limit_bytes: int, *, name: str) -> None:
    parse_digest(item.digest)
    if item.media_type != media_type:
        raise UnsupportedFormat(f"{name} has a media type that this release does not open", field=name, rule="mediaType")
    if not 0 <= item.size <= limit_bytes:
        raise UnsupportedFormat(f"{name} claims a size that is out of range; at most {limit_bytes:,} bytes", field=name, rule="size")


def plain(value: Any) -> Any:
    """`value` after one trip through its canonical JSON, so that equal meanings (3 and 3.0 in a float field) have equal bytes."""
    return msgspec.json.decode(canonical.encode(value), type=type(value))
