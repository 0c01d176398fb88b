"""Labels that were given to one host, on their way to all others that share its records: the predictions that they are of are on every host.

Hides how labels travel: as segments among those with which each host sends what it has seen, so that they are numbered, wait while the store is away
and are kept for hosts that come later. A label may arrive twice, and in any order; the ledger makes of it what it makes of any.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelyard import events, files
from modelyard.errors import MalformedPayload
from modelyard.events import SUFFIX, Labels, Segment
from modelyard.monitor.labels import AHEAD_S, BATCH, ID_LIMIT, TRUTH_LIMIT, Given, Ledger, text
from modelyard.types import Scalar, parse_name

PORTION_BYTES = 1 << 20
"""About so much goes into one segment: less than half of what may be sent at once."""
_ROW_BYTES = 32
_LAST_S = float(2**35)


def send(outbox: Path, name: str, labels: Sequence[Given | tuple[str, Scalar]], *, at: float) -> None:
    """Leave what a ledger has taken for the other hosts, on disk when this returns. Raises StorageFull or InvalidConfig."""
    folder = files.make_folder(outbox)
    for portion in _portions(name, [Given(*each) for each in labels], at):
        segment = Segment(slot=0, pid=os.getpid(), started_at=at, ended_at=at, parts=(), labels=(portion,))
        files.write_atomically(folder / f"l.{secrets.token_hex(8)}-0{SUFFIX}", events.encode(segment), mode=0o600)


def take(ledger: Ledger, segment: Segment, *, now: float) -> int:
    """Keep the labels in a segment of another host, whose clock may be ahead of this one's; how many there were. Raises what the ledger raises."""
    for each in segment.labels:
        given = [Given(*label) for label in zip(each.ids, each.truths, each.known, strict=True)]
        ledger.give(each.name, given, at=min(each.at, now))
    return sum(len(each.ids) for each in segment.labels)


def check(labels: Labels) -> None:
    """Labels are such as a host of ours sends. Raises MalformedPayload, or InvalidInput for a name that is none."""
    parse_name(labels.name)
    if not len(labels.ids) == len(labels.truths) == len(labels.known) <= BATCH:
        raise MalformedPayload("labels that are not whole")
    if not all(0 <= each < _LAST_S for each in (labels.at, *labels.known)):
        raise MalformedPayload("labels of no time")
    if not all(0 < len(each) <= ID_LIMIT for each in labels.ids):
        raise MalformedPayload("labels of no prediction")
    if not all(len(each) <= TRUTH_LIMIT for each in labels.truths):
        raise MalformedPayload("labels too long")


def _portions(name: str, labels: Sequence[Given], at: float) -> Iterator[Labels]:
    """The labels that were kept, as much of them at a time as a segment has room for."""
    kept: list[tuple[str, str, float]] = []
    size = 0
    for each in labels:
        truth, known_at = text(each.truth), at if each.known_at is None else float(each.known_at)
        if known_at > at + AHEAD_S:
            continue
        kept.append((each.id, truth, known_at))
        size += _ROW_BYTES + len(each.id.encode()) + len(truth.encode())
        if size > PORTION_BYTES:
            yield _packed(name, kept, at)
            kept, size = [], 0
    if kept:
        yield _packed(name, kept, at)


def _packed(name: str, labels: Sequence[tuple[str, str, float]], at: float) -> Labels:
    ids, truths, known = zip(*labels, strict=True)
    return Labels(name=name, at=at, ids=ids, truths=truths, known=known)
