"""Fault 34: tokens that are forged, meant for others, out of their time or signed by a key that was withdrawn, at every route: none is let in.

Each goes through the whole door of the control API, with a real issuer over HTTP. The positive control is the same request with a good token.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from api import HOST, Api
from cryptography.hazmat.primitives import serialization
from issuing import Issuer, Signing, b64, issuer, unsigned

from modelyard import config
from modelyard.control.plane import ControlPlane
from modelyard.errors import Unauthenticated
from modelyard.security import issuer as own
from modelyard.security import policy, tokens

EVIL = Signing("k1")


@pytest.fixture
def real() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@pytest.fixture
def held(real: Issuer) -> Iterator[own.Issuer]:
    settings = config.load(real.settings())
    with own.Issuer(settings) as found:
        wait_until(lambda: found.state.keys == 1 and found._coming is None)
        yield found


@pytest.fixture
def api(real: Issuer, held: own.Issuer) -> Api:
    return Api(ControlPlane(config.load(real.settings())), held)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def confused(real: Issuer, secret: bytes) -> str:
    """Signed by HS256 with what everybody knows of the issuer's key."""
    body = unsigned({"alg": "HS256", "kid": "k1", "typ": "JWT"}, real.claims()).rpartition(".")[0]
    return f"{body}.{b64(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def pem(real: Issuer) -> bytes:
    return bytes(real.keys[0].key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def seconds(more: int) -> int:
    """`more` seconds from when the token is made: from when the tests were collected, one that is not yet good would be by the time it is shown."""
    return int(time.time()) + more


ABUSES: dict[str, Callable[[Issuer], str]] = {
    "none": lambda real: unsigned({"alg": "none", "kid": "k1"}, real.claims(groups=["ml-admins"])),
    "none with a signature": lambda real: unsigned({"alg": "none", "kid": "k1"}, real.claims(groups=["ml-admins"]), b"x"),
    "HS256 with the public PEM": lambda real: confused(real, pem(real)),
    "HS256 with the public JWK": lambda real: confused(real, json.dumps(real.keys[0].jwk()).encode()),
    "HS256 with the key set": lambda real: confused(real, real.set()),
    "another algorithm of the same key": lambda real: Signing.sign(_with(real.keys[0], "PS256"), real.claims()),
    "a kid that is a path": lambda real: EVIL.sign(real.claims(), kid="../../../../dev/null"),
    "a kid that is a URL": lambda real: EVIL.sign(real.claims(), kid=f"{real.url}/jwks"),
    "no kid": lambda real: unsigned({"alg": "RS256"}, real.claims(), b"x"),
    "somebody else's key under its name": lambda real: EVIL.sign(real.claims()),
    "jku": lambda real: EVIL.sign(real.claims(), jku=f"{real.url}/evil"),
    "jwk": lambda real: EVIL.sign(real.claims(), jwk=EVIL.jwk()),
    "x5u": lambda real: EVIL.sign(real.claims(), x5u=f"{real.url}/evil"),
    "crit": lambda real: real.token(headers={"crit": ["x"], "x": 1}),
    "aud": lambda real: real.token(aud="another"),
    "no aud": lambda real: real.token(aud=None),
    "iss": lambda real: real.token(iss="https://login.example"),
    "exp": lambda real: real.token(iat=seconds(-700), exp=seconds(-100)),
    "no exp": lambda real: real.token(exp=None),
    "no sub": lambda real: real.token(sub=None),
    "nbf": lambda real: real.token(nbf=seconds(500)),
    "iat": lambda real: real.token(iat=seconds(500), exp=seconds(900)),
    "too long a life": lambda real: real.token(exp=seconds(7200)),
    "no group with a role": lambda real: real.token(groups=["guests"]),
    "no groups": lambda real: real.token(groups=None),
    "too long": lambda real: real.token(more="x" * 9000),
    "an ID token's nested form": lambda real: f"{real.token()}.{b64(b'x')}.{b64(b'y')}",
}


def _with(key: Signing, algorithm: str) -> Signing:
    other = Signing.__new__(Signing)
    other.kid, other.algorithm, other.key = key.kid, algorithm, key.key
    return other


@pytest.mark.parametrize("abuse", ABUSES)
def test_no_abuse_is_accepted_on_any_route(api: Api, real: Issuer, abuse: str) -> None:
    assert api.ask("GET", "/status", key=real.token()).status_code == 200, "the positive control"
    asked = list(real.asked)
    token = ABUSES[abuse](real)
    accepted = []
    for method, route in policy.ROUTES:
        answer = api.ask(method, re.sub(r"{\w+}", "churn", route.removeprefix("/api/v1")), key=token)
        if answer.status_code not in (401, 403):
            accepted.append((method, route, answer.text))
        told = answer.json()["error"]
        assert told["rule"].startswith("token-") and "\n" not in told["message"] and token not in answer.text
    assert accepted == []
    assert set(real.asked[len(asked) :]) <= {"/.well-known/openid-configuration", "/jwks"}, "no token leads the server anywhere"
    assert len(real.asked) - len(asked) <= 2, "and not more often than once in ten seconds"


def test_a_token_may_what_its_roles_may_by_the_same_table_as_keys(api: Api, real: Issuer) -> None:
    for role, group in (("operator", "ml-ops"), ("admin", "ml-admins")):
        token = real.token(groups=[group])
        for (method, route), rule in policy.ROUTES.items():
            answer = api.ask(method, re.sub(r"{\w+}", "churn", route.removeprefix("/api/v1")), key=token, json={"x": 1} if method != "GET" else None)
            assert (answer.status_code == 403) == (role not in rule.roles), (method, route, answer.text)


def test_a_denied_token_is_in_the_audit_log_and_who_acts_is_named(api: Api, real: Issuer) -> None:
    api.ask("GET", "/status", key=real.token(aud="another"))
    assert api.ask("POST", "/gc", key=real.token(), json={}).status_code == 200
    told = [(each.entry.principal, each.entry.action, each.entry.outcome, each.entry.detail) for each in api.plane.audit_list()]
    assert ("anonymous", "request", "denied", "token-aud") in told
    assert any(who == f"oidc:{real.url}#ann" and did == "gc" for who, did, _, _ in told)


def test_a_token_that_is_good_but_gives_nothing_is_audited_by_its_subject_and_one_that_is_not_is_nobodys(api: Api, real: Issuer) -> None:
    """And a subject is no way to write into the log what did not happen: what it may hold is bounded, and printable."""
    names = ("mallory", "a" * 255, '"},{"principal":"key:admin', "[red]x[/red]")
    for name in names:
        api.app.denials._last_s = float("-inf")  # else those of one second share an entry
        answer = api.ask("POST", "/gc", key=real.token(sub=name, groups=["guests"]), json={})
        assert answer.status_code == 403 and "oidc:" not in answer.text
    for name in ("\x1b[2J", "a\nb", "a" * 256, "\u202ekcab"):
        api.app.denials._last_s = float("-inf")
        assert api.ask("POST", "/gc", key=real.token(sub=name, groups=["guests"]), json={}).status_code == 401
    told = [(each.entry.principal, each.entry.subject, each.entry.detail) for each in api.plane.audit_list()]
    asked = "POST /api/v1/gc"
    assert told[-8:] == [(f"oidc:{real.url}#{name}", asked, "token-roles") for name in names] + [("anonymous", asked, "token-sub")] * 4
    assert api.plane.audit_verify().is_whole


def test_a_withdrawn_key_is_refused_and_a_new_one_is_good_at_once(api: Api, real: Issuer, held: own.Issuer) -> None:
    before = real.token()
    real.keys = [Signing("k2", "ES256")]
    assert api.ask("GET", "/status", key=before).status_code == 200, "until the next look"
    assert api.ask("GET", "/status", key=real.token()).status_code == 200, "a new key is looked for when a token names it"
    refused = api.ask("GET", "/status", key=before)
    assert refused.status_code == 401 and refused.json()["error"]["rule"] == "token-kid"


def test_an_issuer_that_is_away_refuses_nobody_whom_its_last_keys_know(api: Api, real: Issuer, held: own.Issuer) -> None:
    good, unknown = real.token(), Signing("k9").sign(real.claims())
    real.status = 500
    held._turn()
    assert api.ask("GET", "/status", key=good).status_code == 200
    away = api.ask("GET", "/status", key=unknown)
    assert away.status_code == 503 and away.headers["retry-after"] and "issuer" in away.json()["error"]["message"]


def test_others_go_on_while_tokens_wait_for_an_issuer_that_hangs(api: Api, real: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tokens of unknown keys as there are threads, and more: not one of them holds a thread that a key's holder needs."""
    monkeypatch.setattr("modelyard.console.guard.COMING_S", 3.0)
    real.hold.clear()
    unknown = [Signing.sign(EVIL, real.claims(), kid=f"new-{number}") for number in range(60)]

    async def go() -> tuple[list[int], list[int], int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url=f"http://{HOST}") as client:

            async def ask(shown: str) -> int:
                headers = {"host": HOST, "authorization": f"Bearer {shown}"}
                return (await client.get("/api/v1/models", headers=headers)).status_code

            waiting = [asyncio.create_task(ask(token)) for token in unknown]
            await asyncio.sleep(0.3)
            keys = [await ask(api.admin) for _ in range(20)]
            good = [await ask(real.token()) for _ in range(5)]
            still = sum(not task.done() for task in waiting)
            ended: Any = await asyncio.gather(*waiting)
            assert set(ended) <= {401, 503}
            return keys, good, still

    keys, good, still = asyncio.run(go())
    assert keys == [200] * 20 and good == [200] * 5
    assert still > 0, "they were answered while tokens waited"


def test_two_at_once_with_a_new_key_are_one_look(api: Api, real: Issuer) -> None:
    real.keys.insert(0, Signing("k2"))
    real.asked.clear()
    real.hold.clear()

    async def go() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url=f"http://{HOST}") as client:
            headers = [{"host": HOST, "authorization": f"Bearer {real.token(sub=name)}"} for name in ("ann", "bob")]
            asking = [asyncio.create_task(client.get("/api/v1/models", headers=each)) for each in headers]
            await asyncio.sleep(0.2)
            real.hold.set()
            return [answer.status_code for answer in await asyncio.gather(*asking)]

    assert asyncio.run(go()) == [200, 200] and real.asked.count("/jwks") == 1


def test_without_the_pin_the_confusion_would_be_accepted(api: Api, real: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a door that verifies by the algorithm that the header says, with the key that everybody knows, lets the forgery in."""
    import base64

    def believing(token: str, key: Any, wanted: Any, *, now: float) -> dict[str, Any]:
        body, _, signature = token.rpartition(".")
        if b64(hmac.new(pem(real), body.encode(), hashlib.sha256).digest()) != signature:
            raise Unauthenticated("forged")
        payload = body.partition(".")[2]
        return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))

    monkeypatch.setattr(tokens, "claims", believing)
    assert api.ask("GET", "/status", key=confused(real, pem(real))).status_code == 200
    assert api.ask("GET", "/status", key=confused(real, b"another")).status_code == 401
