"""Alerts, silences and receivers as records, and one turn of the machine as one transaction.

Hides the records' form. A turn reads what the last one left, steps, and writes the new state with the messages that follow from it: a crash at any
moment leaves both or neither, so that nothing is told twice because it was forgotten, and nothing forgotten because it was told. It must not decide.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import InvalidInput, NotFound
from modelyard.monitor.alerts import machine, outbox
from modelyard.monitor.alerts.base import TEXT_CHARACTERS, Alert, Book, Explained, Matcher, Notification, Route, Rules, Silence, State

if TYPE_CHECKING:
    from modelyard.registry.base import Records
    from modelyard.types import Verdict

BOOK, SILENCE, RECEIVER = "alerts", "silence", "receiver"
ALIVE_S = 120.0
"""How often receivers that forget are told that an alert lives: Alertmanager's clients do so every 30 s to 3 minutes."""

KEPT_S = 86_400.0
"""How long a silence that is over is still shown."""

MOST_SILENCES = 1000


class Receiver(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a route has fared: when it last took a message, and, while it does not, since when, after how many tries, and why."""

    ok_at: float | None = None
    failing_since: float | None = None
    tries: int = 0
    error: str = ""


def turn(
    records: Records,
    verdicts: Mapping[str, Sequence[Verdict]],
    *,
    rules: Rules,
    routes: Sequence[Route],
    now: float,
    causes: Mapping[tuple[str, str], Explained] | None = None,
) -> tuple[Notification, ...]:
    """One turn of the machine on what `records` (a transaction) hold: silences are read from it, the new state and the messages are written to it."""
    before = load(records)
    silenced = tuple(each for each in silences(records) if each.until > now)
    rules = rules._replace(silences=(*rules.silences, *silenced), alive_s=ALIVE_S if any(route.forgets for route in routes) else 0.0)
    after, told = machine.step(before, verdicts, rules=rules, now=now, causes=causes)
    for name in sorted({*before.books, *after.books}):
        if after.books.get(name) == before.books.get(name):
            continue
        if name in after.books:
            records.put(BOOK, name, msgspec.to_builtins(after.books[name]), expected=None)
        else:
            records.delete(BOOK, name, expected=None)
    for notification in told:
        outbox.put(records, notification, routes, now=now)
    return told


def load(records: Records) -> State:
    """The state as the last turn left it."""
    return State(books={record.key: msgspec.convert(record.body, Book) for record in records.list(BOOK)})


def alerts(records: Records) -> tuple[Alert, ...]:
    """Every alert: those that fire first, the gravest and oldest of them before the others, those that are over last."""
    states = ("firing", "pending", "resolved")
    found = load(records).alerts
    return tuple(
        sorted(found, key=lambda each: (states.index(each.state), each.severity, (each.resolved_at and -each.resolved_at) or each.since, each.rule))
    )


# Silences


def silences(records: Records) -> tuple[Silence, ...]:
    """Every silence, those that are over for a while too, the latest first."""
    found = (msgspec.convert(record.body, Silence) for record in records.list(SILENCE))
    return tuple(sorted(found, key=lambda each: (-each.since, each.id)))


def silence(records: Records, matcher: Matcher, *, until: float, by: str, why: str, now: float) -> Silence:
    """Let nobody be told of what `matcher` means until then. Call it inside a transaction. Raises InvalidInput."""
    if not until > now:
        raise InvalidInput("a silence ends at a time to come", field="until", rule="range")
    if not why.strip() or len(why) > TEXT_CHARACTERS:
        raise InvalidInput(f"say why, in at most {TEXT_CHARACTERS} characters: whoever is on duty next will want to know", field="why", rule="length")
    known = silences(records)
    for each in known:
        if now - each.until >= KEPT_S:
            records.delete(SILENCE, each.id, expected=None)
    if sum(each.until > now for each in known) >= MOST_SILENCES:
        raise InvalidInput(f"there are {MOST_SILENCES:,} silences; end some first", field="matcher", rule="count")
    made = Silence(id=secrets.token_hex(4), matcher=matcher, since=now, until=until, by=by, why=why)
    records.put(SILENCE, made.id, msgspec.to_builtins(made), expected=0)
    return made


def find_silence(records: Records, id: str) -> Silence:
    """The silence whose id begins so. Raises NotFound, or InvalidInput where several do."""
    found = [each for each in silences(records) if id and each.id.startswith(id)]
    if not found:
        raise NotFound("no silence has an id that begins so; see: modelyard alerts", field="id")
    if len(found) > 1:
        raise InvalidInput("several silences have an id that begins so; give more digits", field="id", rule="unique")
    return found[0]


def unsilence(records: Records, silence: Silence, *, now: float) -> Silence:
    """End a silence now; it is shown for a while, as one that is over."""
    ended = msgspec.structs.replace(silence, until=min(silence.until, now))
    records.put(SILENCE, ended.id, msgspec.to_builtins(ended), expected=None)
    return ended


# Receivers


def receivers(records: Records) -> dict[str, Receiver]:
    """How each route has fared, by its name."""
    return {record.key: msgspec.convert(record.body, Receiver) for record in records.list(RECEIVER)}


def fared(records: Records, name: str, receiver: Receiver) -> None:
    """Write down how a route has fared."""
    records.put(RECEIVER, name, msgspec.to_builtins(receiver), expected=None)


def forget(records: Records, name: str) -> None:
    """Forget a route that is no more."""
    records.delete(RECEIVER, name, expected=None)
