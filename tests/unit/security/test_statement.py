"""security.statement: the forms of OpenSSF Model Signing v1.0, written as its schemas say and read no more widely."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from modelyard.errors import SealInvalid
from modelyard.security.statement import message, read_bundle, read_statement, write_bundle, write_statement
from modelyard.types import Digest

MEMBERS = {"model.onnx": Digest("sha256:" + "ab" * 32), "card.md": Digest("sha256:" + "cd" * 32)}


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(write_statement("it", MEMBERS))
    change(document)
    return json.dumps(document).encode()


def test_a_statement_says_what_was_given_whatever_its_order() -> None:
    assert write_statement("it", MEMBERS) == write_statement("it", dict(reversed(MEMBERS.items())))
    read = read_statement(write_statement("it", MEMBERS))
    assert (read.subject, read.members) == ("it", MEMBERS)


def test_what_is_written_validates_against_the_published_schemas(shared_data: Path) -> None:
    documents = [json.loads(path.read_text()) for path in sorted((shared_data / "oms").glob("*.schema.json"))]
    registry: Registry[Any] = Registry().with_resources([(item["$id"], Resource.from_contents(item)) for item in documents])
    schemas = {item["$id"].split("/")[3]: Draft202012Validator(item, registry=registry) for item in documents}
    payload = write_statement("it", MEMBERS)
    schemas["statement"].validate(json.loads(payload))
    schemas["bundle"].validate(json.loads(write_bundle(payload, signature=b"s", key_id="ab" * 32)))
    assert not schemas["statement"].is_valid(json.loads(changed(lambda d: d.pop("predicate"))))


def test_the_signed_message_is_dsse_pre_authentication_encoding() -> None:
    assert message(b"hello") == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda d: d.update(predicateType="https://slsa.dev/provenance/v1"),
        lambda d: d.update(more=1),
        lambda d: d["subject"].append(d["subject"][0]),
        lambda d: d["subject"][0]["digest"].update(sha256="00" * 32),
        lambda d: d["subject"][0]["digest"].update(sha512="00" * 64),
        lambda d: d["predicate"]["resources"].reverse(),
        lambda d: d["predicate"]["resources"].append(d["predicate"]["resources"][0]),
        lambda d: d["predicate"].update(resources=[]),
        lambda d: d["predicate"]["resources"][0].update(algorithm="blake2b"),
        lambda d: d["predicate"]["resources"][0].update(digest="AB" * 32),
        lambda d: d["predicate"]["serialization"].update(method="shards", shard_size=9),
        lambda d: d["predicate"]["serialization"].update(allow_symlinks=True),
        lambda d: d["predicate"]["serialization"].update(hash_type="blake3"),
    ],
)
def test_a_statement_that_says_anything_else_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    read_statement(changed(lambda _: None))
    with pytest.raises(SealInvalid):
        read_statement(changed(change))


def test_paths_to_be_ignored_may_be_listed_because_nothing_is_ever_ignored() -> None:
    read = read_statement(changed(lambda d: d["predicate"]["serialization"].update(ignore_paths=[".git", ".github"])))
    assert read.members == MEMBERS


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
        lambda d: d["dsseEnvelope"].update(payloadType="text/plain"),
        lambda d: d["dsseEnvelope"]["signatures"].append(d["dsseEnvelope"]["signatures"][0]),
        lambda d: d["dsseEnvelope"].update(signatures=[]),
        lambda d: d["dsseEnvelope"].update(payload="not base64!"),
        lambda d: d["verificationMaterial"].update(x509CertificateChain={"certificates": []}),
        lambda d: d["verificationMaterial"].pop("publicKey"),
        lambda d: d.update(extra={}),
    ],
)
def test_an_envelope_of_another_form_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(write_bundle(b"payload", signature=b"signature", key_id="ab" * 32))
    parsed = read_bundle(json.dumps(document).encode())
    assert (parsed.payload, parsed.signature, parsed.hint) == (b"payload", b"signature", "ab" * 32)
    change(document)
    with pytest.raises(SealInvalid):
        read_bundle(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b"{" + b" " * (5 << 20) + b"}"])
def test_bytes_that_are_no_seal_are_refused(data: bytes) -> None:
    with pytest.raises(SealInvalid):
        read_bundle(data)
    with pytest.raises(SealInvalid):
        read_statement(data)


def test_base64_is_read_strictly() -> None:
    document = json.loads(write_bundle(b"payload", signature=b"s", key_id="ab" * 32))
    document["dsseEnvelope"]["payload"] = base64.b64encode(b"payload").decode() + "\n"
    with pytest.raises(SealInvalid):
        read_bundle(json.dumps(document).encode())
