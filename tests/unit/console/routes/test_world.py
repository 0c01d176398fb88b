"""Status, the data plane's address and settings over HTTP."""

from __future__ import annotations

import pytest
from api import WORLD, Api

from modelyard import config
from modelyard.control.plane import ControlPlane
from modelyard.control.status import DeploymentStatus, HostStatus
from modelyard.health import Health, Trouble
from modelyard.targets.base import Deployment


@pytest.fixture
def api() -> Api:
    return Api(ControlPlane(config.load()))


def test_a_key_for_some_models_sees_their_part_of_the_status(api: Api) -> None:
    import msgspec

    every = tuple(DeploymentStatus(deployment=Deployment(name=name, model=name, generation=1), serving=()) for name in ("line", "shop"))
    host = HostStatus(id="a", is_live=True, counts=True, workers=1, lagging=("line", "shop"), trouble={"line": "secret", "shop": "late"})
    health = Health(is_ready=True, troubles=tuple(Trouble(reason="not_answered", model=name, evidence=name) for name in ("line", "shop")))
    api.app = api.build(lambda: msgspec.structs.replace(WORLD, deployments=every, hosts=(host,), health=health, failing={"monitor": "of line"}))
    assert len(api.told("GET", "/status")["deployments"]) == 2 and api.told("GET", "/status")["hosts"][0]["lagging"] == ["line", "shop"]
    told = api.ask("GET", "/status", key=api.key("viewer", models=("shop",)))
    (mine,), (there,) = told.json()["deployments"], told.json()["hosts"]
    assert mine["deployment"]["name"] == "shop" and there["lagging"] == ["shop"] and there["trouble"] == {"shop": "late"}
    assert api.told("GET", "/status")["failing"] == {"monitor": "of line"}
    assert told.json()["failing"] == {"monitor": "the log of the control process says why"}
    assert "line" not in told.text and [trouble["model"] for trouble in told.json()["health"]["troubles"]] == ["shop"]


def test_where_predictions_are_asked_is_told_to_who_may_ask(api: Api) -> None:
    answer = api.ask("GET", "/data-plane", key=api.key("invoker"))
    assert answer.status_code == 503 and "modelyard up" in answer.json()["error"]["message"]


def test_settings_are_told_without_a_password(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_TRACE_ENDPOINT", "http://me:secret@traces:4318")
    api = Api(ControlPlane(config.load()))
    told = api.told("GET", "/config")
    assert told["port"] == {"value": 8080, "source": "default"}
    monkeypatch.setenv("MODELYARD_TRACE_ENDPOINT", "http://traces:4318?user=me&password=secret")
    assert "secret" not in Api(ControlPlane(config.load())).ask("GET", "/config").text
    assert told["trace_endpoint"] == {"value": "http://me:***@traces:4318", "source": "environment"}
