"""Status, the data plane's address and settings over HTTP."""

from __future__ import annotations

import pytest
from api import WORLD, Api

from modelyard import config
from modelyard.control.plane import ControlPlane
from modelyard.control.status import DeploymentStatus
from modelyard.targets.base import Deployment


@pytest.fixture
def api() -> Api:
    return Api(ControlPlane(config.load()))


def test_a_key_for_some_models_sees_their_part_of_the_status(api: Api) -> None:
    import msgspec

    every = tuple(DeploymentStatus(deployment=Deployment(name=name, model=name, generation=1), serving=()) for name in ("line", "shop"))
    api.app = api.build(lambda: msgspec.structs.replace(WORLD, deployments=every))
    assert len(api.told("GET", "/status")["deployments"]) == 2
    (mine,) = api.told("GET", "/status", key=api.key("viewer", models=("shop",)))["deployments"]
    assert mine["deployment"]["name"] == "shop"


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
