"""The server of the operations: each route once, each with its policy; what does not fit its types is refused by name, in one form."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from api import HOST, Api
from fastapi import FastAPI

from modelyard import config
from modelyard.console.app import LONG, served
from modelyard.console.routes import OPERATIONS
from modelyard.control.plane import ControlPlane
from modelyard.errors import NotFound
from modelyard.security import policy


@pytest.fixture
def api() -> Api:
    return Api(ControlPlane(config.load()))


def test_what_is_served_is_what_the_policy_names_and_no_more(api: Api) -> None:
    assert {(method, route.path) for route in api.app.routes for method in route.methods} == set(policy.ROUTES)


def test_fastapis_own_pages_are_off() -> None:
    assert served(FastAPI(docs_url=None, redoc_url=None, openapi_url=None)) == set()
    assert served(FastAPI()) != set()


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", "/deployments/line", {"json": {"reference": "line", "extra": 1}}, 400),
        ("POST", "/deployments/line", {"json": {"reference": 1}}, 400),
        ("POST", "/deployments/line", {"json": {}}, 400),
        ("POST", "/deployments/line", {"content": b"\xff"}, 400),
        ("POST", "/deployments/line", {"content": b"[" * 60_000}, 400),
        ("POST", "/deployments/line", {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ("GET", "/models?x=1", {}, 400),
        ("POST", "/gc", {"json": {"x": 1}}, 400),
        ("POST", "/gc", {"headers": {"idempotency-key": ""}}, 400),
        ("POST", "/gc", {"headers": {"idempotency-key": "x" * 256}}, 400),
        ("POST", "/bundles?name=a&name=b", {"content": b"", "headers": {"content-type": "application/x-tar"}}, 400),
    ],
)
def test_what_does_not_fit_is_refused_by_name(api: Api, method: str, path: str, options: dict[str, Any], status: int) -> None:
    answer = api.ask(method, path, **options)
    error = answer.json()["error"]
    assert answer.status_code == status and error["code"] and error["message"]


def test_a_failure_of_our_own_has_the_same_form_and_tells_nothing(api: Api, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("/secret/path")

    monkeypatch.setattr(api.plane, "models", broken)
    answer = api.ask("GET", "/models")
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal" and "secret" not in answer.text
    assert "list_models failed" in caplog.text


def test_a_file_that_cannot_be_written_is_told_without_where_the_home_is(api: Api) -> None:
    home = api.plane.settings.home
    (home / "uploads").write_text("in the way")
    told = api.ask("POST", "/bundles", content=b"x", headers={"content-type": "application/x-tar"})
    assert told.json()["error"]["message"].startswith("uploads") and str(home.parent) not in told.text
    assert (told.status_code, told.json()["error"]["code"]) == (500, "misconfigured"), "it is not the caller's to mend"


def test_what_changes_nothing_is_not_remembered(api: Api) -> None:
    """Or it could not be asked on a full disk, and a second answer under its key would be as old as the first."""
    api.home.add("line")
    headers = {"idempotency-key": "k"}
    assert api.ask("POST", "/audit/verify", key=api.key("auditor"), headers=headers).status_code == 200
    assert api.ask("POST", "/models/line/versions/1/verify", headers=headers).status_code == 200
    assert api.ask("POST", "/deployments/line/plan", json={"reference": "line:1"}, headers=headers).status_code == 200
    assert api.plane.once.list("idempotency") == ()


def test_every_change_takes_an_idempotency_key(api: Api) -> None:
    """Of a route that changes the world, a second request with one key and another body is refused before anything is done."""
    for each in OPERATIONS:
        if not each.is_change or each.kind == "upload":
            continue
        path = each.path.replace("{name}", "none").replace("{alias}", "a").replace("{version}", "1").replace("{id}", "0" * 12)
        headers = {"idempotency-key": "\x7f"}
        key = api.key("auditor") if path.startswith("/audit") else ""
        silence = {"until": "2999-01-01T00:00:00Z", "why": "w", "rule": "drift"}
        body = {"json": {"reference": "none", "version": 1, "pem": "x", "name": "n", "labels": [], "settings": {}, **silence}} if each.body else {}
        fields = set(each.body.__struct_fields__) if each.body else set()
        options = {"json": {name: value for name, value in body.get("json", {}).items() if name in fields}} if body else {}
        answer = api.ask(each.method, path, headers=headers, key=key, **options)
        assert answer.json()["error"]["field"] == "Idempotency-Key", each.name


def test_what_is_long_holds_up_nothing_else(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many verifies at once a few run; who only looks is answered meanwhile."""
    let_go, running, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def long(_: str) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        let_go.wait(30)
        with lock:
            running -= 1
        raise NotFound("no")

    monkeypatch.setattr(api.plane, "verify", long)

    async def crowd() -> tuple[int, list[int]]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url=f"http://{HOST}") as client:
            headers = {"authorization": f"Bearer {api.admin}"}
            asked = [asyncio.ensure_future(client.post("/api/v1/models/line/versions/1/verify", headers=headers)) for _ in range(50)]
            await asyncio.sleep(0.2)
            seen = (await client.get("/api/v1/models", headers=headers)).status_code
            let_go.set()
            return seen, [answer.status_code for answer in await asyncio.gather(*asked)]

    seen, said = asyncio.run(crowd())
    assert seen == 200 and said == [404] * 50 and 0 < most <= LONG
