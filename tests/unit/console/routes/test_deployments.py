"""Deployments over HTTP: the verbs, the generation that a caller has seen, and one effect per idempotency key."""

from __future__ import annotations

from typing import Any

import pytest
from api import Api

from modelyard import config
from modelyard.control import once
from modelyard.control.plane import ControlPlane
from modelyard.errors import Unavailable


@pytest.fixture
def api() -> Api:
    api = Api(ControlPlane(config.load()))
    api.home.add("line")
    api.home.add("line", offset=1.0)
    return api


def deploy(api: Api, reference: str = "line:1", **options: Any) -> Any:
    body = {"reference": reference, **options.pop("body", {})}
    return api.ask("POST", "/deployments/line", json=body, **options)


def settle(api: Api) -> None:
    """Let the rollout under way be over, as the driver would write it."""
    import msgspec

    found = api.plane.deployments.get("line")
    rollout = found.deployment.rollout
    assert rollout is not None
    before = (*found.deployment.previous, *((found.deployment.current,) if found.deployment.current else ()))
    after = msgspec.structs.replace(found.deployment, current=rollout.goal, generation=rollout.generation, rollout=None, previous=before)
    api.plane.deployments.put(after, expected=found.revision)


def test_a_deployment_is_begun_seen_and_ended(api: Api) -> None:
    begun = deploy(api)
    assert begun.status_code == 202 and begun.json()["rollout"]["goal"]["version"] == 1 and api.changes == 1
    found = api.ask("GET", "/deployments/line")
    assert found.json() == begun.json() and found.headers["etag"] == '"1"'
    assert api.told("GET", "/deployments") == [begun.json()]
    assert deploy(api).status_code == 202  # the same again is under way
    settle(api)
    assert deploy(api).status_code == 200
    assert api.told("DELETE", "/deployments/line")["name"] == "line"
    assert api.ask("GET", "/deployments/line").status_code == 404 and api.told("GET", "/deployments") == []


def test_who_has_seen_an_older_generation_loses_and_is_told_the_current_state(api: Api) -> None:
    assert deploy(api, body={"expected_generation": 1}).status_code == 409
    assert deploy(api, body={"expected_generation": 0}).status_code == 202
    settle(api)
    for lost in (
        deploy(api, "line:2", body={"expected_generation": 0}),
        deploy(api, "line:2", headers={"if-match": '"0"'}),
        api.ask("DELETE", "/deployments/line", headers={"if-match": '"7"'}),
        api.ask("POST", "/deployments/line/rollback", json={"expected_generation": 0}),
    ):
        error = lost.json()["error"]
        assert lost.status_code == 409 and error["rule"] == "generation"
        assert error["current"] == api.told("GET", "/deployments/line")
    assert deploy(api, "line:2", body={"expected_generation": 0}, headers={"if-match": '"1"'}).json()["error"]["rule"] == "unique"
    assert deploy(api, "line:2", headers={"if-match": "1"}).status_code == 400
    assert deploy(api, "line:2", headers={"if-match": '"1"'}).status_code == 202
    busy = deploy(api, "line:1", headers={"if-match": '"1"'})
    assert busy.status_code == 409 and busy.json()["error"]["current"]["rollout"]["goal"]["version"] == 2


def test_a_repeated_request_is_one_effect_with_one_answer(api: Api) -> None:
    sent = {"headers": {"idempotency-key": "first"}}
    begun = deploy(api, **sent)
    settle(api)
    again = deploy(api, **sent)
    assert (again.status_code, again.json()) == (begun.status_code, begun.json())
    assert deploy(api, "line:2", **sent).json()["error"]["rule"] == "idempotency"
    assert api.ask("DELETE", "/deployments/line", **sent).json()["error"]["rule"] == "idempotency"
    gone = api.ask("DELETE", "/deployments/line", headers={"idempotency-key": "second"})
    assert api.ask("DELETE", "/deployments/line", headers={"idempotency-key": "second"}).json() == gone.json()
    assert api.ask("DELETE", "/deployments/line", headers={"idempotency-key": "third"}).status_code == 404
    # A replay of the first does not bring it back.
    assert deploy(api, **sent).json() == begun.json() and api.told("GET", "/deployments") == []


def test_another_callers_key_is_another_key(api: Api) -> None:
    sent = {"headers": {"idempotency-key": "first"}}
    assert deploy(api, **sent).status_code == 202
    settle(api)
    assert deploy(api, "line:2", key=api.key("operator"), **sent).status_code == 202


def test_work_found_done_is_remembered_too(api: Api) -> None:
    deploy(api)
    settle(api)
    sent = {"headers": {"idempotency-key": "late"}}
    assert deploy(api, **sent).status_code == 200
    assert deploy(api, "line:2").status_code == 202
    settle(api)
    assert deploy(api, **sent).json()["current"]["version"] == 1
    assert api.told("GET", "/deployments/line")["current"]["version"] == 2


def test_a_crash_between_effect_and_answer_is_one_effect(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = api.plane.deploy

    def crash(*arguments: Any, **options: Any) -> Any:
        whole(*arguments, **options)
        raise MemoryError("killed")

    monkeypatch.setattr(api.plane, "deploy", crash)
    sent = {"headers": {"idempotency-key": "k"}}
    assert deploy(api, **sent).status_code == 500
    monkeypatch.undo()
    settle(api)
    again = deploy(api, **sent)
    assert again.status_code == 202 and again.json()["rollout"]["generation"] == 1
    assert api.told("GET", "/deployments/line")["generation"] == 1


def test_without_the_key_in_the_transaction_a_crash_would_be_two_effects(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the crash of the test before, with the mark taken out."""
    monkeypatch.setattr(once, "EFFECTS", frozenset())
    test_a_refusal_has_no_effect_and_is_not_remembered(api)
    whole = api.plane.deploy
    monkeypatch.setattr(api.plane, "deploy", lambda *a, **o: (whole(*a, **o), 1 / 0))
    sent = {"headers": {"idempotency-key": "k"}}
    assert deploy(api, **sent).status_code == 500
    monkeypatch.setattr(api.plane, "deploy", whole)
    settle(api)
    assert deploy(api, **sent).status_code == 200  # asked anew


def test_a_refusal_has_no_effect_and_is_not_remembered(api: Api) -> None:
    sent = {"headers": {"idempotency-key": "early"}}
    assert api.ask("POST", "/deployments/line/rollback", **sent).status_code == 404
    assert api.plane.registry.records.list("idempotency") == ()


def test_a_store_that_is_away_says_when_to_ask_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("registry.sqlite is locked")

    monkeypatch.setattr(api.plane.deployments, "get", away)
    answer = api.ask("GET", "/deployments/line")
    assert answer.status_code == 503 and 0 < int(answer.headers["retry-after"]) <= 5


def test_a_key_for_some_models_deploys_those_alone(api: Api) -> None:
    api.home.add("shop")
    mine = api.key("operator", models=("line",))
    assert deploy(api, key=mine).status_code == 202
    assert api.ask("POST", "/deployments/shop", json={"reference": "shop"}, key=mine).status_code == 403
    smuggled = api.ask("POST", "/deployments/line", json={"reference": "shop:1"}, key=mine)
    assert smuggled.status_code == 403 and smuggled.json()["error"]["rule"] == "grant"
    api.app.denials.flush()
    denied = [entry.detail for entry in api.plane.audit.entries() if entry.outcome == "denied"]
    assert sum(1 if detail == "grant" else int(detail.split()[0]) for detail in denied) == 2
    assert api.told("GET", "/deployments", key=api.key("viewer", models=("shop",))) == []


def test_a_rollout_is_paused_resumed_and_aborted_with_a_reason_and_history_tells_it(api: Api) -> None:
    deploy(api)
    settle(api)
    deploy(api, "line:2")
    paused = api.told("POST", "/deployments/line/pause", json={"why": "lunch"})
    assert paused["rollout"]["pause"]["why"] == "lunch"
    assert "pause" not in api.told("POST", "/deployments/line/resume")["rollout"]
    assert api.ask("POST", "/deployments/line/approve").status_code == 409
    assert "rollout" not in api.told("POST", "/deployments/line/abort", json={"why": "enough"})
    told = api.told("GET", "/deployments/line/history")
    assert [event["what"] for event in told][-3:] == ["pause", "resume", "abort"] and told[-1]["by"] == "key:admin"
    assert [event["what"] for event in api.told("GET", "/deployments/line/history?limit=1")] == ["abort"]
    assert api.ask("POST", "/deployments/line/promote").status_code == 409
    assert api.ask("POST", "/deployments/line/resume", json={"why": "no"}).status_code == 400
