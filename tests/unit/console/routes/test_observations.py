"""Observations over HTTP: who may send them, of what, and what is refused; what is sent twice counts once."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from api import Api

from modelyard import config, events
from modelyard.control.plane import ControlPlane
from modelyard.errors import Forbidden
from modelyard.events import SENT_LIMIT_BYTES, Part, Segment
from modelyard.monitor.intake import Intake
from modelyard.types import Digest, Principal

DIGEST = Digest("sha256:" + "0" * 64)
BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture
def api() -> Api:
    return Api(ControlPlane(config.load()))


def segment(*names: str, requests: int = 3) -> Segment:
    parts = tuple(Part(name=name, version=1, digest=DIGEST, requests=requests) for name in names)
    return Segment(slot=0, pid=1, started_at=time.time() - 1, ended_at=time.time(), parts=parts)


def send(api: Api, made: Segment | bytes, *, name: str = "pod.a-1", **options: Any) -> Any:
    content = made if isinstance(made, bytes) else events.encode(made)
    return api.ask("POST", f"/observations?name={name}", content=content, headers=BYTES | options.pop("headers", {}), **options)


def requests(api: Api, name: str) -> int:
    taker = Intake(api.plane.settings)
    taker.drain()
    found = sum(window.requests for window in taker.windows.seen(name, since=0).values())
    taker.close()
    return found


def test_what_is_sent_twice_counts_once(api: Api) -> None:
    key = api.key("exporter")
    for _ in range(2):
        assert send(api, segment("m"), key=key).json() == {"name": "pod.a-1", "requests": 3}
    assert requests(api, "m") == 3
    assert send(api, segment("m"), key=key).status_code == 200 and requests(api, "m") == 3
    assert send(api, segment("m"), key=key, name="pod.a-2").status_code == 200 and requests(api, "m") == 6


def test_the_role_may_do_this_and_nothing_else(api: Api) -> None:
    key = api.key("exporter")
    assert send(api, segment("m"), key=key).status_code == 200
    for path in ("/status", "/deployments", "/data-plane", "/keys"):
        assert api.ask("GET", path, key=key).status_code == 403
    for role in ("viewer", "invoker", "developer", "approver", "auditor"):
        assert send(api, segment("m"), key=api.key(role)).status_code == 403
    assert send(api, segment("m"), key=None).status_code == 401


def test_a_key_for_some_models_speaks_of_those_alone_and_a_denial_is_audited(api: Api) -> None:
    key = api.key("exporter", models=("m",))
    assert send(api, segment("m"), key=key).status_code == 200
    assert send(api, segment("m", "other"), key=key, name="pod.a-2").status_code == 403
    assert requests(api, "m") == 3 and requests(api, "other") == 0, "nothing of it was kept"
    assert "denied" in [entry.entry.outcome for entry in api.plane.audit_list()]
    with pytest.raises(Forbidden):
        api.plane.observe(Principal("key:x", ("exporter",), ("m",)), "pod.a-3", events.encode(segment("other")))


@pytest.mark.parametrize(
    ("content", "name", "headers", "status"),
    [
        (b"no", "pod.a-1", {}, 400),
        (b"", "pod.a-1", {}, 400),
        (events.encode(segment("m"))[:-1], "pod.a-1", {}, 400),
        (events.encode(segment("../../m")), "pod.a-1", {}, 400),
        (events.encode(segment("m", requests=-1)), "pod.a-1", {}, 400),
        (events.encode(segment("m")), "..%2F..%2Fa-1", {}, 400),
        (events.encode(segment("m")), "", {}, 400),
        (events.encode(segment("m")), "pod.a-1&more=1", {}, 400),
        (events.encode(segment("m")), "pod.a-1", {"content-type": "application/json"}, 415),
        (b"x" * (SENT_LIMIT_BYTES + 1), "pod.a-1", {}, 413),
    ],
)
def test_anything_else_is_refused_and_leaves_nothing(api: Api, content: bytes, name: str, headers: dict[str, str], status: int) -> None:
    assert send(api, content, name=name, headers=headers).status_code == status
    assert not list(api.plane.settings.spool.rglob("*.segment"))


def test_while_too_much_waits_the_sender_is_told_when_to_come_again() -> None:
    api = Api(ControlPlane(msgspec.structs.replace(config.load(), spool_limit_bytes=10)))
    answer = send(api, segment("m"))
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0


def test_the_document_says_that_the_body_is_bytes(api: Api) -> None:
    told = api.told("GET", "/openapi.json")["paths"]["/api/v1/observations"]["post"]
    assert list(told["requestBody"]["content"]) == ["application/octet-stream"] and "exporter" in told["description"]
