"""The webhook, against a real receiver that checks the signature as docs/alerts.md says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from receivers import alert, notification, receiver, verdict

from modelyard.monitor.alerts.routes.webhook import Webhook, body, signature


def private(path: Path, content: str) -> str:
    path.write_text(content)
    path.chmod(0o600)
    return path.name


ROOT = Path(__file__).parents[5]
(SAID,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/alerts.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
_told: dict[str, Any] = {}
exec(SAID, _told)
is_ours = _told["is_ours"]
"""As docs/alerts.md tells a receiver to check it."""


def test_a_receiver_has_everything_and_knows_who_sent_it(tmp_path: Path) -> None:
    written: dict[str, Any] = {"secret_file": private(tmp_path / "s", "hush"), "token_file": private(tmp_path / "t", "my-token")}
    with receiver() as server:
        route = Webhook("oncall", written | {"url": f"{server.url}/hook"}, tmp_path)
        assert route.send(notification()) == "it answered with status 200"
        route.send(notification())
        (asked, again) = server.asked
    assert is_ours("hush", asked.headers["x-modelyard-signature"], asked.body)
    assert not is_ours("hush", asked.headers["x-modelyard-signature"], asked.body + b" ") and not is_ours(
        "guess", asked.headers["x-modelyard-signature"], asked.body
    )
    assert asked.headers["authorization"] == "Bearer my-token"
    assert asked.headers["x-modelyard-delivery"] == again.headers["x-modelyard-delivery"]
    told = asked.json()
    assert (told["status"], told["deployment"], told["severity"], told["kind"], told["format"]) == ("firing", "churn", "page", "new", 1)
    first, second = told["alerts"]
    assert first["value"] == 41.5 and first["threshold"] == 20.0 and first["columns"] == ["age"] and first["harm"] == 0.03
    assert first["window"] == ["2027-01-15T07:00:00.000Z", "2027-01-15T08:00:00.000Z"]
    assert first["cause"] == "population shift" and first["advice"] and first["why"] and first["evidence"]
    assert second["status"] == "resolved" and second["resolved_at"] == "2027-01-15T08:00:00.000Z" and second["ended"] == "it passes again"


def test_a_url_that_is_a_secret_lies_elsewhere(tmp_path: Path) -> None:
    with receiver() as server:
        route = Webhook("a", {"url_file": private(tmp_path / "u", f"{server.url}/SECRET\n")}, tmp_path)
        route.send(notification())
        assert server.asked[0].path == "/SECRET" and "x-modelyard-signature" not in server.asked[0].headers
    assert "SECRET" not in route.target


def test_what_is_not_known_is_null() -> None:
    bare = body(notification(firing=(alert(verdict=verdict(numbers={}, window=None, harm=None), cause="", why=""),), resolved=()))["alerts"][0]
    assert bare["value"] is bare["threshold"] is bare["window"] is bare["harm"] is bare["cause"] is bare["why"] is None
    assert body(notification(firing=()))["status"] == "resolved"


def test_the_signature_is_of_time_and_body() -> None:
    assert signature("s", b"x", at=1) != signature("s", b"x", at=2)
    assert is_ours("s", signature("s", b"x", at=1), b"x")
