"""The audit chain: every mutation and every denial, each entry carrying the hash of the one before.

Hides the form of an entry and of the chain. A mutation is recorded in the transaction that makes it, or before it is made: one which cannot be
recorded is refused. An entry never holds a payload or a key. It must not know where lines are kept: that is an `AuditStore`; `FileLines` is the one
on a disk, for what the data plane of a host denies and loads, and for the control plane's entries of 0.1.0.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from modelyard import files
from modelyard.errors import DigestMismatch, Unavailable
from modelyard.security.base import AuditLine, AuditStore
from modelyard.security.identity import without_keys
from modelyard.types import Principal

FIRST = "0" * 64
_TAIL_BYTES = 64 << 10


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that someone did or was denied. `sequence` counts from 1; `previous` is the hash of the entry before, `hash` its own."""

    sequence: int
    at: str
    principal: str
    action: str
    subject: str
    outcome: str
    detail: str = ""
    previous: str
    hash: str = ""


class AuditLog:
    """The chain over one store. Law: `verify` accepts what `record` wrote and nothing that was changed, reordered or taken from its middle.

    `begin` gives what the first entry follows, asked when there is none yet: the last hash of another chain that this one goes on.
    """

    def __init__(self, store: AuditStore, *, begin: Callable[[], str] | None = None) -> None:
        self._store = store
        self._begin = begin or (lambda: FIRST)

    def within(self, store: AuditStore) -> AuditLog:
        """The same chain through a transaction of its store, to be recorded in with what the transaction changes."""
        return AuditLog(store, begin=self._begin)

    def record(self, principal: Principal, action: str, subject: str, *, outcome: str, detail: str = "") -> None:
        """Append one entry durably. Raises StorageFull, Unavailable, InvalidConfig, or DigestMismatch for a damaged log: then do not act."""

        def make(last: bytes | None) -> bytes:
            try:
                before = None if last is None else msgspec.json.decode(last, type=Entry)
            except msgspec.MsgspecError as error:
                raise DigestMismatch("the last entry of the audit log cannot be read; see: modelyard audit verify") from error
            entry = Entry(
                sequence=1 if before is None else before.sequence + 1,
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                principal=principal.name,
                action=action,
                subject=without_keys(subject)[:200],
                outcome=outcome,
                detail=without_keys(detail)[:500],
                previous=self._begin() if before is None else before.hash,
            )
            return msgspec.json.encode(msgspec.structs.replace(entry, hash=_hash(entry)))

        self._store.append(make)

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first, unchecked."""
        for line in self._store.lines():
            yield msgspec.json.decode(line, type=Entry)

    def verify(self, *, follows: str = FIRST, seen: Callable[[str], None] | None = None) -> int:
        """The number of entries, each checked against the one before, the first against `follows`. `seen` is told each hash.

        Raises DigestMismatch naming the first that does not fit; its `field` is that entry's place.
        """
        previous, count = follows, 0
        for line in self._store.lines():
            count += 1
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except msgspec.MsgspecError as error:
                raise DigestMismatch(f"audit entry {count} cannot be read", field=str(count), rule="chain") from error
            is_chained = entry.sequence == count and entry.previous == previous and hmac.compare_digest(entry.hash, _hash(entry))
            # A line says what its entry says and nothing beside: not a field twice, nor one that nobody knows.
            if not is_chained or line != msgspec.json.encode(entry):
                raise DigestMismatch(f"audit entry {count} does not follow from the one before it", field=str(count), rule="chain")
            previous = entry.hash
            if seen is not None:
                seen(previous)
        return count

    def first(self) -> Entry | None:
        """The oldest entry, unchecked; None where there is none, or none that can be read."""
        with contextlib.suppress(msgspec.MsgspecError):
            return next(self.entries(), None)
        return None


class FileLines:
    """Lines in one file, each fsynced; writers of all processes take turns by a lock on it.

    A disk that has once not synced is not believed again: nothing is appended until another process begins.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_doubtful = False

    def append(self, make: AuditLine) -> None:
        """See `AuditStore.append`. A line cut short by a crash was never acknowledged; it is taken back before the next is written."""
        if self._is_doubtful:
            raise Unavailable("the audit log could not be made durable, so nothing is changed; look at the disk, then start this process again")
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise files.translate(error, self._path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = _whole_end(descriptor)
            line = make(_last_line(descriptor, end)) + b"\n"
            try:
                os.ftruncate(descriptor, end)
                if os.pwrite(descriptor, line, end) != len(line):
                    raise OSError(28, "short write")
                self._sync(descriptor)
                if end == 0:
                    files.sync_folder(self._path.parent)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, end)
                raise files.translate(error, self._path) from error
        finally:
            os.close(descriptor)

    def head(self) -> str:
        """The hash of the last entry: what another chain that goes on from here follows. Raises DigestMismatch when it cannot be read."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return FIRST
        except OSError as error:
            raise files.translate(error, self._path) from error
        try:
            line = _last_line(descriptor, _whole_end(descriptor))
            return FIRST if line is None else msgspec.json.decode(line, type=Entry).hash
        except OSError as error:
            raise files.translate(error, self._path) from error
        except msgspec.MsgspecError as error:
            raise DigestMismatch("the last entry of audit.jsonl cannot be read; see: modelyard audit verify") from error
        finally:
            os.close(descriptor)

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            self._is_doubtful = error.errno not in (errno.ENOSPC, errno.EDQUOT)
            raise

    def lines(self) -> Iterator[bytes]:
        """See `AuditStore.lines`."""
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield line[:-1]


def _hash(entry: Entry) -> str:
    bare = msgspec.structs.replace(entry, hash="")
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()


def _whole_end(descriptor: int) -> int:
    """Where the last whole line ends."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
    return size - len(tail) + tail.rfind(b"\n") + 1


def _last_line(descriptor: int, end: int) -> bytes | None:
    if end == 0:
        return None
    tail = os.pread(descriptor, min(end, _TAIL_BYTES), max(0, end - _TAIL_BYTES))
    return tail[:-1].rsplit(b"\n", 1)[-1]
