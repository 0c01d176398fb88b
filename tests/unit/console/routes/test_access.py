"""Trust and access keys over HTTP."""

from __future__ import annotations

import pytest
from api import Api

from modelyard import config
from modelyard.control.plane import ControlPlane
from modelyard.security.seal import local_signer


@pytest.fixture
def api() -> Api:
    return Api(ControlPlane(config.load()))


def test_a_signer_is_trusted_and_no_longer(api: Api, tmp_path: object) -> None:
    other = local_signer(api.plane.settings.home / "elsewhere")
    told = api.told("POST", "/trust", json={"pem": other.public_pem.decode()})["key_id"]
    assert {item["key_id"]: item["is_own"] for item in api.told("GET", "/trust")}[told] is False
    assert api.told("DELETE", f"/trust/{told[:12]}") == {"key_id": told}
    assert told not in {item["key_id"] for item in api.told("GET", "/trust")}
    assert api.ask("POST", "/trust", json={"pem": "no PEM"}).status_code == 400
    assert api.ask("DELETE", f"/trust/{told[:12]}").status_code == 404


def test_a_key_is_told_once_and_revoked(api: Api) -> None:
    made = api.ask("POST", "/keys", json={"name": "app", "roles": ["viewer"], "models": ["line"], "expires_at": "2999-01-01T00:00:00Z"})
    assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
    key, known = made.json()["key"], made.json()["id"]
    assert made.json()["models"] == ["line"] and api.ask("GET", "/models", key=key).status_code == 200
    listed = api.ask("GET", "/keys")
    assert known in listed.text and key not in listed.text and "sha256" not in listed.text
    assert api.told("DELETE", f"/keys/{known}")["name"] == "app"
    assert api.ask("GET", "/models", key=key).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"name": "app", "roles": ["emperor"]},
        {"name": "app", "roles": []},
        {"name": "Not A Name"},
        {"name": "app", "expires_at": "2000-01-01T00:00:00Z"},
        {"name": "app", "expires_at": "2999-01-01T00:00:00"},
        {"name": "app", "expires_at": "9999-12-31T23:59:59-14:00"},
        {"name": "app", "extra": 1},
    ],
)
def test_a_key_that_cannot_be_is_refused(api: Api, body: dict[str, object]) -> None:
    assert api.ask("POST", "/keys", json=body).status_code == 400
    assert len(api.told("GET", "/keys")) == 1


def test_a_key_is_made_once_and_not_told_twice(api: Api) -> None:
    sent = {"json": {"name": "app"}, "headers": {"idempotency-key": "k"}}
    made = api.ask("POST", "/keys", **sent)
    again = api.ask("POST", "/keys", **sent)
    assert (made.status_code, again.status_code) == (201, 409)
    assert "secret" in again.json()["error"]["message"] and made.json()["key"] not in again.text
    assert len(api.told("GET", "/keys")) == 2
    assert made.json()["key"] not in str([record.body for record in api.plane.registry.records.list("idempotency")])


def test_only_an_admin_of_everything_makes_keys(api: Api) -> None:
    for key in (api.key("operator"), api.key("admin", models=("line",))):
        assert api.ask("POST", "/keys", json={"name": "more", "roles": ["admin"]}, key=key).status_code == 403
