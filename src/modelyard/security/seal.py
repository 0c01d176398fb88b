"""Seals: sign a bundle's members with the home's own key, and verify seals by keys that the home trusts.

Hides the key files (`<home>/keys/signing.pem` 0600, `signing.pub`, `trusted/`) and `cryptography`, which is imported when first needed
(60 ms). It must not know what a member is, and a private key never leaves `LocalSigner`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from modelyard.errors import InvalidInput, Misconfigured, NotFound, SealInvalid, UntrustedSigner
from modelyard.files import make_folder, read_limited, sync_folder, translate, write_atomically
from modelyard.security.base import Signer
from modelyard.security.statement import Sealed, Statement, message, read_bundle, read_statement, write_bundle, write_statement
from modelyard.types import Digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PEM_LIMIT_BYTES = 64 << 10
_PEM_BEGINS, _PEM_ENDS = b"-----BEGIN PUBLIC KEY-----\n", b"\n-----END PUBLIC KEY-----\n"
_P384_SPKI = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
"""What stands before the point in the SubjectPublicKeyInfo of a key on P-384 (RFC 5480)."""
_P384_POINT_BYTES, _UNCOMPRESSED = 97, 4
_KEY_ID = re.compile(r"[0-9a-f]{64}")


class TrustedKey(msgspec.Struct, frozen=True):
    """One entry of a home's trust: a public key, or the certificate of an authority whose signers are believed."""

    key_id: str
    kind: Literal["key", "certificate"]
    is_own: bool


class LocalSigner:
    """The home's own key. Made by `local_signer`; safe to share between threads."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public_pem = public_pem(key.public_key())

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) of the public key's SPKI PEM."""
        return key_id(self.public_pem)

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-384 over `message`, DER."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA384

        return self._key.sign(message, ECDSA(SHA384()))


def local_signer(keys: Path) -> LocalSigner:
    """The signer of the home whose key folder is `keys`; the first call makes its key, also when several processes are first at once.

    Raises InvalidConfig when the key is unreadable, no P-384 key, or readable by other users; StorageFull.
    """
    path = keys / "signing.pem"
    try:
        pem = read_limited(path, PEM_LIMIT_BYTES)
    except NotFound:
        make_folder(keys)
        _make_key(path)
        pem = read_limited(path, PEM_LIMIT_BYTES)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Misconfigured("the signing key keys/signing.pem can be read by other users; run: chmod 600 on it, and consider a new key")
    signer = LocalSigner(_load_private(pem))
    public = keys / "signing.pub"
    if not public.exists() or read_limited(public, PEM_LIMIT_BYTES) != signer.public_pem:
        write_atomically(public, signer.public_pem)
    return signer


def seal(signer: Signer, *, subject: Digest, members: Mapping[str, Digest]) -> bytes:
    """A sigstore bundle in which `signer` states `members` (digests by path) of `subject`.

    Law: `verify_key(seal(s, …), s.public_pem)` states the same (`tests/property/test_seals.py`).
    """
    payload = write_statement(subject, members)
    return write_bundle(payload, signature=signer.sign(message(payload)), key_id=signer.key_id)


def verify_key(sealed: bytes, pem: bytes) -> Statement:
    """What the holder of the public key `pem` states in a seal of the key method. Raises SealInvalid."""
    parsed = read_bundle(sealed)
    if parsed.hint is None or parsed.hint != key_id(public_pem(load_public(pem))):
        raise SealInvalid("the seal names another key", rule="hint")
    _check_signature(parsed, load_public(pem))
    return read_statement(parsed.payload)


class Trust:
    """The signers that one home believes: its own key always, others after `add`. Reads the folder at each question, so an
    addition or removal holds at once in every process."""

    def __init__(self, keys: Path) -> None:
        self._own = keys / "signing.pub"
        self._folder = keys / "trusted"

    def verify(self, seal: bytes, *, subject: Digest, members: Mapping[str, Digest]) -> str:
        """The key id of the trusted signer who sealed exactly `members` as `subject`. Raises SealInvalid or UntrustedSigner."""
        parsed = read_bundle(seal)
        if parsed.hint is not None:
            signer = parsed.hint
            key = load_public(self._find(signer))
        else:
            from modelyard.security.certificates import verify_chain

            key = verify_chain(parsed.certificates, anchors=self._anchors(), at=datetime.now(UTC))
            signer = key_id(public_pem(key))
        _check_signature(parsed, key)
        statement = read_statement(parsed.payload)
        if statement.subject != subject:
            raise SealInvalid("the seal is that of another artefact", rule="subject")
        if statement.members != dict(members):
            wrong = sorted(name for name in statement.members.keys() | members.keys() if statement.members.get(name) != members.get(name))
            raise SealInvalid(f"the seal does not state these bytes of {', '.join(wrong[:5])}", field=wrong[0], rule="resources")
        return signer

    def add(self, pem: bytes) -> str:
        """Believe the public key, or the signers of the authority certificate, in `pem`; its id. Raises InvalidInput or StorageFull."""
        make_folder(self._folder)
        if b"-----BEGIN CERTIFICATE-----" in pem:
            from modelyard.security.certificates import fingerprint, load_certificate

            certificate = load_certificate(pem)
            identity = fingerprint(certificate)
            write_atomically(self._folder / f"{identity}.crt", pem)
            return identity
        if b"PRIVATE KEY-----" in pem:
            raise InvalidInput("that is a private key; give the public one (keys/signing.pub of the other home)", field="key", rule="public")
        canonical = public_pem(load_public(pem))
        write_atomically(self._folder / f"{key_id(canonical)}.pub", canonical)
        return key_id(canonical)

    def remove(self, prefix: str) -> str:
        """Believe no longer the one whose id begins with `prefix` (at least 8 digits); its whole id. Raises NotFound or InvalidInput."""
        if len(prefix) < 8:
            raise InvalidInput("give at least 8 digits of the key's id", field="key", rule="length")
        found = [item for item in self.list() if item.key_id.startswith(prefix)]
        if not found:
            raise NotFound("no trusted key has this id; see: modelyard trust list")
        if len(found) > 1:
            raise InvalidInput("several trusted keys begin so; give more digits", field="key", rule="unique")
        if found[0].is_own:
            raise InvalidInput("the home's own key is always trusted", field="key", rule="own")
        suffix = ".pub" if found[0].kind == "key" else ".crt"
        (self._folder / f"{found[0].key_id}{suffix}").unlink(missing_ok=True)
        return found[0].key_id

    def list(self) -> tuple[TrustedKey, ...]:
        """Everyone who is believed: the own key first, the others by id."""
        own = (TrustedKey(key_id(self._own.read_bytes()), "key", True),) if self._own.exists() else ()
        others = sorted(self._folder.glob("*.pub")) + sorted(self._folder.glob("*.crt"))
        return (*own, *(TrustedKey(path.stem, "key" if path.suffix == ".pub" else "certificate", False) for path in others))

    def _find(self, hint: str) -> bytes:
        if _KEY_ID.fullmatch(hint):
            for path in (self._own, self._folder / f"{hint}.pub"):
                try:
                    pem = read_limited(path, PEM_LIMIT_BYTES)
                except NotFound:
                    continue
                if secrets.compare_digest(key_id(pem), hint):
                    return pem
        shown = hint if _KEY_ID.fullmatch(hint) else "unreadable"
        raise UntrustedSigner(
            f"sealed by a key that this home does not trust ({shown[:16]}…); if you know its owner, get their keys/signing.pub and run: "
            "modelyard trust add KEY.pub"
        )

    def _anchors(self) -> tuple[bytes, ...]:
        return tuple(read_limited(path, PEM_LIMIT_BYTES) for path in sorted(self._folder.glob("*.crt")))


def key_id(pem: bytes) -> str:
    """SHA-256 (hex) of a public key's SPKI PEM, as OpenSSF Model Signing's `hint`."""
    return hashlib.sha256(pem).hexdigest()


def public_pem(key: EllipticCurvePublicKey) -> bytes:
    """The canonical SPKI PEM of `key`."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_public(pem: bytes) -> EllipticCurvePublicKey:
    """The P-384 public key in `pem`. Raises InvalidInput."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey

    if (point := _point(pem)) is not None:
        try:
            return EllipticCurvePublicKey.from_encoded_point(SECP384R1(), point)
        except ValueError as error:
            raise InvalidInput("that is not a point on the curve P-384", field="key", rule="curve") from error
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput("that is not a public key in PEM form", field="key", rule="format") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise InvalidInput("seals are made and verified with keys on the curve P-384", field="key", rule="curve")
    return key


def _point(pem: bytes) -> bytes | None:
    """The point of a key in exactly the form of `public_pem`, by which it is read in half the time: what reads all others takes longer to load."""
    if not (pem.startswith(_PEM_BEGINS) and pem.endswith(_PEM_ENDS)):
        return None
    try:
        der = base64.b64decode(pem[len(_PEM_BEGINS) : -len(_PEM_ENDS)].replace(b"\n", b""), validate=True)
    except ValueError:
        return None
    prefix = len(_P384_SPKI)
    return der[prefix:] if der.startswith(_P384_SPKI) and len(der) == prefix + _P384_POINT_BYTES and der[prefix] == _UNCOMPRESSED else None


def _check_signature(parsed: Sealed, key: EllipticCurvePublicKey) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA384

    try:
        key.verify(parsed.signature, parsed.message, ECDSA(SHA384()))
    except InvalidSignature as error:
        raise SealInvalid("the seal's signature does not verify", rule="signature") from error


def _load_private(pem: bytes) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Misconfigured("keys/signing.pem is not a private key; restore it, or move it away to have a new one made") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP384R1):
        raise Misconfigured("keys/signing.pem is not an ECDSA key on the curve P-384")
    return key


def _make_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    beside = path.with_name(f"signing.{secrets.token_hex(4)}.new")
    write_atomically(beside, pem, mode=0o600)
    try:
        # A link, not a rename: of several first packages at once one key wins and all use it.
        os.link(beside, path)
        sync_folder(path.parent)
    except FileExistsError:
        pass
    except OSError as error:
        raise translate(error, path) from error
    finally:
        beside.unlink(missing_ok=True)
