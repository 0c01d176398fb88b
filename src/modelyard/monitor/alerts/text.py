"""What a notification says to people: a line, a plain text, and the same as HTML.

Hides the wording and how numbers and times are written. Everything that came from data (columns, evidence, causes) is one line of bounded length
without control characters, and escaped where it becomes markup. Pure.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from modelyard.monitor.alerts.advice import named
from modelyard.monitor.alerts.base import TEXT_CHARACTERS, Alert, Notification, detector_of
from modelyard.types import Verdict

MOST = 20
"""How many alerts a message tells in full; the rest it counts."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


_VALUES = ("value", "evidence", "effect", "share", "difference")
_UNITS = {
    "drift": "evidence, powers of ten",
    "concept": "evidence, powers of ten",
    "performance": "evidence, powers of ten",
    "quality": "evidence, powers of ten",
    "operations": "how rare, powers of ten",
    "slo": "times what is allowed",
    "shift": "population stability index",
}
"""What a `value` of a detector, and its threshold, are."""
_HARM = "points of accuracy, or errors larger by that share"
_THRESHOLDS = ("threshold", "bound")
"""What detectors call the number that they judge, and that which it must not pass; the first that is there."""


def judged(verdict: Verdict) -> tuple[str | None, str | None]:
    """The names, among a verdict's numbers, of the value that was judged and of its threshold; None where there is none."""
    value = next((name for name in _VALUES if name in verdict.numbers), None)
    return value, next((name for name in _THRESHOLDS if name in verdict.numbers), None)


def line(text: str, most: int = TEXT_CHARACTERS) -> str:
    """`text` as one line of at most `most` characters, with nothing in it that is an order to whoever shows it."""
    clean = _CONTROL.sub(" ", text).strip()
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def subject(notification: Notification) -> str:
    """One line: how grave, which deployment, what."""
    if notification.kind == "test":
        return "[test] modelyard can reach you here"
    what = notification.firing or notification.resolved
    first = line(what[0].rule, 80) if what else "nothing"
    more = f" and {len(what) - 1} more" if len(what) > 1 else ""
    if not notification.firing:
        return f"[resolved] {notification.deployment}: {first}{more}"
    again = " (still)" if notification.kind == "repeat" else ""
    return f"[{notification.severity}] {notification.deployment}: {first}{more}{again}"


def facts(alert: Alert) -> Iterator[tuple[str, str]]:
    """What is to be known of an alert, as (what, how it is), in the order in which somebody who was woken asks."""
    verdict, numbers = alert.verdict, dict(alert.verdict.numbers)
    yield "found", line(verdict.evidence)
    value, threshold = judged(verdict)
    unit = f" ({_UNITS[detector_of(alert.rule)]})" if value == "value" and detector_of(alert.rule) in _UNITS else ""
    if value is not None:
        now, peak = numbers.pop(value), numbers.pop("peak", None)
        told = number(now)
        if peak is not None and threshold is not None and now < numbers[threshold]:  # an alarm is held with less than raised it
            told = f"{number(peak)} at its highest, {told} now"
        yield "value", f"{told}{unit}"
    if threshold is not None:
        yield "threshold", f"{number(numbers.pop(threshold))}{unit}"
    if verdict.window is not None:
        yield "window", f"{time(verdict.window[0])} to {time(verdict.window[1])} UTC"
    if verdict.columns:
        yield "columns", line(named(verdict.columns, most=10))
    yield "estimated harm", "not known" if verdict.harm is None else f"{number(100 * verdict.harm)} % ({_HARM})"
    yield "cause", line(f"{alert.cause}: {alert.why}" if alert.why and alert.cause else alert.cause or alert.why or "not known")
    if numbers:
        yield "numbers", line(", ".join(f"{name} {number(each)}" for name, each in sorted(numbers.items())))
    yield "failing since", f"{time(alert.since)} UTC"
    yield "what to do", line(alert.advice, 1000)


def plain(notification: Notification) -> str:
    """The whole message as plain text."""
    lines = [subject(notification)]
    if notification.kind == "test":
        lines += ["", "Somebody asked for this message to see whether alerts arrive. Nothing is wrong."]
    for alert in notification.firing[:MOST]:
        lines += ["", f"{line(alert.rule)}  ({alert.severity}, alert {alert.id})"]
        lines += [f"  {what}: {how}" for what, how in facts(alert)]
    for alert in notification.resolved[:MOST]:
        lines += ["", f"{line(alert.rule)} is over since {time(alert.resolved_at or 0.0)} UTC: {line(alert.ended)}"]
    lines += _rest(notification)
    return "\n".join(lines) + "\n"


def markup(notification: Notification) -> str:
    """The whole message as HTML for a mail: no links, no pictures, nothing that is fetched."""
    parts = [f"<h2>{html.escape(subject(notification))}</h2>"]
    if notification.kind == "test":
        parts.append("<p>Somebody asked for this message to see whether alerts arrive. Nothing is wrong.</p>")
    for alert in notification.firing[:MOST]:
        rows = "".join(
            f'<tr><th style="text-align:left;vertical-align:top;padding-right:1em">{what}</th><td>{html.escape(how)}</td></tr>'
            for what, how in facts(alert)
        )
        parts.append(f"<h3>{html.escape(line(alert.rule))}</h3><table>{rows}</table><p><small>alert {alert.id}</small></p>")
    for alert in notification.resolved[:MOST]:
        over = f"is over since {time(alert.resolved_at or 0.0)} UTC: {line(alert.ended)}"
        parts.append(f"<p><b>{html.escape(line(alert.rule))}</b> {html.escape(over)}</p>")
    parts += [f"<p>{html.escape(each)}</p>" for each in _rest(notification) if each]
    return f'<!doctype html><html><head><meta charset="utf-8"></head><body>{"".join(parts)}</body></html>'


def _rest(notification: Notification) -> list[str]:
    more = sum(max(0, len(each) - MOST) for each in (notification.firing, notification.resolved))
    told = [f"and {more} more: modelyard alerts {notification.deployment}"] if more else []
    if notification.also:
        told.append(f"failing for the same reason: {line(named(notification.also, most=10))}")
    if notification.firing:
        told.append(f"to be left alone for a while: modelyard alerts silence --deployment {notification.deployment} --for 4h --why TEXT")
    return ["", *told] if told else []


def number(value: float) -> str:
    """A number as people read it."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def time(at: float) -> str:
    """A time, to the minute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def instant(at: float) -> str:
    """A time as RFC 3339 has it, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
