"""security.seal: the home's key, whom it believes, and the published vectors."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509 import load_der_x509_certificate

from modelyard.errors import InvalidConfig, InvalidInput, NotFound, SealInvalid, UntrustedSigner
from modelyard.security.seal import LocalSigner, Trust, key_id, load_public, local_signer, public_pem, seal, verify_key
from modelyard.security.statement import message, read_bundle, read_statement, write_bundle
from modelyard.types import Digest

SUBJECT = Digest("sha256:" + "ef" * 32)
OTHER = Digest("sha256:" + "01" * 32)
MEMBERS = {"model.onnx": Digest("sha256:" + "ab" * 32), "card.md": Digest("sha256:" + "cd" * 32)}


def vector(shared_data: Path, name: str) -> bytes:
    return (shared_data / "oms" / f"{name}.bundle.json").read_bytes()


def vectors_key(shared_data: Path) -> bytes:
    # The key vector's key is that of the certificate vector's signer.
    chain = json.loads(vector(shared_data, "valid/certificate"))["verificationMaterial"]["x509CertificateChain"]["certificates"]
    key = load_der_x509_certificate(base64.b64decode(chain[0]["rawBytes"])).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_the_first_call_makes_the_key_and_later_ones_use_it(tmp_path: Path) -> None:
    keys = tmp_path / "home" / "keys"
    first, second = local_signer(keys), local_signer(keys)
    assert first.key_id == second.key_id == key_id((keys / "signing.pub").read_bytes())
    assert stat.S_IMODE((keys / "signing.pem").stat().st_mode) == 0o600
    assert sorted(os.listdir(keys)) == ["signing.pem", "signing.pub"]


def test_processes_that_are_first_at_once_get_one_key(tmp_path: Path) -> None:
    code = "import sys, pathlib; from modelyard.security.seal import local_signer; print(local_signer(pathlib.Path(sys.argv[1])).key_id)"
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "keys")], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    shown = {process.communicate()[0] for process in started}
    assert len(shown) == 1 and len(shown.pop().strip()) == 64
    assert sorted(os.listdir(tmp_path / "keys")) == ["signing.pem", "signing.pub"]


def test_a_key_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    local_signer(tmp_path)
    path = tmp_path / "signing.pem"
    path.chmod(0o640)
    with pytest.raises(InvalidConfig, match="other users"):
        local_signer(tmp_path)
    path.chmod(0o600)
    local_signer(tmp_path)
    small = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for bad in (b"nothing", small):
        path.write_bytes(bad)
        with pytest.raises(InvalidConfig, match=r"signing\.pem"):
            local_signer(tmp_path)


def test_the_own_seal_verifies_and_anything_else_is_refused(signer: LocalSigner, trust: Trust) -> None:
    made = seal(signer, subject=SUBJECT, members=MEMBERS)
    assert trust.verify(made, subject=SUBJECT, members=MEMBERS) == signer.key_id
    with pytest.raises(SealInvalid, match="another artefact"):
        trust.verify(made, subject=OTHER, members=MEMBERS)
    for members in ({**MEMBERS, "card.md": OTHER}, {"model.onnx": MEMBERS["model.onnx"]}, {**MEMBERS, "more": OTHER}):
        with pytest.raises(SealInvalid, match=r"card\.md|more"):
            trust.verify(made, subject=SUBJECT, members=members)


def test_a_flipped_bit_in_payload_or_signature_is_refused(signer: LocalSigner, trust: Trust) -> None:
    made = json.loads(seal(signer, subject=SUBJECT, members=MEMBERS))
    for part, holder in (("payload", made["dsseEnvelope"]), ("sig", made["dsseEnvelope"]["signatures"][0])):
        right = holder[part]
        data = bytearray(base64.b64decode(right))
        data[len(data) // 2] ^= 1
        holder[part] = base64.b64encode(data).decode()
        with pytest.raises(SealInvalid, match="does not verify"):
            trust.verify(json.dumps(made).encode(), subject=SUBJECT, members=MEMBERS)
        holder[part] = right
    trust.verify(json.dumps(made).encode(), subject=SUBJECT, members=MEMBERS)


def test_another_home_is_believed_after_trust_add_and_no_longer_after_remove(tmp_path: Path) -> None:
    other, keys = local_signer(tmp_path / "other"), tmp_path / "keys"
    own, trust = local_signer(keys), Trust(keys)
    made = seal(other, subject=SUBJECT, members=MEMBERS)
    with pytest.raises(UntrustedSigner, match="modelyard trust add"):
        trust.verify(made, subject=SUBJECT, members=MEMBERS)
    assert trust.add((tmp_path / "other" / "signing.pub").read_bytes()) == other.key_id
    assert trust.verify(made, subject=SUBJECT, members=MEMBERS) == other.key_id
    assert [(item.key_id, item.is_own) for item in trust.list()] == [(own.key_id, True), (other.key_id, False)]
    assert trust.remove(other.key_id[:8]) == other.key_id
    with pytest.raises(UntrustedSigner):
        trust.verify(made, subject=SUBJECT, members=MEMBERS)


def test_trust_refuses_what_it_cannot_believe(tmp_path: Path) -> None:
    signer, trust = local_signer(tmp_path), Trust(tmp_path)
    rsa_pem = rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for pem in (b"", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", rsa_pem, (tmp_path / "signing.pem").read_bytes()):
        with pytest.raises(InvalidInput):
            trust.add(pem)
    with pytest.raises(NotFound):
        trust.remove("0" * 64)
    with pytest.raises(InvalidInput, match="own key"):
        trust.remove(signer.key_id)
    with pytest.raises(InvalidInput, match="8 digits"):
        trust.remove("")
    assert len(trust.list()) == 1


def test_a_home_without_any_key_believes_nobody(tmp_path: Path, signer: LocalSigner) -> None:
    trust = Trust(tmp_path / "none")
    assert trust.list() == ()
    with pytest.raises(UntrustedSigner):
        trust.verify(seal(signer, subject=SUBJECT, members=MEMBERS), subject=SUBJECT, members=MEMBERS)


def test_a_hint_that_is_a_path_finds_nothing(tmp_path: Path, signer: LocalSigner) -> None:
    keys = tmp_path / "keys"
    local_signer(keys)
    made = json.loads(seal(signer, subject=SUBJECT, members=MEMBERS))
    (tmp_path / "evil.pub").write_bytes(signer.public_pem)
    for hint in ("../../evil", "../" * 19 + "evil.pu", "", "A" * 64, "é" * 64):
        made["verificationMaterial"]["publicKey"]["hint"] = hint
        with pytest.raises(UntrustedSigner):
            Trust(keys).verify(json.dumps(made).encode(), subject=SUBJECT, members=MEMBERS)


def test_a_key_stored_under_another_keys_id_is_not_believed(tmp_path: Path, signer: LocalSigner) -> None:
    other = local_signer(tmp_path / "other")
    trusted = tmp_path / "keys" / "trusted"
    trusted.mkdir(parents=True)
    (trusted / f"{signer.key_id}.pub").write_bytes(other.public_pem)
    with pytest.raises(UntrustedSigner):
        Trust(tmp_path / "keys").verify(seal(signer, subject=SUBJECT, members=MEMBERS), subject=SUBJECT, members=MEMBERS)


def test_the_published_key_vector_verifies(shared_data: Path, signer: LocalSigner) -> None:
    sealed, pem = vector(shared_data, "valid/key"), vectors_key(shared_data)
    assert read_bundle(sealed).hint == key_id(pem)
    assert set(verify_key(sealed, pem).members) == {"signme-1", "signme-2"}
    with pytest.raises(SealInvalid):
        verify_key(sealed, signer.public_pem)


@pytest.mark.parametrize(
    "name", ["invalid/empty", "invalid/missing-envelope", "invalid/missing-verification-material", "invalid-payload/wrong-predicate"]
)
def test_each_published_invalid_vector_is_refused(shared_data: Path, name: str) -> None:
    with pytest.raises(SealInvalid):
        verify_key(vector(shared_data, name), vectors_key(shared_data))


def test_a_wrong_predicate_is_refused_under_a_good_signature_too(shared_data: Path, signer: LocalSigner) -> None:
    payload = read_bundle(vector(shared_data, "invalid-payload/wrong-predicate")).payload
    resigned = write_bundle(payload, signature=signer.sign(message(payload)), key_id=signer.key_id)
    with pytest.raises(SealInvalid, match="something other"):
        verify_key(resigned, signer.public_pem)
    right = payload.replace(b"https://example.com/wrong-predicate/v1.0", b"https://model_signing/signature/v1.0")
    assert read_statement(right).members
    verify_key(write_bundle(right, signature=signer.sign(message(right)), key_id=signer.key_id), signer.public_pem)


def test_importing_the_seals_does_not_import_cryptography() -> None:
    code = "import sys, modelyard.security.seal; print('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_a_key_in_any_form_of_pem_is_the_same_key(signer: LocalSigner) -> None:
    usual = signer.public_pem
    known = load_public(usual).public_numbers()
    for other in (usual.replace(b"\n", b"\r\n"), b"a comment\n" + usual, usual.rstrip(b"\n")):
        assert load_public(other).public_numbers() == known


def test_a_key_that_is_no_point_of_the_curve_is_refused(signer: LocalSigner) -> None:
    head, body, tail = signer.public_pem.partition(b"\n")[0], b"".join(signer.public_pem.splitlines()[1:-1]), b"-----END PUBLIC KEY-----\n"
    der = bytearray(base64.b64decode(body))
    der[-1] ^= 1
    with pytest.raises(InvalidInput):
        load_public(head + b"\n" + base64.b64encode(der) + b"\n" + tail)


def test_verifying_the_own_seal_loads_no_reader_of_all_kinds_of_keys(tmp_path: Path, signer: LocalSigner) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "signing.pub").write_bytes(signer.public_pem)
    (tmp_path / "seal").write_bytes(seal(signer, subject=SUBJECT, members=MEMBERS))
    code = (
        "import sys; from pathlib import Path; from modelyard.security.seal import Trust; own, sealed, subject, *members = sys.argv[1:];"
        "Trust(Path(own)).verify(Path(sealed).read_bytes(), subject=subject, members=dict(zip(members[::2], members[1::2])));"
        "sys.exit('cryptography.hazmat.primitives.serialization' in sys.modules or 'cryptography' not in sys.modules)"
    )
    flat = [word for pair in MEMBERS.items() for word in pair]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "own"), str(tmp_path / "seal"), SUBJECT, *flat], check=True)


def test_public_pem_is_canonical(signer: LocalSigner) -> None:
    from modelyard.security.seal import load_public

    assert public_pem(load_public(b"comment\n" + signer.public_pem)) == signer.public_pem
