"""security.certificates: chains checked by hand, with the published vector and with one defect at a time."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from modelyard.errors import InvalidInput, SealInvalid, UntrustedSigner
from modelyard.security.certificates import fingerprint, load_certificate, verify_chain
from modelyard.security.seal import LocalSigner, Trust, public_pem
from modelyard.security.statement import BUNDLE_MEDIA_TYPE, PAYLOAD_TYPE, message, read_bundle, write_statement
from modelyard.types import Digest

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Key = ec.EllipticCurvePrivateKey


def key(curve: ec.EllipticCurve | None = None) -> Key:
    return ec.generate_private_key(curve or ec.SECP384R1())


def certificate(name: str, own: Key, issuer: str, by: Key, **given: Any) -> x509.Certificate:
    what = {
        "ca": False,
        "path_length": None,
        "signs": not given.get("ca", False),
        "certifies": given.get("ca", False),
        "purpose": ExtendedKeyUsageOID.CODE_SIGNING,
        "start": NOW - timedelta(days=1),
        "hash": hashes.SHA384(),
        "critical": None,
        **given,
    }
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(what["start"])
        .not_valid_after(what["start"] + timedelta(days=30))
        .add_extension(x509.BasicConstraints(what["ca"], what["path_length"]), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=what["signs"], key_cert_sign=what["certifies"], **usage), critical=True)
    )
    if not what["ca"] and what["purpose"]:
        builder = builder.add_extension(x509.ExtendedKeyUsage([what["purpose"]]), critical=False)
    if what["critical"]:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical=True)
    return builder.sign(by, what["hash"])


def der(*certificates: x509.Certificate) -> list[bytes]:
    return [item.public_bytes(Encoding.DER) for item in certificates]


def pem(item: x509.Certificate) -> bytes:
    return item.public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def root_key() -> Key:
    return key()


@pytest.fixture(scope="module")
def root(root_key: Key) -> x509.Certificate:
    return certificate("root", root_key, "root", root_key, ca=True)


def test_a_signer_of_a_trusted_authority_is_believed(root: x509.Certificate, root_key: Key) -> None:
    middle_key, leaf_key = key(), key()
    middle = certificate("middle", middle_key, "root", root_key, ca=True, path_length=0)
    leaf = certificate("leaf", leaf_key, "middle", middle_key)
    for chain in (der(leaf, middle), der(leaf, middle, root)):
        assert public_pem(verify_chain(chain, anchors=[pem(root)], at=NOW)) == public_pem(leaf_key.public_key())
    verify_chain(der(leaf), anchors=[pem(middle)], at=NOW)
    with pytest.raises(UntrustedSigner, match="modelyard trust add"):
        verify_chain(der(leaf, middle), anchors=[], at=NOW)
    with pytest.raises(UntrustedSigner):
        verify_chain(der(leaf), anchors=[pem(root)], at=NOW)
    stranger = certificate("root", middle_key, "root", middle_key, ca=True)
    with pytest.raises(UntrustedSigner):
        verify_chain(der(leaf, middle), anchors=[pem(stranger)], at=NOW)


@pytest.mark.parametrize(
    "defect",
    [
        {"start": NOW - timedelta(days=60)},
        {"start": NOW + timedelta(days=1)},
        {"signs": False},
        {"purpose": None},
        {"purpose": ExtendedKeyUsageOID.SERVER_AUTH},
        {"critical": True},
        {"hash": hashes.SHA224()},
    ],
)
def test_one_defect_of_the_signers_certificate_is_enough(root: x509.Certificate, root_key: Key, defect: dict[str, Any]) -> None:
    verify_chain(der(certificate("leaf", key(), "root", root_key)), anchors=[pem(root)], at=NOW)
    with pytest.raises(SealInvalid):
        verify_chain(der(certificate("leaf", key(), "root", root_key, **defect)), anchors=[pem(root)], at=NOW)


@pytest.mark.parametrize("defect", [{"ca": False}, {"certifies": False}, {"start": NOW - timedelta(days=60)}])
def test_one_defect_of_an_issuer_is_enough(root: x509.Certificate, root_key: Key, defect: dict[str, Any]) -> None:
    middle_key = key()
    leaf = certificate("leaf", key(), "middle", middle_key)
    given = {"ca": True, "certifies": True}
    verify_chain(der(leaf, certificate("middle", middle_key, "root", root_key, **given)), anchors=[pem(root)], at=NOW)
    with pytest.raises(SealInvalid):
        verify_chain(der(leaf, certificate("middle", middle_key, "root", root_key, **{**given, **defect})), anchors=[pem(root)], at=NOW)


def test_a_chain_longer_than_its_authority_allows_is_refused(root_key: Key) -> None:
    middle_key = key()
    middle = certificate("middle", middle_key, "root", root_key, ca=True)
    leaf = certificate("leaf", key(), "middle", middle_key)
    for length, allowed in ((1, True), (0, False)):
        anchor = certificate("root", root_key, "root", root_key, ca=True, path_length=length)
        if allowed:
            verify_chain(der(leaf, middle), anchors=[pem(anchor)], at=NOW)
        else:
            with pytest.raises(SealInvalid, match="longer"):
                verify_chain(der(leaf, middle), anchors=[pem(anchor)], at=NOW)


def test_an_unrelated_certificate_in_the_chain_another_curve_and_rubbish_are_refused(root: x509.Certificate, root_key: Key) -> None:
    leaf = certificate("leaf", key(), "root", root_key)
    other = certificate("other", key(), "root", root_key, ca=True)
    with pytest.raises(SealInvalid, match="not issued by the next"):
        verify_chain(der(leaf, other), anchors=[], at=NOW)
    with pytest.raises(SealInvalid, match="P-384"):
        verify_chain(der(certificate("leaf", key(ec.SECP256R1()), "root", root_key)), anchors=[pem(root)], at=NOW)
    for chain in ([], [b"rubbish"], der(leaf) * 9):
        with pytest.raises(SealInvalid):
            verify_chain(chain, anchors=[pem(root)], at=NOW)


def test_trust_believes_an_authority_that_was_added(tmp_path: Path, keys: Path) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    root_key, leaf_key = key(), key()
    anchor = certificate("root", root_key, "root", root_key, ca=True, start=start)
    leaf = certificate("leaf", leaf_key, "root", root_key, start=start)
    subject, members = Digest("sha256:" + "ef" * 32), {"a": Digest("sha256:" + "ab" * 32)}
    payload = write_statement(subject, members)
    material = {"x509CertificateChain": {"certificates": [{"rawBytes": base64.b64encode(item).decode()} for item in der(leaf)]}}
    signature = base64.b64encode(LocalSigner(leaf_key).sign(message(payload))).decode()
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [{"sig": signature}]}
    made = json.dumps({"mediaType": BUNDLE_MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()
    trust = Trust(tmp_path)
    with pytest.raises(UntrustedSigner):
        trust.verify(made, subject=subject, members=members)
    assert trust.add(pem(anchor)) == fingerprint(anchor)
    assert trust.verify(made, subject=subject, members=members) == LocalSigner(leaf_key).key_id
    assert [item.kind for item in trust.list()] == ["certificate"]
    trust.remove(fingerprint(anchor))
    with pytest.raises(UntrustedSigner):
        trust.verify(made, subject=subject, members=members)


def test_the_published_certificate_vector_verifies(shared_data: Path) -> None:
    from modelyard.security.seal import _check_signature

    parsed = read_bundle((shared_data / "oms" / "valid" / "certificate.bundle.json").read_bytes())
    # It carries no root, so its intermediate is the anchor; its signer says CA=true, which the hand-made check tolerates.
    anchor = pem(x509.load_der_x509_certificate(parsed.certificates[1]))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for chain in (parsed.certificates, parsed.certificates[:1]):
        _check_signature(parsed, verify_chain(chain, anchors=[anchor], at=at))
    with pytest.raises(UntrustedSigner):
        verify_chain(parsed.certificates, anchors=[], at=at)
    with pytest.raises(SealInvalid, match="valid at this time"):
        verify_chain(parsed.certificates, anchors=[anchor], at=datetime(2040, 1, 1, tzinfo=UTC))


def test_a_file_holds_one_certificate(root: x509.Certificate) -> None:
    assert load_certificate(pem(root)) == root
    with pytest.raises(InvalidInput, match="one certificate"):
        load_certificate(pem(root) * 2)
