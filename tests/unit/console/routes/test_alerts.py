"""Alerts over HTTP: who sees what, who silences what, and that each of it is audited."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api import Api
from receivers import receiver, verdict

from modelyard import config
from modelyard.control.plane import ControlPlane
from modelyard.monitor.alerts import Rules, book
from modelyard.targets.base import Deployment


@pytest.fixture
def api() -> Api:
    made = Api(ControlPlane(config.load()))
    for name in ("churn", "fraud"):
        made.plane.deployments.put(Deployment(name=name, model=name, generation=1), expected=0)
    return made


def judge(api: Api, *names: str) -> None:
    """A turn that finds each of them drifting."""
    with api.plane.registry.records.transaction() as records:
        judged = {name: (verdict(),) for name in names}
        book.turn(records, judged, rules=Rules(pages=frozenset({"drift"})), routes=[*api.plane.alert_routes().values()], now=time.time())


def until(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


def audited(api: Api, action: str) -> list[tuple[str, str, str]]:
    found = [listed.entry for listed in api.plane.audit_list()]
    return [(entry.subject, entry.outcome, entry.detail) for entry in found if entry.action == action]


def test_everything_is_told_and_a_key_sees_its_own(api: Api) -> None:
    judge(api, "churn", "fraud")
    told = api.told("GET", "/alerts")
    assert [(each["deployment"], each["state"], each["severity"]) for each in told["alerts"]] == [
        ("churn", "firing", "page"),
        ("fraud", "firing", "page"),
    ]
    first = told["alerts"][0]
    assert first["verdict"]["numbers"] == {"value": 41.5, "threshold": 20.0} and first["advice"]
    assert told["routes"] == [] and told["silences"] == []
    mine = api.told("GET", "/alerts", key=api.key("viewer", models=("fraud",)))
    assert [each["deployment"] for each in mine["alerts"]] == ["fraud"]
    assert api.ask("GET", "/alerts", key=api.key("invoker")).status_code == 403


def test_a_silence_is_made_shown_ended_and_audited(api: Api) -> None:
    body = {"deployment": "churn", "rule": "drift", "until": until(hours=4), "why": "we know"}
    answer = api.ask("POST", "/silences", json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert made["matcher"] == {"deployment": "churn", "rule": "drift"} and made["why"] == "we know" and made["by"].startswith("key:")
    judge(api, "churn")
    told = api.told("GET", "/alerts")
    assert told["alerts"][0]["silenced_by"] == made["id"] and told["silences"][0]["id"] == made["id"]
    ended = api.told("DELETE", f"/silences/{made['id'][:6]}")
    assert ended["until"] <= time.time()
    assert audited(api, "silence") == [("deployment=churn rule=drift", "done", "we know")]
    assert audited(api, "unsilence") == [(made["id"], "done", "")]


@pytest.mark.parametrize(
    "body",
    [
        {"until": "2999-01-01T00:00:00Z", "why": "w"},
        {"rule": "drift", "why": "w"},
        {"rule": "drift", "until": "2999-01-01T00:00:00Z"},
        {"rule": "drift", "until": "2999-01-01T00:00:00Z", "why": ""},
        {"rule": "drift", "until": "2999-01-01T00:00:00", "why": "w"},
        {"rule": "drift", "until": "2001-01-01T00:00:00Z", "why": "w"},
        {"rule": "drift", "until": "2999-01-01T00:00:00Z", "why": "w", "severity": "loud"},
        {"rule": "drift", "until": "2999-01-01T00:00:00Z", "why": "w", "extra": 1},
        {"rule": "drft:age", "until": "2999-01-01T00:00:00Z", "why": "w"},
    ],
)
def test_a_silence_that_is_none_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert api.ask("POST", "/silences", json=body).status_code == 400
    assert api.told("GET", "/alerts")["silences"] == []


def test_a_silence_of_a_deployment_that_is_none_is_not_found(api: Api) -> None:
    assert api.ask("POST", "/silences", json={"deployment": "typo", "until": until(hours=1), "why": "w"}).status_code == 404
    assert api.ask("DELETE", "/silences/abc").status_code == 404


def test_a_key_for_some_models_silences_those_alone(api: Api) -> None:
    mine = api.key("operator", models=("fraud",))
    assert api.ask("POST", "/silences", key=mine, json={"deployment": "fraud", "until": until(hours=1), "why": "w"}).status_code == 201
    assert api.ask("POST", "/silences", key=mine, json={"deployment": "churn", "until": until(hours=1), "why": "w"}).status_code == 403
    assert api.ask("POST", "/silences", key=mine, json={"rule": "drift", "until": until(hours=1), "why": "w"}).status_code == 403
    of_all = api.ask("POST", "/silences", json={"rule": "drift", "until": until(hours=1), "why": "w"}).json()["id"]
    assert api.ask("DELETE", f"/silences/{of_all}", key=mine).status_code == 403
    assert audited(api, "unsilence") == [(of_all, "denied", "grant")]
    (own,) = [each for each in api.told("GET", "/alerts", key=mine)["silences"] if each["matcher"].get("deployment") == "fraud"]
    assert api.ask("DELETE", f"/silences/{own['id']}", key=mine).status_code == 200
    for role in ("viewer", "developer", "auditor"):
        assert api.ask("POST", "/silences", key=api.key(role), json={"rule": "drift", "until": until(hours=1), "why": "w"}).status_code == 403


def test_one_silence_for_each_idempotency_key(api: Api) -> None:
    sent: dict[str, Any] = {"json": {"rule": "drift", "until": until(hours=1), "why": "w"}, "headers": {"idempotency-key": "k"}}
    first, again = api.ask("POST", "/silences", **sent), api.ask("POST", "/silences", **sent)
    assert first.json() == again.json() and len(api.told("GET", "/alerts")["silences"]) == 1
    (kept,) = api.plane.once.list("idempotency")
    assert kept.body["effect"]["kind"] == "silence", "written with it: no crash parts the two"
    ended = [api.ask("DELETE", f"/silences/{first.json()['id']}", headers={"idempotency-key": "e"}).json() for _ in range(2)]
    assert ended[0] == ended[1]


def test_a_route_is_tested_and_what_came_back_told(api: Api) -> None:
    with receiver() as server:
        api.plane.settings.alert_routes.write_text(f'[routes.oncall]\nkind = "webhook"\nurl = "{server.url}"')
        assert api.told("POST", "/alerts/routes/oncall/test") == {
            "route": "oncall",
            "is_delivered": True,
            "said": "it answered with status 200",
        }
        assert server.asked[0].json()["kind"] == "test"
        server.answer = 503
        told = api.told("POST", "/alerts/routes/oncall/test")
        assert not told["is_delivered"] and "503" in told["said"]
    assert api.ask("POST", "/alerts/routes/nobody/test").status_code == 404
    assert [each[0] for each in audited(api, "alerts-test")] == ["oncall", "oncall", "nobody", "nobody"]
    assert api.ask("POST", "/alerts/routes/oncall/test", key=api.key("developer")).status_code == 403
    assert api.ask("POST", "/alerts/routes/oncall/test", key=api.key("operator", models=("churn",))).status_code == 403


def test_a_file_of_routes_that_cannot_be_used_is_said_to_be_so(api: Api) -> None:
    api.plane.settings.alert_routes.write_text('[routes.oncall]\nkind = "pigeon"')
    assert "kind is one of" in api.told("GET", "/alerts")["trouble"]


def test_metrics_are_prometheus_text_for_who_may_see_all(api: Api) -> None:
    judge(api, "churn")
    answer = api.ask("GET", "/metrics", key=api.key("viewer"))
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'modelyard_alerts{deployment="churn",severity="page",state="firing"} 1' in answer.text
    assert api.ask("GET", "/metrics", key=None).status_code == 401
    assert api.ask("GET", "/metrics", key=api.key("viewer", models=("churn",))).status_code == 403
