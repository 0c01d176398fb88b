"""The verbs of a record store, in the SQL that SQLite and PostgreSQL both read.

Hides the tables. A connection comes in as one function that runs a statement; transactions, locks and errors are its owner's. It must not know which
database answers, nor what a record means.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from modelyard.errors import Conflict
from modelyard.registry.base import Record, Stamp
from modelyard.security.base import AuditLine

LINES_AT_ONCE = 1000


Rows = list[tuple[Any, ...]]


_decode = msgspec.json.Decoder(dict[str, Any]).decode
"""Several times as fast as the standard library's, which lists of a thousand records would feel."""


class Run(Protocol):
    """Runs one statement, its parameters written `?`."""

    def __call__(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        """The rows that it gives; none for one that gives none."""
        ...


class Verbs:
    """A `Transaction` on one connection, inside whatever transaction it is in."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def get(self, kind: str, key: str) -> Record | None:
        """See `registry.base.Records`."""
        rows = self._run("SELECT revision, body FROM record WHERE kind = ? AND key = ?", (kind, key))
        return Record(kind, key, rows[0][0], _decode(rows[0][1])) if rows else None

    def list(self, kind: str, *, prefix: str = "") -> tuple[Record, ...]:
        """See `registry.base.Records`."""
        query = "SELECT key, revision, body FROM record WHERE kind = ? AND key >= ? AND key < ? ORDER BY key"
        rows = self._run(query, (kind, prefix, prefix + chr(sys.maxunicode)))
        return tuple(Record(kind, key, revision, _decode(body)) for key, revision, body in rows)

    def stamp(self, kind: str) -> Stamp:
        """See `registry.base.Records`."""
        return Stamp(*self._run("SELECT coalesce(max(revision), 0), count(*) FROM record WHERE kind = ?", (kind,))[0])

    def put(self, kind: str, key: str, body: dict[str, Any], *, expected: int | None) -> Record:
        """See `registry.base.Records`."""
        self._expect(kind, key, expected)
        text = json.dumps(body, sort_keys=True, allow_nan=False)
        revision: int = self._run("UPDATE counter SET revision = revision + 1 RETURNING revision")[0][0]
        self._run(
            "INSERT INTO record (kind, key, revision, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
            (kind, key, revision, text),
        )
        return Record(kind, key, revision, _decode(text))

    def delete(self, kind: str, key: str, *, expected: int | None) -> None:
        """See `registry.base.Records`."""
        self._expect(kind, key, expected)
        self._run("DELETE FROM record WHERE kind = ? AND key = ?", (kind, key))

    def append(self, make: AuditLine) -> None:
        """See `security.base.AuditStore`."""
        last = self._run("SELECT sequence, line FROM audit ORDER BY sequence DESC LIMIT 1")
        line = make(last[0][1].encode() if last else None)
        self._run("INSERT INTO audit (sequence, line) VALUES (?, ?)", (last[0][0] + 1 if last else 1, line.decode()))

    def lines(self) -> Iterator[bytes]:
        """See `security.base.AuditStore`. Read in parts, so that no long reading holds anything up."""
        after = 0
        while rows := self._run("SELECT sequence, line FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, LINES_AT_ONCE)):
            yield from (line.encode() for _, line in rows)
            after = rows[-1][0]

    def _expect(self, kind: str, key: str, expected: int | None) -> None:
        if expected is None:
            return
        rows = self._run("SELECT revision FROM record WHERE kind = ? AND key = ?", (kind, key))
        if (rows[0][0] if rows else 0) != expected:
            raise Conflict(f"the {kind} {key!r} has changed since it was read; read it again, then decide", field=key, rule="revision")
