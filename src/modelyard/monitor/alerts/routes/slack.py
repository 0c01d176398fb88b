"""Slack, by an incoming webhook, whose URL is its only credential and so never stands in the settings.

Hides Slack's message form: blocks of bounded length, in which `&`, `<` and `>` are escaped so that no evidence can mention or link.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from modelyard.monitor.alerts import text
from modelyard.monitor.alerts.base import Alert, Notification
from modelyard.monitor.alerts.post import post
from modelyard.monitor.alerts.routes.base import Written, beside, needed, read, secret

HEADER_CHARACTERS, SECTION_CHARACTERS = 150, 3000
MOST_BLOCKS = 50


class Said(Written, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the webhook's URL lies."""

    url_file: str = ""
    url_env: str = ""
    ca_file: str = ""


class Slack:
    """A channel of Slack (or of what reads its webhooks, such as Mattermost)."""

    kind = "slack"
    forgets = False

    def __init__(self, name: str, written: dict[str, Any], folder: Path) -> None:
        said = read(name, written, Said)
        self.name = name
        self.severities = said.severities
        self._url = needed(name, "url", secret(name, "url", said, folder))
        self._ca_file = beside(folder, said.ca_file)

    @property
    def target(self) -> str:
        """See `alerts.base.Route`."""
        return f"the URL {self._url.place}"

    def send(self, notification: Notification) -> str:
        """See `alerts.base.Route`."""
        answer = post(self._url.read(), msgspec.json.encode(message(notification)), headers={}, ca_file=self._ca_file)
        return f"it answered with status {answer.status}"


def message(notification: Notification) -> dict[str, Any]:
    """The message: `text` for the notification on a phone, `blocks` for the channel."""
    subject = text.subject(notification)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": text.line(subject, HEADER_CHARACTERS)}}]
    blocks += [_section(_firing(each)) for each in notification.firing[: text.MOST]]
    blocks += [_section(_over(each)) for each in notification.resolved[: text.MOST]]
    more = len(notification.alerts) - (len(blocks) - 1)
    if more > 0:
        blocks.append(_section(f"and {more} more: `modelyard alerts {notification.deployment}`"))
    if notification.kind == "test":
        blocks.append(_section("Somebody asked for this message to see whether alerts arrive. Nothing is wrong."))
    return {"text": escaped(subject), "blocks": blocks[:MOST_BLOCKS]}


def escaped(written: str) -> str:
    """`written` with nothing in it that Slack reads as a mention or link."""
    return written.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _firing(alert: Alert) -> str:
    lines = [f"*{escaped(text.line(alert.rule))}*", *(f"*{what}:* {escaped(how)}" for what, how in text.facts(alert))]
    return "\n".join(lines)


def _over(alert: Alert) -> str:
    return escaped(f"{text.line(alert.rule)} is over since {text.time(alert.resolved_at or 0.0)} UTC: {text.line(alert.ended)}")


def _section(markdown: str) -> dict[str, Any]:
    short = markdown if len(markdown) <= SECTION_CHARACTERS else markdown[: SECTION_CHARACTERS - 1] + "…"
    return {"type": "section", "text": {"type": "mrkdwn", "text": short}}
