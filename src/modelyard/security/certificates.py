"""Seals of the certificate method: from the signer's certificate to an authority that the home trusts, checked by hand.

Hides X.509. By hand, because `cryptography.x509.verification` asks for web server profiles and refuses the certificates that the reference tool
of OpenSSF Model Signing makes (a signer's certificate that says CA=true). It must not fetch anything: no revocation lists, no issuers by URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from modelyard.errors import InvalidInput, SealInvalid, UntrustedSigner

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import Certificate

CHAIN_LIMIT = 8
# What is looked at below, plus the two key identifiers (chain building) that constrain nothing.
_UNDERSTOOD = frozenset(("basicConstraints", "keyUsage", "extendedKeyUsage", "subjectKeyIdentifier", "authorityKeyIdentifier"))


def verify_chain(chain: Sequence[bytes], *, anchors: Sequence[bytes], at: datetime) -> EllipticCurvePublicKey:
    """The signer's key of `chain` (DER, signer first) when it leads to one of `anchors` (PEM) and all of it is valid at `at`.

    Checked: each issuer's name and signature, validity, strong hashes, critical extensions, the signer's usage (digital signature, code
    signing), each issuer's
    (CA, certificate signing, path length). Source: RFC 5280, 6.1. Raises SealInvalid or UntrustedSigner.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey

    if not 0 < len(chain) <= CHAIN_LIMIT:
        raise SealInvalid(f"a certificate chain has 1 to {CHAIN_LIMIT} certificates")
    try:
        certificates = [x509.load_der_x509_certificate(item) for item in chain]
        for certificate in certificates:
            _check_form(certificate, at)
        _check_signer(certificates[0])
        path = _path(certificates, [load_certificate(item) for item in anchors], at)
    except ValueError as error:
        raise SealInvalid("the seal's certificate chain holds a malformed certificate") from error
    for depth, issuer in enumerate(path[1:]):
        _check_issuer(issuer, depth)
    key = certificates[0].public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise SealInvalid("seals are verified with keys on the curve P-384", rule="curve")
    return key


def load_certificate(pem: bytes) -> Certificate:
    """The one certificate in `pem`. Raises InvalidInput."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidInput("that is not a certificate in PEM form", field="key", rule="format") from error
    if len(found) != 1:
        raise InvalidInput("give one certificate per file", field="key", rule="format")
    return found[0]


def fingerprint(certificate: Certificate) -> str:
    """SHA-256 (hex) of the certificate."""
    from cryptography.hazmat.primitives.hashes import SHA256

    return certificate.fingerprint(SHA256()).hex()


def _path(chain: list[Certificate], anchors: list[Certificate], at: datetime) -> list[Certificate]:
    path = chain[:1]
    for issuer in (*chain[1:], None):
        anchor = next((item for item in anchors if _is_issued_by(path[-1], item)), None)
        if anchor is not None:
            _check_form(anchor, at)
            return [*path, anchor]
        if issuer is None:
            break
        if not _is_issued_by(path[-1], issuer):
            raise SealInvalid("a certificate in the seal's chain is not issued by the next one", rule="issuer")
        path.append(issuer)
    raise UntrustedSigner(
        "sealed under a certificate authority that this home does not trust; if you know it, get its certificate and run: modelyard trust add CA.pem"
    )


def _is_issued_by(certificate: Certificate, issuer: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_form(certificate: Certificate, at: datetime) -> None:
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise SealInvalid("a certificate of the seal's chain is not valid at this time", rule="validity")
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name not in ("sha256", "sha384", "sha512"):
        raise SealInvalid("a certificate of the seal's chain is signed over a weak hash", rule="hash")
    if any(item.critical and item.oid._name not in _UNDERSTOOD for item in certificate.extensions):
        raise SealInvalid("a certificate of the seal's chain has a critical extension that is not understood", rule="extension")


def _check_signer(certificate: Certificate) -> None:
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound, KeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        usage = certificate.extensions.get_extension_for_class(KeyUsage).value
        purposes = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound as error:
        raise SealInvalid("the signer's certificate does not say what it is for", rule="usage") from error
    if not usage.digital_signature or ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise SealInvalid("the signer's certificate is not for signing code", rule="usage")


def _check_issuer(certificate: Certificate, depth: int) -> None:
    from cryptography.x509 import BasicConstraints, ExtensionNotFound, KeyUsage

    try:
        basic = certificate.extensions.get_extension_for_class(BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(KeyUsage).value
    except ExtensionNotFound as error:
        raise SealInvalid("an issuer in the seal's chain does not say that it is an authority", rule="usage") from error
    if not basic.ca or not usage.key_cert_sign:
        raise SealInvalid("an issuer in the seal's chain is not an authority", rule="usage")
    if basic.path_length is not None and depth > basic.path_length:
        raise SealInvalid("the seal's certificate chain is longer than an authority in it allows", rule="path length")
