"""Each abuse of a token that RFC 8725 names, against real signatures: none is accepted, and each is told by name."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from issuing import Signing, b64, unsigned

from modelyard.errors import Unauthenticated
from modelyard.security import jwks, tokens
from modelyard.security.tokens import CHARACTERS, LEEWAY_S, Wanted

ISSUER, AUDIENCE = "https://login.example", "modelyard"
WANTED = Wanted(ISSUER, AUDIENCE, 3600.0)
GOOD, OTHER = Signing("good"), Signing("good")
KEYS = jwks.read(json.dumps({"keys": [GOOD.jwk()]}).encode())
NOW = float(int(time.time()))


def claims(**more: Any) -> dict[str, Any]:
    told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": NOW, "exp": NOW + 600, **more}
    return {name: value for name, value in told.items() if value is not None}


def judged(token: str) -> dict[str, Any]:
    """What the server makes of `token`: by its kid the key, by the key the claims."""
    key = KEYS.get(tokens.kid(token))
    if key is None:
        raise tokens.unknown_key()
    return tokens.claims(token, key, WANTED, now=NOW)


def refused(token: str, rule: str) -> None:
    with pytest.raises(Unauthenticated) as why:
        judged(token)
    assert why.value.rule == f"token-{rule}", why.value.message
    assert "\n" not in why.value.message and not any(len(part) > 8 and part in why.value.message for part in token.split("."))


def test_a_good_token_is_read() -> None:
    assert judged(GOOD.sign(claims(groups=["a"])))["sub"] == "ann"
    assert judged(GOOD.sign(claims(aud=["x", AUDIENCE], nbf=NOW)))["iat"] == NOW
    assert judged(GOOD.sign(claims(), typ="at+jwt"))["iss"] == ISSUER


@pytest.mark.parametrize("algorithm", ["PS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_each_algorithm_that_is_pinned_verifies(algorithm: str) -> None:
    signing = Signing("k", algorithm)
    (key,) = jwks.read(json.dumps({"keys": [signing.jwk()]}).encode()).values()
    assert tokens.claims(signing.sign(claims()), key, WANTED, now=NOW)["sub"] == "ann"


def hmac_signed(secret: bytes, header: dict[str, Any]) -> str:
    """A token that is signed with HS256 by a "secret" that everybody knows: the issuer's public key."""
    body = unsigned(header, claims()).rpartition(".")[0]
    return f"{body}.{b64(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


PUBLIC_PEM = GOOD.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("token", "rule"),
    [
        (unsigned({"alg": "none", "kid": "good"}, claims()), "form"),
        (unsigned({"alg": "none", "kid": "good"}, claims(), b"x"), "alg"),
        (unsigned({"alg": "NoNe", "kid": "good"}, claims(), b"x"), "alg"),
        (hmac_signed(PUBLIC_PEM, {"alg": "HS256", "kid": "good"}), "alg"),
        (hmac_signed(json.dumps(GOOD.jwk()).encode(), {"alg": "HS256", "kid": "good"}), "alg"),
        (hmac_signed(PUBLIC_PEM, {"alg": "RS256", "kid": "good"}), "signature"),
        (unsigned({"alg": "RS512", "kid": "good"}, claims(), b"x"), "alg"),
        (unsigned({"kid": "good"}, claims(), b"x"), "alg"),
        (unsigned({"alg": ["RS256"], "kid": "good"}, claims(), b"x"), "alg"),
        (OTHER.sign(claims()), "signature"),
        (unsigned({"alg": "RS256"}, claims(), b"x"), "kid"),
        (unsigned({"alg": "RS256", "kid": 7}, claims(), b"x"), "kid"),
        (unsigned({"alg": "RS256", "kid": ""}, claims(), b"x"), "kid"),
        (unsigned({"alg": "RS256", "kid": "k" * 300}, claims(), b"x"), "kid"),
        (hmac_signed(b"", {"alg": "RS256", "kid": "../../../../dev/null"}), "kid"),
        (hmac_signed(b"", {"alg": "RS256", "kid": "/proc/self/environ"}), "kid"),
        (hmac_signed(b"", {"alg": "RS256", "kid": "x' UNION SELECT 'secret"}), "kid"),
        (GOOD.sign(claims(), jku="https://evil.example/jwks"), "jku"),
        (OTHER.sign(claims(), jwk=OTHER.jwk()), "jwk"),
        (GOOD.sign(claims(), x5u="https://evil.example/cert"), "x5u"),
        (GOOD.sign(claims(), x5c=["MII"]), "x5c"),
        (GOOD.sign(claims(), crit=["exp"], exp=0), "crit"),
        (unsigned({"alg": "RS256", "kid": "good", "crit": []}, claims(), b"x"), "crit"),
        (unsigned({"alg": "RS256", "kid": "good", "b64": False, "crit": ["b64"]}, claims(), b"x"), "crit"),
        (GOOD.sign(claims(), typ="logout+jwt"), "typ"),
        (GOOD.sign(claims(iss="https://login.example/")), "iss"),
        (GOOD.sign(claims(iss=None)), "iss"),
        (GOOD.sign(claims(aud="other")), "aud"),
        (GOOD.sign(claims(aud=[])), "aud"),
        (GOOD.sign(claims(aud=None)), "aud"),
        (GOOD.sign(claims(aud={AUDIENCE: 1})), "aud"),
        (GOOD.sign(claims(sub=None)), "sub"),
        (GOOD.sign(claims(sub="")), "sub"),
        (GOOD.sign(claims(sub="a\nb")), "sub"),
        (GOOD.sign(claims(sub="a" * 256)), "sub"),
        (GOOD.sign(claims(exp=None)), "exp"),
        (GOOD.sign(claims(exp=NOW - LEEWAY_S)), "exp"),
        (GOOD.sign(claims(exp=True)), "exp"),
        (GOOD.sign(claims(exp=10**40)), "exp"),
        (GOOD.sign(claims(nbf=NOW + LEEWAY_S + 1)), "nbf"),
        (GOOD.sign(claims(iat=NOW + LEEWAY_S + 1)), "iat"),
        (GOOD.sign(claims(iat=None)), "iat"),
        (GOOD.sign(claims(exp=NOW + 3601)), "life"),
        (GOOD.sign(claims(iat=NOW - 3600, exp=NOW + 1)), "life"),
        ("a.b.c", "form"),
        ("..", "form"),
        ("a.b.c.d.e", "form"),
        (GOOD.sign(claims()) + "=", "form"),
        (" " + GOOD.sign(claims()), "form"),
        (unsigned({}, {}, b"x").replace("e30", b64(b"[1]"), 1), "form"),
        (f"{b64(b'[' * 3000)}.a.b", "form"),
        ("a" * (CHARACTERS - 4) + ".b.cd", "size"),
    ],
)  # fmt: skip
def test_no_abuse_is_accepted_and_each_is_told_by_name(token: str, rule: str) -> None:
    refused(token, rule)


def test_times_within_the_leeway_are_good() -> None:
    assert judged(GOOD.sign(claims(exp=NOW - LEEWAY_S + 1, nbf=NOW + LEEWAY_S)))
    assert judged(GOOD.sign(claims(iat=NOW + LEEWAY_S)))


def test_a_token_that_is_changed_anywhere_is_none() -> None:
    token = GOOD.sign(claims())
    for at in range(0, len(token), 7):
        if token[at] != ".":
            changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            with pytest.raises(Unauthenticated):
                judged(changed)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "1", None, [], 1e300])
def test_a_time_that_is_none_is_no_time(value: Any) -> None:
    with pytest.raises(Unauthenticated, match="exp"):
        tokens.check(claims() | {"exp": value}, WANTED, now=NOW)


def test_payloads_that_are_no_claims() -> None:
    import jwt

    for payload in (b"[]", b"7", b"\xff", b"", b"[" * 5000):
        token = jwt.PyJWS().encode(payload, GOOD.key, algorithm="RS256", headers={"kid": "good"})
        with pytest.raises(Unauthenticated):
            judged(token)


def test_a_key_is_no_token() -> None:
    from modelyard.security.identity import mint

    assert tokens.is_token("a.b.c") and not any(tokens.is_token(mint()) for _ in range(100))
