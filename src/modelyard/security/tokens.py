"""Tokens of an issuer (JWT): is this one good, now, and what does it claim?

Hides PyJWT and the form of a token. Held to RFC 8725: the algorithm is the key's, never what the token says; keys come from the issuer's set alone,
whatever a header offers (`jwk`, `jku`, `x5c`, `x5u`); a header that must be understood (`crit`) is not; issuer, audience and times are checked, and
that it does not live longer than is accepted. A refusal says in a line which of this it was, and nothing of the token. It must not know where keys
come from, nor what a claim lets somebody do.
"""

from __future__ import annotations

import base64
import math
import re
from typing import Any, NamedTuple

import msgspec

from modelyard.errors import Unauthenticated
from modelyard.security.jwks import KID_CHARACTERS, IssuerKey

CHARACTERS = 8192
"""Of a whole token, looked at before anything in it is read."""

LEEWAY_S = 30.0
"""How far the issuer's clock and this one may be apart."""

SUBJECT_CHARACTERS = 255  # OpenID Connect Core, 2
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
OFFERED_KEYS = ("jku", "jwk", "x5u", "x5c")

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class Wanted(NamedTuple):
    """What a token must say: by whom and for whom it is, and how long it may be good for."""

    issuer: str
    audience: str
    max_life_s: float


def is_token(shown: str) -> bool:
    """Whether `shown` may be meant as a token: an access key has no dot."""
    return "." in shown


def kid(token: str) -> str:
    """The id of the key by which `token` says that it is signed: no more than a name to look up. Raises Unauthenticated."""
    if len(token) > CHARACTERS:
        raise _refused("size", f"has more than {CHARACTERS:,} characters")
    parts = _PARTS.fullmatch(token)
    if parts is None:
        raise _refused("form", "is not one: three parts in base64url with a dot between them, the last a signature")
    header = _json(parts[1], "header")
    if "crit" in header:
        raise _refused("crit", "has a header (crit) that asks for more than is understood here")
    for name in OFFERED_KEYS:
        if name in header:
            raise _refused(name, f"offers a key of its own ({name}); only the issuer's are believed")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise _refused("typ", "is of another type (typ) than JWT")
    if not isinstance(header.get("alg"), str):
        raise _refused("alg", "does not say how it is signed (alg)")
    named = header.get("kid")
    if not isinstance(named, str) or not 0 < len(named) <= KID_CHARACTERS:
        raise _refused("kid", "does not name its key (kid)")
    return named


def unknown_key() -> Unauthenticated:
    """The refusal of a token whose key the issuer does not have, or no longer."""
    return _refused("kid", "is signed by a key (kid) that the issuer does not publish")


def claims(token: str, key: IssuerKey, wanted: Wanted, *, now: float) -> dict[str, Any]:
    """What `token`, of which `kid` has told, claims, signed by `key` and good at `now` (seconds since 1970). Raises Unauthenticated."""
    import jwt

    if _json(token.partition(".")[0], "header").get("alg") != key.algorithm:
        raise _refused("alg", "is signed by another algorithm (alg) than its key is for")
    try:
        payload = jwt.PyJWS(algorithms=[key.algorithm]).decode(token, key.key, algorithms=[key.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise _refused("signature", "has a signature that does not verify") from error
    found = _decoded(payload, "claims")
    check(found, wanted, now=now)
    return found


def check(found: dict[str, Any], wanted: Wanted, *, now: float) -> None:
    """Return when these claims are by and for whom they must be, and good at `now`. Raises Unauthenticated."""
    if found.get("iss") != wanted.issuer:
        raise _refused("iss", "is by another issuer (iss)")
    meant = found.get("aud")
    if wanted.audience not in (meant if isinstance(meant, list) else [meant]):
        raise _refused("aud", "is meant for another audience (aud)")
    subject = found.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_CHARACTERS or not subject.isprintable():
        raise _refused("sub", "names nobody (sub)")
    expires, issued = _time(found, "exp"), _time(found, "iat")
    if now >= expires + LEEWAY_S:
        raise _refused("exp", "has expired (exp)")
    if issued > now + LEEWAY_S:
        raise _refused("iat", "was issued in the future (iat)")
    if "nbf" in found and _time(found, "nbf") > now + LEEWAY_S:
        raise _refused("nbf", "is not good yet (nbf)")
    if expires - issued > wanted.max_life_s:
        raise _refused("life", f"lives longer (exp - iat) than the {wanted.max_life_s:g} s that are accepted")


def _time(found: dict[str, Any], name: str) -> float:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15 or not math.isfinite(value):
        raise _refused(name, f"does not say when ({name})")
    return float(value)


def _json(part: str, called: str) -> dict[str, Any]:
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as error:
        raise _refused("form", f"has a {called} that is not base64url") from error
    return _decoded(data, called)


def _decoded(data: bytes, called: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refused("form", f"has {called} that are no JSON object") from error


def _refused(rule: str, why: str) -> Unauthenticated:
    return Unauthenticated(f"the token {why}", rule=f"token-{rule}")
