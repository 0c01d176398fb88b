"""Labels that were given to one host, on their way to all others that share its records: the predictions that they are of are on every host.

Hides how labels travel: as segments beside those with which each host sends what it has seen, so that they are numbered, wait while the store is away
and are kept for hosts that come later. What was taken is never let go of: where too much waits no more is taken, and whoever gives it is told so. A
label may arrive twice, and in any order; the ledger makes of it what it makes of any.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from modelyard import events, files
from modelyard.errors import MalformedPayload, Overloaded, Unavailable
from modelyard.events import SUFFIX, Labels, Segment
from modelyard.monitor.labels import AHEAD_S, BATCH, ID_LIMIT, TRUTH_LIMIT, Ledger, Sheet
from modelyard.types import parse_name

PORTION_BYTES = 1 << 20
"""About so much goes into one segment: less than half of what may be sent at once."""
EVERY_S = 5.0
"""How often what waits is sent."""
AT_ONCE = 500
"""So many labels of other hosts are kept in one transaction, however few each portion has: those of a host whose clients give one at a time come by
the thousand.
"""
_ROW_BYTES = 32
_LEAST_BYTES = 4096
"""So much a file takes on a disk, and the more for those who list them."""
_LAST_S = float(2**35)
_MARK = ".labels."


class Outbox:
    """The folder in which what a ledger has taken waits for the other hosts. Any thread may use it."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._look_s = float("-inf")

    def require_room(self) -> None:
        """Ask this before labels are taken. Raises Overloaded while so much waits that no more may, or Unavailable."""
        with self._lock:
            now = time.monotonic()
            if now >= self._look_s:
                try:
                    self._used_bytes = events.size_bytes(self._folder, least_bytes=_LEAST_BYTES)
                except OSError as error:
                    raise Unavailable("what waits for the other hosts cannot be looked at now") from error
                self._look_s = now + 50 * (time.monotonic() - now)  # a fiftieth of the time goes into looking
            if self._used_bytes >= self._limit_bytes:
                self._look_s = min(self._look_s, now + EVERY_S)
                raise Overloaded(
                    "as many labels as there is room for wait here to be sent to the other hosts, so these were not taken; give them again later, "
                    "and if this goes on, see to the store that hosts share (export_url, else blobs_url)",
                    retry_after_s=EVERY_S,
                )

    def send(self, name: str, labels: Sheet) -> None:
        """Leave what a ledger has taken for the other hosts, on disk when this returns. Raises StorageFull or InvalidConfig."""
        folder = files.make_folder(self._folder)
        for portion in _portions(name, labels):
            at = labels.at
            data = events.encode(Segment(slot=0, pid=os.getpid(), started_at=at, ended_at=at, parts=(), labels=(portion,)))
            files.write_atomically(folder / f"l.{secrets.token_hex(8)}-0{SUFFIX}", data, mode=0o600)
            with self._lock:
                self._used_bytes += max(len(data), _LEAST_BYTES)


def sender(host: str) -> str:
    """Under which name a host sends labels: theirs are numbers of their own."""
    return f"{host}{_MARK.rstrip('.')}"


def tells(name: str) -> bool:
    """Whether a segment of this name was sent as one of labels."""
    return _MARK in name


def take(ledger: Ledger, segments: Iterable[Segment], *, now: float) -> int:
    """Keep the labels in segments of other hosts, whose clocks may be ahead of this one's, many in one transaction; how many there were.

    Raises what the ledger raises.
    """
    together: list[tuple[str, Sheet]] = []
    count = total = 0
    for each in (labels for segment in segments for labels in segment.labels):
        if together and count + len(each.ids) > AT_ONCE:
            ledger.keep(together)
            together, count = [], 0
        together.append((each.name, Sheet(each.ids, each.truths, each.known, min(each.at, now))))
        count += len(each.ids)
        total += len(each.ids)
    if together:
        ledger.keep(together)
    return total


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


def _portions(name: str, labels: Sheet) -> Iterator[Labels]:
    """The labels that were kept, as much of them at a time as a segment has room for."""
    kept: list[tuple[str, str, float]] = []
    size = 0
    for label in zip(labels.ids, labels.truths, labels.known, strict=True):
        if label[2] > labels.at + AHEAD_S:
            continue
        kept.append(label)
        size += _ROW_BYTES + len(label[0].encode()) + len(label[1].encode())
        if size > PORTION_BYTES or len(kept) == BATCH:
            yield _packed(name, kept, labels.at)
            kept, size = [], 0
    if kept:
        yield _packed(name, kept, labels.at)


def _packed(name: str, labels: Sequence[tuple[str, str, float]], at: float) -> Labels:
    ids, truths, known = zip(*labels, strict=True)
    return Labels(name=name, at=at, ids=ids, truths=truths, known=known)
