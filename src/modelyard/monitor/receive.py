"""Segments from other machines, over the control API: looked at, then laid into the spool beside those of this home's own workers.

Hides under which name, so that one sender can neither hide nor replace what another has sent, and how much may wait here. Nothing that a sender says
is believed before `intake.check` has passed it; which models it may speak of is the caller's to ask.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import msgspec

from modelyard import events, files
from modelyard.config import Settings
from modelyard.errors import InvalidInput, MalformedPayload, Overloaded, PayloadTooLarge, Unavailable
from modelyard.events import SENT_LIMIT_BYTES, SUFFIX, Segment
from modelyard.monitor.intake import check

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*-[0-9]{1,18}")
"""Of a segment on its way between machines: the sender's source, then its number."""
NAME_LIMIT = 120
AGAIN_S = 5.0
_SENDER = re.compile(r"[^a-zA-Z0-9_-]")
_LOOK_S = 2.0


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What was received: a segment's name, and of how many requests it tells. Sent again, it counts once."""

    name: str
    requests: int


def read(name: str, data: bytes) -> Segment:
    """The segment in `data`, such as one of our replicas sends. Raises InvalidInput (its name), PayloadTooLarge or MalformedPayload."""
    if len(name) > NAME_LIMIT or not NAME.fullmatch(name):
        raise InvalidInput("a segment is named SOURCE-NUMBER, in small letters, digits, dots and dashes", field="name", rule="form")
    if len(data) > SENT_LIMIT_BYTES:
        raise PayloadTooLarge(f"a segment has at most {SENT_LIMIT_BYTES:,} bytes")
    segment = events.decode(data)
    check(segment)
    if segment.labels:  # whoever may send counts may not say what is true
        raise MalformedPayload("labels are not sent with observations; give them to the deployment")
    return segment


class Inbox:
    """The spool as other machines may fill it. Safe from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._spool = settings.spool
        self._limit_bytes = settings.spool_limit_bytes
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._looked_s = float("-inf")

    def put(self, sender: str, name: str, data: bytes, segment: Segment) -> Observed:
        """Keep what `read` gave of `data`, on disk before this returns. Raises Overloaded while too much waits, StorageFull or InvalidConfig."""
        folder = files.make_folder(self._spool)
        with self._lock:
            self._used_bytes = self._used(folder) + len(data)
            if self._used_bytes > self._limit_bytes:
                self._used_bytes -= len(data)
                raise Overloaded("too many observations wait here to be taken in; send this again later", retry_after_s=AGAIN_S)
        files.write_atomically(self._place(folder, sender, name), data, mode=0o600)
        return Observed(name=name, requests=sum(part.requests for part in segment.parts))

    def _place(self, folder: Path, sender: str, name: str) -> Path:
        return folder / f"r.{_SENDER.sub('_', sender)[:80]}.{name}{SUFFIX}"

    def _used(self, folder: Path) -> int:
        now = time.monotonic()
        if now - self._looked_s > _LOOK_S:
            try:
                self._used_bytes = events.size_bytes(folder)
            except OSError as error:
                raise Unavailable("the spool cannot be read now") from error
            self._looked_s = now + 50 * (time.monotonic() - now)
        return self._used_bytes
