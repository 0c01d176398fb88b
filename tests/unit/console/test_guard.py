"""The door of the control API: what has no key, no right or another Host does not reach a handler."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api import Api
from starlette.routing import Match

from modelyard import config
from modelyard.console.app import build, served
from modelyard.console.guard import Denials
from modelyard.console.operations import BODY_LIMIT_BYTES
from modelyard.control.access import home_keyring
from modelyard.control.plane import ControlPlane
from modelyard.control.status import Status
from modelyard.errors import Forbidden, InvalidConfig
from modelyard.security import identity, policy
from modelyard.security.audit import AuditLog, FileLines
from modelyard.security.identity import Keyring, mint

HOST = "127.0.0.1:8090"
Ask = Callable[..., httpx.Response]


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane(config.load())


@pytest.fixture
def keyring(plane: ControlPlane) -> Keyring:
    return home_keyring(plane.settings)


@pytest.fixture
def ask(plane: ControlPlane, keyring: Keyring) -> Ask:
    world = Status(home="h", data_plane=None, deployments=())
    app = build(plane, identity=keyring, hosts={HOST}, status=lambda: world, changed=lambda: None)
    admin = keyring.add("admin", roles=("admin",))

    def send(method: str, path: str, *, key: str | None = admin, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            sent = {"host": HOST, **({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{HOST}") as client:
                return await client.request(method, path, headers=sent, **options)

        return asyncio.run(go())

    return send


def test_the_admin_is_let_in(ask: Ask) -> None:
    answer = ask("GET", "/api/v1/status")
    assert answer.status_code == 200 and answer.json()["home"] == "h"


def filled(route: str) -> str:
    """A path that finds `route`."""
    return re.sub(r"{\w+}", "churn", route)


@pytest.mark.parametrize(("method", "route"), sorted(policy.ROUTES))
def test_every_route_wants_a_key(ask: Ask, method: str, route: str) -> None:
    path = filled(route)
    for key in (None, "my_", mint()):
        answer = ask(method, path, key=key)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", policy.ROLES)
def test_every_route_is_open_to_its_roles_alone(ask: Ask, keyring: Keyring, role: str) -> None:
    """The census: every route x role, and with a key for a model that the path does not name."""
    key, narrow = keyring.add(f"any-{role}", roles=(role,)), identity.new("narrow", roles=(role,), models=("other",))
    keyring._store.put(narrow[1])
    for (method, route), rule in policy.ROUTES.items():
        answer = ask(method, filled(route), key=key, json={"x": 1} if method != "GET" else None)
        assert (answer.status_code == 403) == (role not in rule.roles), (method, route, answer.text)
        answer = ask(method, filled(route), key=narrow[0], json={"x": 1} if method != "GET" else None)
        is_refused = role not in rule.roles or rule.scope in (policy.HOME, policy.MODEL)
        assert (answer.status_code == 403) == is_refused, (method, route, answer.text)


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/api/v1/status/", "//api/v1/status", "/api/v1/deployments/a/b", "/api/v1/%2e%2e/status"]
)
def test_what_is_no_route_is_401_without_a_key_and_404_with_one(ask: Ask, path: str) -> None:
    assert ask("GET", path, key=None).status_code == 401
    assert ask("GET", path).status_code == 404


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "TRACE"])
def test_other_methods_are_refused_with_those_that_the_caller_may_use(ask: Ask, keyring: Keyring, method: str) -> None:
    answer = ask(method, "/api/v1/status")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert method == "HEAD" or answer.json()["error"]["rule"] == "method"
    assert ask(method, "/api/v1/deployments/churn").headers["allow"] == "DELETE, GET, POST"
    assert ask(method, "/api/v1/status", key=None).status_code == 401


def test_a_wrong_method_tells_of_no_route_to_who_may_not_call_it(ask: Ask, keyring: Keyring) -> None:
    viewer, narrow = keyring.add("viewer", roles=("viewer",)), identity.new("narrow", roles=("operator",), models=("other",))
    keyring._store.put(narrow[1])
    seen = ask("PUT", "/api/v1/deployments/churn", key=viewer)
    assert (seen.status_code, seen.headers["allow"]) == (405, "GET")
    nothing = ask("PUT", "/api/v1/nothing", key=viewer)
    for refused in (ask("PUT", "/api/v1/keys", key=viewer), ask("PUT", "/api/v1/deployments/churn", key=narrow[0])):
        assert refused.status_code == 404 and "allow" not in refused.headers and refused.content == nothing.content
    assert ask("PUT", "/api/v1/deployments/other", key=narrow[0]).headers["allow"] == "DELETE, GET, POST"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "127.0.0.1", "127.0.0.1:80", ""])
def test_another_host_is_refused(ask: Ask, host: str) -> None:
    assert ask("GET", "/api/v1/status", headers={"host": host}).status_code == 403


def test_the_address_that_was_dialled_is_served_and_so_is_a_name_that_was_allowed(plane: ControlPlane, keyring: Keyring) -> None:
    app = Api(plane).build(hosts={HOST, "ml.example"})
    key = keyring.add("remote", roles=("admin",))

    def status(host: str, server: tuple[str, int], origin: str | None = None) -> int:
        said: list[Any] = []
        headers = [(b"host", host.encode()), (b"authorization", f"Bearer {key}".encode())]
        headers += [(b"origin", origin.encode())] if origin else []
        path = "/api/v1/status"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers}

        async def send(message: Any) -> None:
            said.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        asyncio.run(app({**scope, "server": server}, receive, send))
        return int(said[0]["status"])

    assert status("10.0.0.5:8090", ("10.0.0.5", 8090)) == 200 and status("[fd00::1]:8090", ("fd00::1", 8090)) == 200
    assert status("10.0.0.6:8090", ("10.0.0.5", 8090)) == 403 and status("evil.example:8090", ("10.0.0.5", 8090)) == 403
    assert status("ml.example", ("10.0.0.5", 8090)) == 200
    assert status("10.0.0.5:8090", ("10.0.0.5", 8090), "http://10.0.0.5:8090") == 200
    assert status("10.0.0.5:8090", ("10.0.0.5", 8090), "http://evil.example") == 403


def test_a_path_without_names_finds_the_route_that_a_search_in_order_finds(plane: ControlPlane, keyring: Keyring) -> None:
    world = Status(home="h", data_plane=None, deployments=())
    guard = build(plane, identity=keyring, hosts={HOST}, status=lambda: world, changed=lambda: None)
    for method, path in policy.ROUTES:
        scope: dict[str, Any] = {"type": "http", "method": method, "path": filled(path), "root_path": ""}
        found = guard.found(scope)
        first = next(each for each in guard.routes if each.matches(scope)[0] == Match.FULL)
        assert found is not None and found[0] is first and first.path == path
        assert guard.found({**scope, "path": filled(path) + "/more/of/it"}) is None and guard.found({**scope, "method": "HEAD"}) is None


def test_another_origin_is_refused(ask: Ask) -> None:
    assert ask("GET", "/api/v1/status", headers={"origin": "http://evil.example"}).status_code == 403
    assert ask("GET", "/api/v1/status", headers={"origin": "null"}).status_code == 403
    assert ask("GET", "/api/v1/status", headers={"origin": f"http://{HOST}"}).status_code == 200


def test_a_large_body_is_refused_declared_or_not(ask: Ask) -> None:
    assert ask("POST", "/api/v1/deployments/churn", content=b"x" * (BODY_LIMIT_BYTES + 1)).status_code == 413

    async def parts() -> Any:
        for _ in range(3):
            yield b"x" * (BODY_LIMIT_BYTES // 2)

    assert ask("POST", "/api/v1/deployments/churn", content=parts()).status_code == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"reference": 1}', b'{"reference": "churn", "extra": 1}'])
def test_a_body_that_does_not_fit_is_400(ask: Ask, body: bytes) -> None:
    answer = ask("POST", "/api/v1/deployments/churn", content=body)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "malformed_payload"


def test_a_body_whose_end_could_be_read_in_two_ways_is_refused_and_the_connection_ended(ask: Ask) -> None:
    """What follows it would be another request to one of two servers in a row (RFC 9112, 6.1)."""
    told = ask("POST", "/api/v1/gc", content=b"0\r\n\r\n", headers={"content-length": "5", "transfer-encoding": "chunked"})
    assert (told.status_code, told.json()["error"]["rule"], told.headers["connection"]) == (400, "http", "close")
    assert "connection" not in ask("POST", "/api/v1/gc", content=b"[").headers


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_body_that_breaks_off_is_no_request(plane: ControlPlane, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, is_silent: bool) -> None:
    """A rollback needs no body: what came of one that breaks off must not be taken for the whole."""
    monkeypatch.setattr("modelyard.console.guard.BODY_TIMEOUT_S", 0.05)
    reached: list[str] = []
    monkeypatch.setattr(plane, "rollback", lambda *_: reached.append("rollback"))
    app = build(plane, identity=keyring, hosts={HOST}, status=lambda: Status(home="h", data_plane=None, deployments=()), changed=lambda: None)
    key = keyring.add("admin", roles=("admin",))
    headers = [(b"host", HOST.encode()), (b"authorization", f"Bearer {key}".encode()), (b"content-length", b"20")]
    path = "/api/v1/deployments/churn/rollback"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers}
    came = iter([{"type": "http.request", "body": b"{", "more_body": True}])
    said: list[Any] = []

    async def receive() -> Any:
        message = next(came, None)
        if message is None and is_silent:
            await asyncio.sleep(60)
        return message or {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(app(scope, receive, send))
    assert said[0]["status"] == 400 and not reached


def test_errors_have_code_and_message(ask: Ask) -> None:
    answer = ask("POST", "/api/v1/deployments/churn", json={"reference": "churn"})
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found" and "churn" in answer.json()["error"]["message"]
    assert ask("DELETE", "/api/v1/deployments/churn").status_code == 404
    assert ask("POST", "/api/v1/deployments/churn/rollback").status_code == 404


def test_denials_are_audited_without_the_key(ask: Ask, plane: ControlPlane) -> None:
    key = mint()
    ask("GET", "/api/v1/status", key=key)
    (entry,) = plane.audit.entries()
    assert (entry.principal, entry.outcome, entry.detail) == ("anonymous", "denied", "unauthenticated")
    assert key not in str(list(plane.audit.entries()))
    assert plane.audit.verify() == 1


def test_keys_that_cannot_be_read_are_not_described(ask: Ask, plane: ControlPlane, caplog: pytest.LogCaptureFixture) -> None:
    path = plane.settings.home / "keys" / "access.json"
    path.chmod(0o666)
    path.write_bytes(path.read_bytes() + b" ")
    told = ask("GET", "/api/v1/status", key=mint())
    assert told.status_code == 503 and str(path.parent) not in told.text and str(path.parent) in caplog.text


def test_a_denial_says_what_was_asked(ask: Ask, plane: ControlPlane, keyring: Keyring) -> None:
    ask("DELETE", "/api/v1/deployments/churn", key=keyring.add("eve", roles=("viewer",)))
    (entry,) = plane.audit.entries()
    assert (entry.principal, entry.subject, entry.detail) == ("key:eve", "DELETE /api/v1/deployments/{name}", "role")


def test_a_flood_of_denials_is_counted_into_few_entries(tmp_path: Path) -> None:
    log = AuditLog(FileLines(tmp_path / "audit.jsonl"))
    denials = Denials(log)
    for _ in range(50):
        denials.add(plane_principal(), "GET", Forbidden("no"))
    assert log.verify() == 1
    denials.flush()
    assert list(log.entries())[-1].detail.endswith("49 more")


def test_a_store_that_is_locked_holds_up_one_denial_and_not_all(tmp_path: Path) -> None:
    locked, waiting = threading.Event(), threading.Event()

    class Locked(AuditLog):
        def record(self, *_: Any, **__: Any) -> None:
            waiting.set()
            locked.wait(30)

    denials = Denials(Locked(FileLines(tmp_path / "audit.jsonl")))
    first = threading.Thread(target=denials.add, args=(plane_principal(), "GET", Forbidden("no")))
    first.start()
    waiting.wait(30)
    denials._last_s = float("-inf")  # long ago
    denials.add(plane_principal(), "GET", Forbidden("no"))
    assert first.is_alive() and denials._waiting == 1
    locked.set()
    first.join()


def plane_principal() -> Any:
    from modelyard.types import Principal

    return Principal("anonymous")


def test_a_route_that_was_added_without_a_policy_stops_the_start(plane: ControlPlane, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    reduced = {key: roles for key, roles in policy.ROUTES.items() if key != ("GET", "/api/v1/status")}
    monkeypatch.setattr(policy, "ROUTES", reduced)
    with pytest.raises(InvalidConfig, match="routes without a policy: GET /api/v1/status"):
        build(plane, identity=keyring, hosts={HOST}, status=lambda: Status(home="", data_plane=None, deployments=()), changed=lambda: None)


def test_a_mounted_application_does_not_escape_the_table() -> None:
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/files", FastAPI())
    with pytest.raises(InvalidConfig):
        policy.require_complete(served(app))
