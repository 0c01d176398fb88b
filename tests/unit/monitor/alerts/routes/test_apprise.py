"""Apprise: one of its own wires into a real receiver, and what its silence becomes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from receivers import notification, receiver

from modelyard.errors import InvalidConfig, Unavailable
from modelyard.monitor.alerts.routes.apprise import Apprise

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # apprise's own imports


def route(folder: Path, url: str) -> Apprise:
    (folder / "url").write_text(url)
    (folder / "url").chmod(0o600)
    return Apprise("phone", {"url_file": "url"}, folder)


@pytest.fixture(autouse=True)
def _needs_apprise(lacks: Callable[[str], NoReturn]) -> None:
    try:
        import apprise  # noqa: F401
    except ImportError:
        lacks("apprise")


@pytest.mark.parametrize(
    ("given", "kind"), [({}, "failure"), ({"severity": "report"}, "warning"), ({"firing": ()}, "success"), ({"kind": "test"}, "info")]
)
def test_apprise_hands_it_over(tmp_path: Path, given: dict[str, object], kind: str) -> None:
    with receiver() as server:
        assert route(tmp_path, f"json://127.0.0.1:{server.port}/hook").send(notification(**given)) == "the service took it"
        (asked,) = server.asked
    told = asked.json()
    assert (told["type"] == kind and "churn" in told["title"] + told["message"] and "what to do" in told["message"]) or not given.get("firing", True)


def test_a_service_that_fails_is_unavailable_and_a_url_that_is_none_the_settings(tmp_path: Path) -> None:
    with receiver() as server:
        server.answer = 500
        with pytest.raises(Unavailable):
            route(tmp_path, f"json://127.0.0.1:{server.port}/").send(notification())
    with pytest.raises(InvalidConfig, match="no service"):
        route(tmp_path, "pigeon://x").send(notification())


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(InvalidConfig, match=r"modelyard\[apprise\]"):
        route(tmp_path, "json://127.0.0.1/").send(notification())
