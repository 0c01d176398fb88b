"""The keys of an issuer: each verifies by one algorithm, and what is no public key of a kind that is believed is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from issuing import Signing

from modelyard.errors import MalformedPayload
from modelyard.security.jwks import LIMIT_BYTES, LIMIT_KEYS, algorithm, read

RSA, EC, ED = Signing("rsa"), Signing("ec", "ES256"), Signing("ed", "EdDSA")


def listed(*keys: dict[str, Any]) -> dict[str, str]:
    """The algorithm of each key that is believed, by id."""
    return {kid: key.algorithm for kid, key in read(json.dumps({"keys": keys}).encode()).items()}


def test_each_key_is_pinned_to_one_algorithm_by_what_it_says_or_is() -> None:
    assert listed(RSA.jwk(), EC.jwk(), ED.jwk()) == {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}
    assert listed(RSA.jwk(alg=None, use=None), EC.jwk(alg=None), ED.jwk(alg=None)) == {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}
    assert listed(RSA.jwk(alg="PS512", key_ops=["verify"])) == {"rsa": "PS512"}
    assert listed(Signing("p384", "ES384").jwk(alg=None), Signing("p521", "ES512").jwk(alg=None)) == {"p384": "ES384", "p521": "ES512"}


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"},
        RSA.jwk(alg="HS256"),
        RSA.jwk(alg="none"),
        RSA.jwk(alg="ES256"),
        EC.jwk(alg="ES384"),
        RSA.jwk(alg=["RS256"]),
        RSA.jwk(use="enc"),
        RSA.jwk(key_ops=["encrypt"]),
        RSA.jwk(key_ops="verify"),
        RSA.jwk(d="AQAB"),
        RSA.jwk(kid=None),
        RSA.jwk(kid=""),
        RSA.jwk(kid=7),
        RSA.jwk(kid="x" * 257),
        RSA.jwk(n=None),
        RSA.jwk(n="AQAB"),
        RSA.jwk(n=7),
        RSA.jwk(e="Ag"),
        EC.jwk(x="AA"),
        EC.jwk(y=EC.jwk()["x"]),
        EC.jwk(crv="secp256k1"),
        ED.jwk(crv="Ed448"),
        ED.jwk(x="AA"),
        {"kty": ["RSA"], "kid": "x"},
        {},
        Signing("small", bits=1024).jwk(),
    ],
    ids=lambda key: "-".join(map(str, key.values()))[:40],
)
def test_a_key_that_does_not_verify_is_left_out_and_the_others_stay(key: dict[str, Any]) -> None:
    assert listed(key, Signing("good", "ES256").jwk()) == {"good": "ES256"}


def test_keys_that_share_a_name_are_none() -> None:
    assert listed(RSA.jwk(kid="same"), EC.jwk(kid="same"), ED.jwk()) == {"ed": "EdDSA"}


def test_a_set_without_keys_is_one() -> None:
    assert listed() == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"keys": 7}',
        b'{"keys": [7]}',
        b"\xff",
        b"[" * 100_000,
        b'{"keys": [' + b"{}," * LIMIT_KEYS + b"{}]}",
        b" " * (LIMIT_BYTES + 1),
    ],
    ids=range(9),
)
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPayload):
        read(data)


def test_nothing_symmetric_is_pinned() -> None:
    assert algorithm({"kty": "oct"}) is None and algorithm({"kty": "oct", "alg": "HS256", "crv": ""}) is None
