"""A deployment's watch over HTTP: what is told, and settings on the revision that their caller has seen."""

from __future__ import annotations

import pytest
from api import Api
from watching import deployed

from modelyard import config
from modelyard.control.plane import ControlPlane


@pytest.fixture
def api() -> Api:
    api = Api(ControlPlane(config.load()))
    api.home.add("line")
    deployed(api.plane, "line:1")
    return api


def test_a_watch_is_told(api: Api) -> None:
    found = api.told("GET", "/deployments/line/monitor?since=2030-01-01T00:00:00Z")
    assert found["name"] == "line" and found["budget"] == {"false_pages_a_month": 1.0, "spent": 0.0, "left": 1.0, "chance": 1.0}
    assert api.ask("GET", "/deployments/line/monitor?since=soon").status_code == 400
    assert api.ask("GET", "/deployments/nobody/monitor").status_code == 404


def test_a_watch_that_is_older_than_it_looks_says_so(api: Api) -> None:
    why = "no space left for monitor.sqlite"
    api.app = api.build(failing=lambda: {"intake": why, "uses of keys": "a disk"})
    assert api.told("GET", "/deployments/line/monitor")["trouble"] == [f"what is observed is not taken in now: {why}"]
    told = api.ask("GET", "/deployments/line/monitor", key=api.key("viewer", models=("line",))).json()["trouble"]
    assert told == ["what is observed is not taken in now: the log of the control process says why"], "why may be about another's model"
    api.app = api.build()
    assert "trouble" not in api.told("GET", "/deployments/line/monitor")


def test_settings_are_set_seen_and_lost_by_who_saw_older_ones(api: Api) -> None:
    path = "/deployments/line/monitor/settings"
    assert api.told("GET", path) == {"settings": {}, "revision": 0, "by": "", "at": ""}
    said = {"settings": {"ignore": ["a"], "drift": {"smallest_shift": 0.2}}, "expected_revision": 0}
    first = api.told("PUT", path, json=said)
    assert first["settings"] == said["settings"] and first["by"].startswith("key:") and api.told("GET", path) == first
    lost = api.ask("PUT", path, json=said)
    assert lost.status_code == 409 and lost.json()["error"]["current"] == first
    assert api.told("PUT", path, json={"settings": {}, "expected_revision": first["revision"]})["settings"] == {}


def test_one_effect_per_idempotency_key(api: Api) -> None:
    path = "/deployments/line/monitor/settings"
    said = {"settings": {"ignore": ["a"]}, "expected_revision": 0}
    first, again = (api.told("PUT", path, json=said, headers={"idempotency-key": "k"}) for _ in range(2))
    assert first == again
    api.told("PUT", path, json={"settings": {}})
    assert api.told("PUT", path, json=said, headers={"idempotency-key": "k"})["settings"] == first["settings"]
    assert api.told("GET", path)["settings"] == {}, "a repetition changes nothing"


@pytest.mark.parametrize(
    "settings",
    [{"ignore": ["town"]}, {"alarm": 1}, {"drift": {"smallest_shift": -1}}, {"false_pages_a_month": 0}, {"bounds": {"auc": {"least": 0.5}}}],
)
def test_what_cannot_be_honoured_is_refused(api: Api, settings: dict[str, object]) -> None:
    answer = api.ask("PUT", "/deployments/line/monitor/settings", json={"settings": settings})
    assert answer.status_code == 400, answer.text
    assert api.told("GET", "/deployments/line/monitor/settings")["revision"] == 0


def test_who_may_see_may_not_set(api: Api) -> None:
    viewer, other = api.key("viewer"), api.key("operator", models=("other",))
    assert api.ask("GET", "/deployments/line/monitor", key=viewer).status_code == 200
    assert api.ask("PUT", "/deployments/line/monitor/settings", key=viewer, json={"settings": {}}).status_code == 403
    assert api.ask("PUT", "/deployments/line/monitor/settings", key=other, json={"settings": {}}).status_code == 403
