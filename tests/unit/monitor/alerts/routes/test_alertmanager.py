"""Alertmanager: the mapping, and a real one of the distribution that groups, holds, resolves and hands on."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from receivers import NOW, Receiver, alert, notification, over, receiver, verdict, wait_for
from world import free_ports

from modelyard.monitor.alerts import book
from modelyard.monitor.alerts.routes.alertmanager import LIVES_S, Alertmanager, alerts


def test_what_makes_it_an_alert_never_changes_while_it_lives() -> None:
    (first, _) = alerts(notification(), labels={"team": "risk"}, now=NOW)
    later = alert(verdict=verdict(columns=("income", "age"), evidence="more", numbers={"value": 99.0}), why="another")
    (second,) = alerts(notification(firing=(later,), resolved=()), labels={"team": "risk"}, now=NOW + 60)
    (end,) = alerts(notification(firing=(), resolved=(over(id="a1", rule="drift:age"),)), labels={"team": "risk"}, now=NOW + 60)
    assert first["labels"] == second["labels"] == end["labels"]
    assert first["labels"] == {
        "team": "risk", "alertname": "drift:age", "detector": "drift", "deployment": "churn", "severity": "page", "alert_id": "a1",
    }  # fmt: skip
    assert first["annotations"] != second["annotations"]
    for name, value in {
        "value": "41.5 (evidence, powers of ten)",
        "threshold": "20 (evidence, powers of ten)",
        "columns": "age",
        "estimated_harm": "3 % (points of accuracy, or errors larger by that share)",
        "what_to_do": "Look at how age moved.",
    }.items():
        assert first["annotations"][name] == value


def test_each_message_carries_its_own_end() -> None:
    firing, resolved = alerts(notification(), labels={}, now=NOW)
    assert firing["startsAt"] == "2027-01-15T07:55:00.000Z" and firing["endsAt"] == "2027-01-15T08:15:00.000Z"
    assert resolved["endsAt"] == "2027-01-15T08:00:00.000Z" and resolved["startsAt"] < resolved["endsAt"]
    assert LIVES_S >= 3 * book.ALIVE_S


def test_an_alert_never_ends_before_it_begins() -> None:
    """Alertmanager would refuse it: a clock that was put back is no reason to tell nobody."""
    for each in alerts(notification(), labels={}, now=NOW - 86_400):
        assert each["startsAt"] <= each["endsAt"]


class Running:
    """A real Alertmanager that hands everything on to a webhook."""

    def __init__(self, binary: str, folder: Path, receiver: Receiver) -> None:
        config = folder / "alertmanager.yml"
        config.write_text(
            "route:\n  receiver: all\n  group_by: [deployment]\n  group_wait: 0s\n  group_interval: 1s\n  repeat_interval: 1h\n"
            f"receivers:\n- name: all\n  webhook_configs:\n  - url: {receiver.url}/\n    send_resolved: true\n"
        )
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        arguments = [f"--config.file={config}", f"--storage.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen([binary, *arguments, "--cluster.listen-address="], stdout=self._log, stderr=subprocess.STDOUT)
        wait_for(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def alerts(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self._log.close()


@pytest.fixture
def handed_on() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def manager(component: Callable[[str], str], tmp_path: Path, handed_on: Receiver) -> Iterator[Running]:
    running = Running(component("prometheus-alertmanager"), tmp_path, handed_on)
    yield running
    running.close()


@pytest.mark.system
def test_a_real_alertmanager_takes_it_holds_it_and_hands_its_end_on(manager: Running, handed_on: Receiver, tmp_path: Path) -> None:
    route = Alertmanager("am", {"url": manager.url, "labels": {"team": "risk"}}, tmp_path)
    now = time.time()
    firing = alert(since=now - 60, fired_at=now - 30)
    assert route.send(notification(firing=(firing,), resolved=(), at=now)) == "it answered with status 200"
    (held,) = manager.alerts()
    assert held["labels"]["alertname"] == "drift:age" and held["labels"]["team"] == "risk" and held["status"]["state"] in ("active", "unprocessed")
    assert held["annotations"]["what_to_do"] == "Look at how age moved."
    told = wait_for(lambda: handed_on.asked and handed_on.asked[0].json())
    assert told["status"] == "firing" and told["alerts"][0]["labels"]["deployment"] == "churn"
    before = held["endsAt"]
    route.send(notification(kind="alive", firing=(firing,), resolved=(), at=now + 2))
    (again,) = wait_for(lambda: [each for each in manager.alerts() if each["endsAt"] > before])
    assert again["fingerprint"] == held["fingerprint"], "one alert, kept alive"
    end = over(id=firing.id, rule=firing.rule, since=firing.since, fired_at=firing.fired_at, resolved_at=time.time())
    route.send(notification(kind="resolved", firing=(), resolved=(end,), at=time.time()))
    wait_for(lambda: any(each.json()["status"] == "resolved" for each in handed_on.asked))
    assert manager.alerts() == []


@pytest.mark.system
def test_a_real_alertmanager_takes_a_test_message_and_any_text(manager: Running, tmp_path: Path) -> None:
    route = Alertmanager("am", {"url": manager.url}, tmp_path)
    route.send(notification(kind="test", deployment="", firing=(), resolved=()))
    strange = alert(rule='drift:"é"\n{x}', verdict=verdict(evidence="\u202e\x00<b>", columns=("a,b", "")), since=time.time())
    route.send(notification(firing=(strange,), resolved=()))
    assert {each["labels"]["alertname"] for each in manager.alerts()} == {"modelyard_test", 'drift:"é"\n{x}'}
