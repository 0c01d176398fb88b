"""Build: members in, a sealed bundle out, as blobs by digest.

Hides the order of layers and documents. It knows no runtime, no clock and no store; what it writes under the Digest is a function of
`Contents` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.bundle import canonical, manifest, parts, selfcontained, tensors
from modelyard.bundle.artefact import Attested, Built, Contents
from modelyard.bundle.base import digest_of
from modelyard.bundle.bom import bill
from modelyard.bundle.card import markdown, redacted
from modelyard.bundle.manifest import Descriptor, Form
from modelyard.errors import InvalidInput
from modelyard.security.base import Signer
from modelyard.security.seal import seal
from modelyard.security.statement import BUNDLE_MEDIA_TYPE as SEAL
from modelyard.types import Digest, Scalar, Schema, parse_name

if TYPE_CHECKING:
    from modelyard.types import Array

EMPTY = b"{}"


def build(contents: Contents, attested: Attested, *, signer: Signer) -> Built:
    """The sealed bundle of `contents`, attested as `attested`. Law: `open(build(x)) == x` (`tests/property/test_bundles.py`).

    Equal contents give an equal Digest on every machine (`tests/unit/bundle/test_build.py`). Raises InvalidInput for contents that do not fit
    together, UnsupportedFormat for a model that keeps weights in other files.
    """
    parse_name(attested.name)
    if contents.parts:
        parts.check(contents.parts)
    else:
        selfcontained.check(contents.model)
    check_golden(contents.schema, contents.golden, attested.outputs)
    check_values(contents.schema, contents.values)
    blanked = blank(contents.golden, contents.values)
    if any(filled(blanked, contents.values)[name].tolist() != contents.golden[name].tolist() for name in contents.values):
        raise InvalidInput("where values are kept apart, golden records hold the first of them in every row", field="golden", rule="values")
    blobs: dict[Digest, bytes] = {}
    model = _model(contents, blanked, blobs)
    attestation = _attestation(attested, model, blobs)
    seals = tuple(_seal(item, signer, blobs) for item in (model, attestation))
    index = manifest.write_index((model, attestation, *seals))
    return Built(digest=model.digest, index=_keep(index, blobs), blobs=blobs)


def check_golden(schema: Schema, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Golden records have the schema's names and one number of rows. Raises InvalidInput."""
    if set(inputs) != {spec.name for spec in schema.inputs} or set(outputs) != {spec.name for spec in schema.outputs}:
        raise InvalidInput("golden records carry exactly the schema's inputs and outputs", field="golden", rule="names")
    rows = {len(array) if array.ndim else 0 for array in (*inputs.values(), *outputs.values())}
    if len(rows) != 1 or rows == {0}:
        raise InvalidInput("golden records have the same number of rows, at least one, in every tensor", field="golden", rule="rows")


def check_values(schema: Schema, values: Mapping[str, tuple[Scalar, ...]]) -> None:
    """Values kept apart are those of tagged inputs that take no others, of the input's own kind. Raises InvalidInput."""
    specs = {spec.name: spec for spec in schema.inputs}
    for name, known in values.items():
        spec = specs.get(name)
        if spec is None or spec.tag is None or spec.unknown_allowed:
            raise InvalidInput("values are kept apart for tagged inputs that take no others", field="values", rule="tag")
        if any(isinstance(value, str) != (spec.datatype == "BYTES") for value in known):
            raise InvalidInput(f"the values kept apart for {name!r} are not all of its datatype", field="values", rule="type")


def strict(schema: Schema, values: Mapping[str, tuple[Scalar, ...]]) -> Schema:
    """`schema` with the values kept apart in their places."""
    inputs = (msgspec.structs.replace(spec, categories=values[spec.name]) if spec.name in values else spec for spec in schema.inputs)
    return msgspec.structs.replace(schema, inputs=tuple(inputs)) if values else schema


def blank(golden: Mapping[str, Array], values: Mapping[str, tuple[Scalar, ...]]) -> dict[str, Array]:
    """The golden inputs with nothing in the columns whose values are kept apart. Law: `filled(blank(g, v), v) == g`."""
    return {name: _constant(array, "" if array.dtype == object else 0) if name in values else array for name, array in golden.items()}


def filled(golden: Mapping[str, Array], values: Mapping[str, tuple[Scalar, ...]]) -> dict[str, Array]:
    """The golden inputs with the first of the values kept apart in their columns; missing where there is none."""
    return {
        name: _constant(array, next(iter(values[name]), None if array.dtype == object else math.nan)) if name in values else array
        for name, array in golden.items()
    }


def _constant(array: Array, value: Scalar | None) -> Array:
    changed = array.copy()
    changed[...] = value
    return changed


def _model(contents: Contents, golden: Mapping[str, Array], blobs: dict[Digest, bytes]) -> Descriptor:
    card = redacted(contents.card)
    model = digest_of(canonical.encode({path: digest_of(data) for path, data in contents.parts.items()}) if contents.parts else contents.model)
    data = {
        **({} if contents.parts else {"model": contents.model}),
        "runtime": canonical.encode(contents.runtime),
        "schema": _struct(contents.schema),
        "lock": _struct(contents.lock),
        "profile": canonical.encode(contents.profile),
        "golden": tensors.pack(golden),
        "card": _struct(card),
        "card-text": markdown(card).encode(),
        "bom": canonical.encode(bill(card, model=model)),
    }
    if contents.values:
        data["values"] = canonical.encode(contents.values)
    kind = msgspec.json.decode(data["runtime"]).get("kind")
    if not isinstance(kind, str):
        raise InvalidInput("the runtime member names its kind", field="runtime", rule="kind")
    layers = _layers(data, {**manifest.ROLES, **manifest.OPTIONAL_ROLES}, blobs)
    for path, part in sorted(contents.parts.items()):
        _keep(part, blobs)
        layers += (manifest.describe_part(path, part),)
    config = manifest.write_config(layers, kind=kind)
    _keep(config, blobs)
    described = manifest.describe(config, media_type=manifest.CONFIG_TYPE)
    return _document(manifest.write_manifest(manifest.MODEL, config=described, layers=layers), manifest.MODEL, blobs)


def _attestation(attested: Attested, model: Descriptor, blobs: dict[Digest, bytes]) -> Descriptor:
    data = {
        "golden-outputs": tensors.pack(attested.outputs),
        "output-profile": canonical.encode(attested.profile),
        "parity": canonical.encode(attested.parity),
        "platform": canonical.encode({**attested.platform, "name": attested.name}),
    }
    if attested.performance is not None:
        data["performance"] = canonical.encode(attested.performance)
    layers = _layers(data, {**manifest.ATTESTED_ROLES, **manifest.OPTIONAL_ATTESTED_ROLES}, blobs)
    document = manifest.write_manifest(manifest.ATTESTATION, config=_empty(blobs), layers=layers, subject=model)
    return _document(document, manifest.ATTESTATION, blobs)


def _seal(sealed: Descriptor, signer: Signer, blobs: dict[Digest, bytes]) -> Descriptor:
    listed = msgspec.json.decode(blobs[sealed.digest], type=manifest.Manifest)
    roles = manifest.ROLES if sealed.artifact_type == manifest.MODEL else manifest.ATTESTED_ROLES
    members = {member.path: member.digest for member in manifest.members(listed, roles, name="the bundle")}
    bytes_ = seal(signer, subject=sealed.digest, members=members)
    _keep(bytes_, blobs)
    layer = manifest.describe(bytes_, media_type=SEAL)
    return _document(manifest.write_manifest(SEAL, config=_empty(blobs), layers=(layer,), subject=sealed), SEAL, blobs)


def _layers(data: dict[str, bytes], roles: dict[str, Form], blobs: dict[Digest, bytes]) -> tuple[Descriptor, ...]:
    roles = {role: form for role, form in roles.items() if role in data}
    for role, form in roles.items():
        if len(data[role]) > form.limit_bytes:
            raise InvalidInput(f"{form.path} has {len(data[role]):,} bytes; a bundle carries at most {form.limit_bytes:,}", field=role, rule="size")
        _keep(data[role], blobs)
    return tuple(manifest.describe_member(role, form, data[role]) for role, form in roles.items())


def _struct(value: Any) -> bytes:
    return canonical.encode(manifest.plain(value))


def _empty(blobs: dict[Digest, bytes]) -> Descriptor:
    _keep(EMPTY, blobs)
    return manifest.describe(EMPTY, media_type=manifest.EMPTY_TYPE)


def _document(data: bytes, artifact_type: str, blobs: dict[Digest, bytes]) -> Descriptor:
    _keep(data, blobs)
    return manifest.describe(data, media_type=manifest.MANIFEST_TYPE, artifact_type=artifact_type)


def _keep(data: bytes, blobs: dict[Digest, bytes]) -> Digest:
    digest = digest_of(data)
    blobs[digest] = data
    return digest
