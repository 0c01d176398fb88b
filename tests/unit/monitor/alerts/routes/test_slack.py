"""Slack's form, and that nothing of the data mentions, links or bursts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from receivers import alert, notification, over, receiver, verdict

from modelyard.errors import InvalidConfig
from modelyard.monitor.alerts import text
from modelyard.monitor.alerts.routes.slack import HEADER_CHARACTERS, MOST_BLOCKS, SECTION_CHARACTERS, Slack, message


def test_it_is_sent_to_the_url_in_the_file(tmp_path: Path) -> None:
    with receiver() as server:
        (tmp_path / "slack.url").write_text(f"{server.url}/services/T0/B0/XXX\n")
        (tmp_path / "slack.url").chmod(0o600)
        route = Slack("team", {"url_file": "slack.url"}, tmp_path)
        route.send(notification())
        (asked,) = server.asked
        assert asked.path == "/services/T0/B0/XXX" and "XXX" not in route.target
        told = asked.json()
        server.answer = 404
        with pytest.raises(InvalidConfig):
            route.send(notification())
    assert told["text"] == "[page] churn: drift:age"
    header, first, second = told["blocks"]
    assert header["type"] == "header" and header["text"]["text"] == told["text"]
    for part in ("*value:* 41.5", "*threshold:* 20", "*columns:* age", "*estimated harm:* 3 %", "*what to do:*", "*cause:* population shift"):
        assert part in first["text"]["text"]
    assert "is over since" in second["text"]["text"]


def test_nothing_of_the_data_mentions_anybody() -> None:
    said = message(notification(firing=(alert(verdict=verdict(evidence="<!channel> & <https://x|y>")),)))
    assert "<!channel>" not in str(said) and "&lt;!channel&gt; &amp;" in str(said)


def test_it_keeps_to_the_bounds_of_slack() -> None:
    many = notification(
        firing=tuple(alert(id=str(at), rule="drift:" + "x" * 400, verdict=verdict(evidence="&" * 500, columns=("y" * 500,))) for at in range(60)),
        resolved=tuple(over(id=f"r{at}") for at in range(60)),
    )
    said = message(many)
    assert len(said["blocks"]) <= MOST_BLOCKS and f"and {120 - 2 * text.MOST} more" in str(said)
    assert len(said["blocks"][0]["text"]["text"]) <= HEADER_CHARACTERS
    assert all(len(each["text"]["text"]) <= SECTION_CHARACTERS for each in said["blocks"])


def test_a_test_message_says_that_it_is_one() -> None:
    assert "Nothing is wrong" in str(message(notification(kind="test", deployment="", firing=(), resolved=())))
