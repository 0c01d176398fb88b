"""The door of the control API: every request passes Host, Origin, identity and policy before any handler sees it.

Hides how a route is found for a request (Starlette's matching). Default deny: what no route and policy name is refused, with or without a key. A
denial is audited; under a flood, denials within a second of one another share an entry, which counts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from modelyard.console.errors import STATUS, body, headers
from modelyard.console.failures import Failures
from modelyard.console.operations import BODY_LIMIT_BYTES
from modelyard.errors import (
    Denied,
    Forbidden,
    InvalidInput,
    MalformedPayload,
    ModelyardError,
    NotFound,
    PayloadTooLarge,
    Unauthenticated,
    Unavailable,
)
from modelyard.security import policy
from modelyard.security.audit import AuditLog
from modelyard.security.base import Identity
from modelyard.types import Principal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_TIMEOUT_S = 10.0
COMING_S = 6.0
"""How long a request waits for what may decide who calls."""

ANONYMOUS = Principal("anonymous")

_failures = Failures()


class Guard:
    """The ASGI application that finds a request's route among `routes`, which were checked against the policy table, once, and hands it to that.

    Used by one event loop.
    """

    def __init__(
        self,
        *,
        routes: Iterable[Any],
        identity: Identity,
        denials: Denials,
        hosts: Iterable[str],
        limits: Mapping[tuple[str, str], int | None],
    ) -> None:
        self._limits = limits
        self.routes = tuple(routes)
        self._fixed = {(method, route.path): route for route in self.routes if "{" not in route.path for method in route.methods}
        self._identity = identity
        self.denials = denials
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its Principal is in `scope["principal"]` when a handler runs."""
        if scope["type"] != "http":
            raise Forbidden("this API speaks HTTP requests alone")
        principal = ANONYMOUS
        found: tuple[Any, Mapping[str, Any]] | None = None
        try:
            fields = _headers(scope)
            self._check_origin(fields, scope.get("server"))
            principal = await self._admitted(_bearer(fields))
            found = self.found(scope)
            if found is None:
                if methods := self._methods(scope, principal):
                    await _refuse(InvalidInput(f"this route takes {methods}", field="method", rule="method"), send, methods=methods)
                    return
                raise NotFound("no such route; GET /api/v1/openapi.json tells of them all")
            route, about = found
            policy.allow(principal, scope["method"], route.path, name=about["path_params"].get("name"))
            limit = self._limits.get((scope["method"], route.path), BODY_LIMIT_BYTES)
            # An upload (None) is received by its route, to disk, within bounds of its own.
            again = receive if limit is None else _replay(await _read_in_time(fields, receive, limit), receive)
        except ModelyardError as error:
            if isinstance(error, Denied):
                # The route, not the path: what stands there in place of a name may be anything, and as long as a head.
                found = found or self.found(scope)
                asked = scope["method"] if found is None else f"{scope['method']} {found[0].path}"
                caller = principal if error.caller is None else Principal(error.caller)
                await asyncio.to_thread(self.denials.add, caller, asked, error)
            await _refuse(error, send)
            return
        scope.update(about, principal=principal)
        await route.handle(scope, again, send)

    async def _admitted(self, shown: str | None) -> Principal:
        """Who calls. What may decide about them and is under way is waited for here, and not in a thread that others need."""
        coming = self._identity.coming(shown)
        if coming is not None:
            await asyncio.wait([asyncio.wrap_future(coming)], timeout=COMING_S)
        return await asyncio.to_thread(admitted, self._identity, shown)

    def _check_origin(self, headers: dict[bytes, bytes], server: tuple[str, int | None] | None) -> None:
        """Refuse what names another server than this: a name that was pointed here, as a page in a browser can (DNS rebinding), not an address."""
        address = "" if server is None else f"[{server[0]}]:{server[1]}" if ":" in server[0] else f"{server[0]}:{server[1]}"
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host not in self._hosts and host != address:
            raise Forbidden("this Host is not served here; name it in allowed_hosts", rule="host")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower().removeprefix("http://") not in {*self._hosts, address}:
            raise Forbidden("requests from other origins are refused", rule="origin")

    def found(self, scope: Scope) -> tuple[Any, Mapping[str, Any]] | None:
        """The route that the request finds, and what the path says to it."""
        from starlette.routing import Match

        if (fixed := self._fixed.get((scope["method"], scope["path"]))) is not None:
            return fixed, {"endpoint": fixed.endpoint, "path_params": {}}
        for route in self.routes:
            match, about = route.matches(scope)
            if match == Match.FULL:
                return route, about
        return None

    def _methods(self, scope: Scope, principal: Principal) -> str:
        """What the path takes instead, of that which `principal` may call: to who may nothing there it is no route at all."""
        from starlette.routing import Match

        methods = set()
        for route in self.routes:
            match, about = route.matches(scope)
            if match == Match.PARTIAL:
                for method in route.methods:
                    with contextlib.suppress(Forbidden):
                        policy.allow(principal, method, route.path, name=about["path_params"].get("name"))
                        methods.add(method)
        return ", ".join(sorted(methods))


def admitted(identity: Identity, shown: str | None) -> Principal:
    """Who shows this. Raises Denied; or Unavailable where keys cannot be read: why, and where they lie, is for this home's log alone."""
    try:
        return identity.authenticate(shown)
    except Denied:
        raise
    except ModelyardError as error:
        if error.rule == "issuer":
            raise
        _failures.tell("access keys", error)
        raise Unavailable("this home's access keys cannot be read; its log tells more") from error


class Denials:
    """Audits denials: each at once, but those that follow within a second are counted into one entry of the next."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._lock = threading.Lock()
        self._last_s = float("-inf")
        self._waiting = 0
        self._is_writing = False

    def add(self, principal: Principal, asked: str, error: Denied) -> None:
        """Record that `principal` was denied what it `asked`; a chain that cannot be written does not turn the denial into anything else."""
        now = time.monotonic()
        with self._lock:
            if self._is_writing or now - self._last_s < 1.0:  # a store that is locked holds up one denial, not the threads of all
                self._waiting += 1
                return
            self._last_s, self._is_writing = now, True
        try:
            self.flush()
            with contextlib.suppress(ModelyardError):
                self._audit.record(principal, "request", asked, outcome="denied", detail=error.rule or error.code)
        finally:
            with self._lock:
                self._is_writing = False

    def flush(self) -> None:
        """Record those that were only counted, in one entry."""
        with self._lock:
            more, self._waiting = self._waiting, 0
        if not more:
            return
        try:
            self._audit.record(ANONYMOUS, "request", "various", outcome="denied", detail=f"{more} more")
        except ModelyardError:
            with self._lock:
                self._waiting += more


def _headers(scope: Scope) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and name in (b"host", b"origin", b"authorization", b"content-length"):
            raise Unauthenticated("a header that decides access was sent twice")
        headers[name] = value
    if b"transfer-encoding" in headers and b"content-length" in headers:
        raise MalformedPayload("a body has a length or a coding, not both: two readers could take its end for two places", rule="http")
    return headers


def _bearer(headers: dict[bytes, bytes]) -> str | None:
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


async def _read_in_time(headers: dict[bytes, bytes], receive: Receive, limit_bytes: int) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(headers, receive, limit_bytes)
    except TimeoutError:
        raise MalformedPayload(f"the request's body did not come within {BODY_TIMEOUT_S:.0f} s") from None


async def _read(headers: dict[bytes, bytes], receive: Receive, limit_bytes: int) -> bytes:
    declared = headers.get(b"content-length", b"0")
    parts: list[bytes] = []
    came = 0
    size = int(declared) if declared.isdigit() else 0
    while size <= limit_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedPayload("the connection ended before the request's body did")
        parts.append(message.get("body", b""))
        came += len(parts[-1])
        size = max(size, came)
        if size <= limit_bytes and not message.get("more_body", False):
            return b"".join(parts)
    raise PayloadTooLarge(f"this request has at most {limit_bytes:,} bytes")


def _replay(content: bytes, receive: Receive) -> Receive:
    """A receive that gives the body already read, then whatever the connection says next."""
    is_given = False

    async def receive_again() -> MutableMapping[str, Any]:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": content, "more_body": False}

    return receive_again


async def _refuse(error: ModelyardError, send: Send, *, methods: str = "") -> None:
    """Answer with `error`; as 405 where the path takes other `methods`."""
    content = body(error)
    told = {**headers(error), **({"Allow": methods} if methods else {}), **({"Connection": "close"} if error.rule == "http" else {})}
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    fields += [(name.lower().encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": 405 if methods else STATUS[type(error)], "headers": fields})
    await send({"type": "http.response.body", "body": content})
