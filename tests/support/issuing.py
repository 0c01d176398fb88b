"""A real issuer of tokens in this process, for tests: keys, its discovery document and key set over HTTP on loopback, and tokens, good and bad."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "modelyard"


def b64(data: bytes) -> str:
    """Base64url without padding, as tokens are written."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token with whatever header and signature."""
    return ".".join((b64(json.dumps(header).encode()), b64(json.dumps(claims).encode()), b64(signature)))


class Signing:
    """A private key under a name, and the one algorithm by which it signs."""

    def __init__(self, kid: str, algorithm: str = "RS256", *, bits: int = 2048) -> None:
        self.kid, self.algorithm = kid, algorithm
        self.key: Any
        if algorithm.startswith(("RS", "PS")):
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        elif algorithm.startswith("ES"):
            self.key = ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[algorithm])
        else:
            self.key = ed25519.Ed25519PrivateKey.generate()

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public key, as a member of a set; `more` with None takes a member away."""
        form = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.key.public_key(), as_dict=True)
        told = {**form, "kid": self.kid, "use": "sig", "alg": self.algorithm, **more}
        told.pop("key_ops", None) if "key_ops" not in more else None
        return {name: value for name, value in told.items() if value is not None}

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        """A token of these claims."""
        return jwt.encode(claims, self.key, algorithm=self.algorithm, headers={"kid": self.kid, **headers})


class Issuer:
    """It publishes `keys` and signs with the first. `status` and `hold` make it fail, or wait; `asked` are the paths that were asked for."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.keys = [Signing("k1")]
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}
        self.trickles = False
        self.document: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        self.asked: list[str] = []

    def claims(self, **more: Any) -> dict[str, Any]:
        """Claims of a good token; `more` with None takes one away."""
        now = int(time.time())
        told = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 600, "groups": ["ml-ops"], **more}
        return {name: value for name, value in told.items() if value is not None}

    def token(self, *, headers: dict[str, Any] | None = None, **more: Any) -> str:
        """A good token, but for what is said otherwise."""
        return self.keys[0].sign(self.claims(**more), **(headers or {}))

    def set(self) -> bytes:
        """What it publishes."""
        return json.dumps({"keys": [key.jwk() for key in self.keys]}).encode()

    def settings(self) -> dict[str, Any]:
        """The settings by which a home believes it."""
        return {
            "oidc_issuer": self.url,
            "oidc_audience": AUDIENCE,
            "oidc_roles": "ml-ops=operator; ml-approvers=approver+viewer; ml-admins=admin",
        }


@contextlib.contextmanager
def issuer() -> Iterator[Issuer]:
    """An issuer that runs while the block does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            made.hold.wait(30)
            known = {"/.well-known/openid-configuration": lambda: json.dumps(made.document).encode(), "/jwks": made.set}
            body = made.body if made.body is not None and self.path == "/jwks" else known[self.path]() if self.path in known else b"{}"
            with contextlib.suppress(OSError):
                self.send_response(made.status if self.path in known else 404)
                for name, value in {"content-type": "application/json", "content-length": str(len(body)), **made.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for at in range(len(body)) if made.trickles else ():
                    self.wfile.write(body[at : at + 1])
                    time.sleep(0.02)
                self.wfile.write(b"" if made.trickles else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Issuer(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
