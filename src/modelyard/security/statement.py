"""What a seal says: the OpenSSF Model Signing v1.0 statement inside its DSSE envelope and sigstore bundle.

Hides the three nested formats (in-toto statement, DSSE, sigstore bundle JSON) and their digests. It must not hold keys
or decide whom to trust, and it imports no cryptography.
Sources: OpenSSF model-signing-spec v1.0; in-toto Statement v1; DSSE v1 (pre-authentication encoding); sigstore bundle v0.3.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.errors import SealInvalid
from modelyard.types import Digest

BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
LIMIT_BYTES = 4 << 20
_HEX = frozenset("0123456789abcdef")


class Statement(msgspec.Struct, frozen=True):
    """Who is sealed (`subject`, a name) and every member with its digest, by path."""

    subject: str
    members: dict[str, Digest]


class Sealed(msgspec.Struct, frozen=True):
    """A parsed but not yet believed seal: the bytes that were signed, the signature, and who claims to have made it."""

    message: bytes
    payload: bytes
    signature: bytes
    hint: str | None
    certificates: tuple[bytes, ...]


class _Resource(msgspec.Struct, frozen=True):
    name: str
    digest: str
    algorithm: str


class _Serialization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    method: str
    hash_type: str
    allow_symlinks: bool
    shard_size: int | None = None
    ignore_paths: tuple[str, ...] = ()


class _Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    resources: tuple[_Resource, ...]
    serialization: _Serialization


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"type": "_type"}):
    type: str
    subject: tuple[_Subject, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: _Predicate = msgspec.field()


class _Signature(msgspec.Struct, frozen=True):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: tuple[_Signature, ...]


class _PublicKey(msgspec.Struct, frozen=True, rename="camel"):
    hint: str


class _Certificate(msgspec.Struct, frozen=True, rename="camel"):
    raw_bytes: str


class _Chain(msgspec.Struct, frozen=True):
    certificates: tuple[_Certificate, ...]


class _Material(msgspec.Struct, frozen=True, rename="camel"):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = None


class _Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


def write_statement(subject: str, members: Mapping[str, Digest]) -> bytes:
    """The canonical statement: resources sorted by path; the subject's digest is SHA-256 over their raw digests in that order."""
    resources = [{"algorithm": "sha256", "digest": _hex(members[name]), "name": name} for name in sorted(members)]
    root = _root([item["digest"] for item in resources])
    return _json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": subject, "digest": {"sha256": root}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "resources": resources,
                "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            },
        }
    )


def read_statement(payload: bytes) -> Statement:
    """The inverse of `write_statement`; refuses everything that v1.0 does not say. Raises SealInvalid.

    Call it only on a payload whose signature was verified.
    """
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise SealInvalid("the seal does not hold a statement of OpenSSF Model Signing v1.0") from error
    if statement.type != STATEMENT_TYPE or statement.predicate_type != PREDICATE_TYPE:
        raise SealInvalid("the seal states something other than OpenSSF Model Signing v1.0", rule="predicate")
    form, resources = statement.predicate.serialization, statement.predicate.resources
    if form.method != "files" or form.hash_type != "sha256" or form.allow_symlinks or form.shard_size is not None:
        raise SealInvalid("the seal serializes its members in a way other than whole files under SHA-256", rule="serialization")
    if any(item.algorithm != "sha256" or len(item.digest) != 64 or not _HEX.issuperset(item.digest) for item in resources):
        raise SealInvalid("the seal lists a digest that is not SHA-256", rule="resources")
    members = {item.name: Digest(f"sha256:{item.digest}") for item in resources}
    if len(members) != len(resources) or not members or not all(members):
        raise SealInvalid("the seal lists no member, or one twice", rule="resources")
    if len(statement.subject) != 1 or statement.subject[0].digest != {"sha256": _root([item.digest for item in resources])}:
        raise SealInvalid("the seal's subject is not the digest of the members that it lists", rule="subject")
    return Statement(statement.subject[0].name, members)


def message(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of `payload`."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def write_bundle(payload: bytes, *, signature: bytes, key_id: str) -> bytes:
    """The sigstore bundle (key method) around a signed payload."""
    return _json(
        {
            "mediaType": BUNDLE_MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key_id}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
            },
        }
    )


def read_bundle(seal: bytes) -> Sealed:
    """The parts of a sigstore bundle, by the key or the certificate method; nothing is believed yet. Raises SealInvalid."""
    if len(seal) > LIMIT_BYTES:
        raise SealInvalid(f"a seal has at most {LIMIT_BYTES:,} bytes")
    try:
        bundle = msgspec.json.decode(seal, type=_Bundle)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise SealInvalid("the seal is not a sigstore bundle of the key or certificate method") from error
    envelope, material = bundle.dsse_envelope, bundle.verification_material
    if bundle.media_type != BUNDLE_MEDIA_TYPE or envelope.payload_type != PAYLOAD_TYPE:
        raise SealInvalid("the seal has a media type that this release does not verify", rule="media type")
    if len(envelope.signatures) != 1:
        raise SealInvalid("a seal has exactly one signature", rule="signatures")
    if (material.public_key is None) == (material.x509_certificate_chain is None):
        raise SealInvalid("a seal names one public key, or carries one certificate chain", rule="verification material")
    chain = material.x509_certificate_chain.certificates if material.x509_certificate_chain else ()
    payload = _base64(envelope.payload)
    return Sealed(
        message=message(payload),
        payload=payload,
        signature=_base64(envelope.signatures[0].sig),
        hint=material.public_key.hint if material.public_key else None,
        certificates=tuple(_base64(item.raw_bytes) for item in chain),
    )


def _root(digests: list[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _hex(digest: Digest) -> str:
    return digest.removeprefix("sha256:")


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SealInvalid("the seal holds bytes that are not base64") from error
