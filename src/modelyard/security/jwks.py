"""The public keys of an issuer: a JSON Web Key Set (RFC 7517) in, by key id what verifies with one algorithm each out.

Hides which keys are believed. Each key is pinned to one algorithm, by its own `alg` or else by what it is (RFC 8725, 3.1 and 3.2); of a set, the keys
that do not verify, are too small, are not named, share their name, or are secret are left out. It must not fetch anything, nor see a token.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from modelyard.errors import MalformedPayload

if TYPE_CHECKING:
    import jwt

LIMIT_BYTES = 256 << 10
LIMIT_KEYS = 100
KID_CHARACTERS = 256
RSA_BITS = (2048, 8192)

ALGORITHMS: dict[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""(key type, curve) -> the algorithms of such a key; the first where the key names none."""


class IssuerKey(NamedTuple):
    """A public key and the one algorithm by which it verifies."""

    algorithm: str
    key: jwt.PyJWK


class _Set(msgspec.Struct, frozen=True):
    keys: tuple[dict[str, Any], ...]


def read(data: bytes) -> dict[str, IssuerKey]:
    """The keys of the set `data`, by id; a set may have none that is believed. Raises MalformedPayload for what is no set."""
    if len(data) > LIMIT_BYTES:
        raise MalformedPayload(f"a key set has at most {LIMIT_BYTES >> 10} KiB", rule="size")
    try:
        listed = msgspec.json.decode(data, type=_Set).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedPayload("this is no JSON Web Key Set", rule="jwks") from error
    if len(listed) > LIMIT_KEYS:
        raise MalformedPayload(f"a key set has at most {LIMIT_KEYS} keys", rule="count")
    names = Counter(each["kid"] for each in listed if isinstance(each.get("kid"), str))
    found = {}
    for each in listed:
        kid = each.get("kid")
        if isinstance(kid, str) and 0 < len(kid) <= KID_CHARACTERS and names[kid] == 1 and (key := _key(each)) is not None:
            found[kid] = key
    return found


def algorithm(jwk: dict[str, Any]) -> str | None:
    """The one algorithm by which this key verifies tokens; None where it does not."""
    if jwk.get("use", "sig") != "sig" or "d" in jwk:
        return None
    uses = jwk.get("key_ops", ["verify"])
    if not isinstance(uses, list) or "verify" not in uses:
        return None
    kind, curve = jwk.get("kty"), jwk.get("crv", "")
    known = ALGORITHMS.get((kind, curve), ()) if isinstance(kind, str) and isinstance(curve, str) else ()
    said = jwk.get("alg", known[0] if known else None)
    return said if isinstance(said, str) and said in known else None


def _key(jwk: dict[str, Any]) -> IssuerKey | None:
    import jwt
    from cryptography.exceptions import UnsupportedAlgorithm

    pinned = algorithm(jwk)
    if pinned is None:
        return None
    try:
        key = jwt.PyJWK(jwk, algorithm=pinned)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, OverflowError):  # a number that is none, a point that is on no curve
        return None
    bits = getattr(key.key, "key_size", 0)
    if jwk["kty"] == "RSA" and not RSA_BITS[0] <= bits <= RSA_BITS[1]:
        return None
    return IssuerKey(pinned, key)
