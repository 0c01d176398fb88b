"""One effect per idempotency key, however often a request is sent, and by however many processes it is worked on.

Hides where keys are remembered: as records of kind `idempotency`, written in the very transaction that makes the effect, so that no crash can part
the two. What a verb wrote is kept with the key; the answer of a repeated request is made from it. A verb that writes no model, version, deployment,
settings of one or silence (it found its work done, or works on files) is remembered with its answer, after it. It must not know HTTP.

Kept for a day, by the wall clock: a key of the days before, of today and of tomorrow (for clocks that were put back) is found. Each caller has the
latest `LIMIT` keys of a day; a flood of one pushes out no other's.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, cast

import msgspec

from modelyard.errors import Conflict, InvalidInput, ModelyardError
from modelyard.registry.base import Record, Records, RecordStore, Stamp, Transaction
from modelyard.security.base import AuditLine
from modelyard.types import Principal

KIND = "idempotency"
EFFECTS = frozenset({"model", "version", "deployment", "monitored", "silence"})
KEPT_S = 86_400.0
LIMIT = 1_000
KEY_CHARACTERS = 255
ANSWER_BYTES = 64 << 10
_TRIM_EVERY = 64
_SWEEP_S = 3_600.0


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """The record that a verb wrote last, or removed (`is_gone`)."""

    kind: str
    key: str
    body: dict[str, Any]
    is_gone: bool = False


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of a key: of which request, since when, and what came of it."""

    fingerprint: str
    at_s: float
    effect: Effect | None = None
    answer: str | None = None
    is_secret: bool = False


class _Repeated(Exception):
    """Another has made this key's effect meanwhile; the transaction is undone."""


class _Pending:
    """The key of the call under way in this thread, until its effect is written."""

    def __init__(self, key: str, fingerprint: str) -> None:
        self.key = key
        self.fingerprint = fingerprint
        self.is_marked = False


_pending: ContextVar[_Pending | None] = ContextVar("pending", default=None)


class Once:
    """A RecordStore that writes the key of the call under way beside its effect. Any thread; one per registry, in its place."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self._lock = threading.Lock()
        self._made: Counter[str] = Counter()
        self._swept_s = float("-inf")

    # The call

    def perform(
        self,
        principal: Principal,
        key: str,
        fingerprint: str,
        run: Callable[[], Any],
        *,
        recall: Callable[[Effect], Any] | None = None,
        answer: Any = Any,
        is_secret: bool = False,
    ) -> Any:
        """What `run` returns; of a request that was carried out before, what that came to: its effect through `recall`, or its `answer` (a type).

        `fingerprint` tells requests apart. A failure is not remembered: it had no effect. Raises InvalidInput for a key that is none, Conflict when
        it was used for another request.
        """
        if not (0 < len(key) <= KEY_CHARACTERS and key.isascii() and key.isprintable()):
            raise InvalidInput(f"an idempotency key has 1 to {KEY_CHARACTERS} printable characters", field="Idempotency-Key", rule="form")
        self._sweep()
        whole = f"{_short(principal.name)}:{_short(key)}"
        found = self._find(whole)
        if found is not None:
            return self._again(found, fingerprint, recall, answer)
        pending = _Pending(f"{_day():06d}:{whole}", fingerprint)
        if is_secret:
            return self._once_at_most(pending, whole, run)
        before = _pending.set(pending)
        try:
            said = run()
        except (_Repeated, ModelyardError) as error:
            found = self._find(whole)  # whoever carried it out meanwhile may be why this one failed
            if found is not None:
                return self._again(found, fingerprint, recall, answer)
            if isinstance(error, _Repeated):
                raise Conflict("this request was worked on twice at once; send it again with its key", rule="idempotency") from None
            raise
        finally:
            _pending.reset(before)
        if pending.is_marked:
            return said
        text = msgspec.json.encode(said).decode()
        try:
            self._keep(pending, Kept(fingerprint=fingerprint, at_s=time.time(), answer=text if len(text) <= ANSWER_BYTES else None))
        except Conflict:
            found = self._find(whole)
            return said if found is None else self._again(found, fingerprint, recall, answer)
        return said

    def _once_at_most(self, pending: _Pending, whole: str, run: Callable[[], Any]) -> Any:
        """What makes a secret is claimed before it is made: nobody could be told it again, so it must not be made again either."""
        try:
            self._keep(pending, Kept(fingerprint=pending.fingerprint, at_s=time.time(), is_secret=True))
        except Conflict:
            found = self._find(whole)
            if found is not None:
                return self._again(found, pending.fingerprint, None, None)
            raise
        try:
            return run()
        except ModelyardError:
            with contextlib.suppress(ModelyardError):  # a claim that stays refuses a repetition, and harms nobody
                self._records.delete(KIND, pending.key, expected=None)
            raise

    def _keep(self, pending: _Pending, kept: Kept) -> None:
        self._records.put(KIND, pending.key, msgspec.to_builtins(kept), expected=0)
        self._trim(pending.key)

    def _again(self, found: Kept, fingerprint: str, recall: Callable[[Effect], Any] | None, answer: Any) -> Any:
        if found.fingerprint != fingerprint:
            raise Conflict("this idempotency key was used for another request; take a new one for each", field="Idempotency-Key", rule="idempotency")
        if found.effect is not None and recall is not None:
            return recall(found.effect)
        if found.answer is None:
            why = "its answer is a secret, which is told once" if found.is_secret else "its answer is not kept"
            raise Conflict(f"this request was made already, and {why}; look at what there is now", field="Idempotency-Key", rule="idempotency")
        return msgspec.json.decode(found.answer, type=answer)

    def _find(self, whole: str) -> Kept | None:
        now = time.time()
        for day in (_day(), _day() - 1, _day() + 1):
            record = self._records.get(KIND, f"{day:06d}:{whole}")
            if record is not None:
                kept = msgspec.convert(record.body, Kept)
                if abs(now - kept.at_s) <= KEPT_S:
                    return kept
        return None

    # Its bounds

    def _trim(self, key: str) -> None:
        """Every so often, drop a caller's oldest keys of the day beyond the limit. A store that is away is left alone: what was done is done."""
        mine = key.rpartition(":")[0] + ":"
        with self._lock:
            self._made[mine] += 1
            if self._made[mine] % _TRIM_EVERY:
                return
        with contextlib.suppress(ModelyardError):
            found = sorted(self._records.list(KIND, prefix=mine), key=lambda record: record.revision)
            self._drop(found[: max(0, len(found) - LIMIT)])

    def _sweep(self) -> None:
        """Once an hour, drop what is older than the day before."""
        with self._lock:
            now = time.monotonic()
            if now - self._swept_s < _SWEEP_S:
                return
            self._swept_s = now
            self._made.clear()
        oldest = f"{_day() - 1:06d}:"
        with contextlib.suppress(ModelyardError):  # a store that is away is told by what asks it for more than this
            self._drop([record for record in self._records.list(KIND) if record.key < oldest])

    def _drop(self, found: Sequence[Record]) -> None:
        if found:
            with self._records.transaction() as records:
                for record in found:
                    records.delete(KIND, record.key, expected=None)

    # The store

    def get(self, kind: str, key: str) -> Record | None:
        """See `Records.get`."""
        return self._records.get(kind, key)

    def list(self, kind: str, *, prefix: str = "") -> tuple[Record, ...]:
        """See `Records.list`."""
        return self._records.list(kind, prefix=prefix)

    def stamp(self, kind: str) -> Stamp:
        """See `registry.base.Records`."""
        return self._records.stamp(kind)

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        """See `Records.put`."""
        with self.transaction() as records:
            return records.put(kind, key, body, expected=expected)

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        """See `Records.delete`."""
        with self.transaction() as records:
            records.delete(kind, key, expected=expected)

    def append(self, make: AuditLine) -> None:
        """See `AuditStore.append`."""
        self._records.append(make)

    def lines(self) -> Iterator[bytes]:
        """See `AuditStore.lines`."""
        return self._records.lines()

    def transaction(self) -> AbstractContextManager[Transaction]:
        """See `RecordStore.transaction`; one that makes the effect of the call under way remembers its key as well."""
        pending = _pending.get()
        return self._records.transaction() if pending is None or pending.is_marked else self._marking(pending)

    @contextmanager
    def _marking(self, pending: _Pending) -> Iterator[Transaction]:
        with self._records.transaction() as records:
            seen = _Seeing(records)
            yield cast(Transaction, seen)
            if seen.effect is not None:
                kept = Kept(fingerprint=pending.fingerprint, at_s=time.time(), effect=seen.effect)
                try:
                    records.put(KIND, pending.key, msgspec.to_builtins(kept), expected=0)
                except Conflict:
                    raise _Repeated from None
        if seen.effect is not None:
            pending.is_marked = True
            self._trim(pending.key)

    def close(self) -> None:
        """See `RecordStore.close`."""
        self._records.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)


class _Seeing:
    """The verbs of a transaction, and what was written last by them of `EFFECTS`."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.effect: Effect | None = None

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        record = self._records.put(kind, key, body, expected=expected)
        if kind in EFFECTS:
            self.effect = Effect(kind=kind, key=key, body=body)
        return record

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        gone = self._records.get(kind, key) if kind in EFFECTS else None
        self._records.delete(kind, key, expected=expected)
        if gone is not None:
            self.effect = Effect(kind=kind, key=key, body=gone.body, is_gone=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _day() -> int:
    return int(time.time() // 86_400)
