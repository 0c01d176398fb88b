"""What was seen, minute by minute and generation by generation: counters, latencies and profile counts, in one SQLite file of the home.

Hides the tables and how those of an older release become ours, and the one transaction in which a segment's name and its data are kept, so that
each segment counts once however often it is offered. Minutes can be rolled into hours and hours into days (`monitor.compaction` says when); each
second then stands in one window alone, so that whoever adds up windows of any span adds up exactly what was seen. Rows for the prediction log wait
here until `monitor.log` has written them. It must not know what a shift is.
"""

from __future__ import annotations

import math
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from modelyard.errors import Conflict, UnsupportedFormat
from modelyard.events import Failures, Part, Rows, Segment, Use, numbered, refined
from modelyard.monitor import changes, profile
from modelyard.monitor.base import Minute
from modelyard.monitor.changes import Stretch
from modelyard.monitor.database import Database
from modelyard.monitor.evidence import Second, Seen, continued, summed
from modelyard.monitor.ranges import Ranges
from modelyard.types import Digest

if TYPE_CHECKING:
    from modelyard.types import Array

WINDOW_S = 60
COUNT_LIMIT = 2**52
"""No count of a segment, nor of a window of a minute, is so large: a day's is then below what SQLite and msgpack hold."""
HOUR_S = 3600
DAY_S = 86400
ROLLED_S = (HOUR_S, DAY_S)
Rollable = Literal["windows", "profiles"]
_TABLES = """
CREATE TABLE taken (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE windows (
  name TEXT NOT NULL, start INTEGER NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,
  started_at REAL NOT NULL, ended_at REAL NOT NULL, requests INTEGER NOT NULL, rows INTEGER NOT NULL,
  latencies BLOB NOT NULL, failures BLOB NOT NULL, dropped BLOB NOT NULL,
  PRIMARY KEY (name, start, version, digest)
) WITHOUT ROWID;
CREATE TABLE profiles (
  name TEXT NOT NULL, start INTEGER NOT NULL, digest TEXT NOT NULL, share REAL NOT NULL, counts BLOB NOT NULL,
  PRIMARY KEY (name, start, digest, share)
) WITHOUT ROWID;
CREATE TABLE staged (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, day TEXT NOT NULL, version INTEGER NOT NULL,
  digest TEXT NOT NULL, form TEXT NOT NULL, at REAL NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE troubles (kind TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""
_EVIDENCE = """
CREATE TABLE evidence (
  name TEXT NOT NULL, generation INTEGER NOT NULL, digest TEXT NOT NULL, at REAL NOT NULL, seen BLOB NOT NULL,
  PRIMARY KEY (name, generation, digest)
) WITHOUT ROWID;
"""
_USE = """
ALTER TABLE windows ADD COLUMN use BLOB NOT NULL DEFAULT x'80';
"""
_ROLLED = """
CREATE TABLE sources (source TEXT PRIMARY KEY, numbers BLOB NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE rolled (
  name TEXT NOT NULL, span INTEGER NOT NULL, start INTEGER NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (name, span, start, version, digest)
) WITHOUT ROWID;
CREATE TABLE rolled_profiles (
  name TEXT NOT NULL, span INTEGER NOT NULL, start INTEGER NOT NULL, digest TEXT NOT NULL, share REAL NOT NULL, counts BLOB NOT NULL,
  PRIMARY KEY (name, span, start, digest, share)
) WITHOUT ROWID;
CREATE TABLE rolled_active (
  name TEXT NOT NULL, span INTEGER NOT NULL, start INTEGER NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (name, span, start)
) WITHOUT ROWID;
"""
_BELIEVED = """
CREATE TABLE believed (at REAL NOT NULL);
"""
_SECOND = """
ALTER TABLE evidence ADD COLUMN second BLOB NOT NULL DEFAULT x'80';
"""
_STEPS = (_TABLES, _EVIDENCE, _USE, _ROLLED, changes.TABLES, _BELIEVED, _SECOND)
"""What each format adds to the one before it; the second also has finer buckets of latencies, the fourth the numbers of what was taken as
ranges. 80 is an empty map in msgpack.
"""

VERSION = len(_STEPS)
TROUBLES = {
    "lost": "segments of observations found no room and are lost",
    "corrupt": "segments were damaged and are set aside in the spool",
    "unwritable": "rows could not be written to the prediction log",
    "unrelayed": "labels from other hosts could not be kept, since labels.sqlite cannot be opened, is damaged, or of a newer release",
    "early": "segments came with a clock that was ahead, and count when they came",
    "late": "segments were older than anything that is kept",
    "rebinned": "windows of profiles had other bins than later ones, and were let go",
}
"""What each kind of trouble is, in words."""
_AT = "at:"  # beside each count, when it last grew: a kind of its own, so that the table is that of earlier releases

K = TypeVar("K")


class Window(msgspec.Struct, kw_only=True):
    """What all workers saw of one version in a span of time. Times are seconds since 1970, UTC."""

    started_at: float
    ended_at: float
    requests: int = 0
    rows: int = 0
    latencies: dict[int, int] = {}
    failures: dict[str, Failures] = {}
    dropped: dict[str, int] = {}
    use: Use = Use()

    def add(self, other: Window) -> None:
        """Merge; exact, and in any order the same."""
        self.started_at = min(self.started_at, other.started_at)
        self.ended_at = max(self.ended_at, other.ended_at)
        self.requests += other.requests
        self.rows += other.rows
        for bucket, count in other.latencies.items():  # in place: a month is tens of thousands of these
            self.latencies[bucket] = self.latencies.get(bucket, 0) + count
        if other.dropped:
            self.dropped = summed(self.dropped, other.dropped)
        self.use += other.use
        for code, more in other.failures.items():
            had = self.failures.get(code, Failures(requests=0, seconds=0.0))
            self.failures = {**self.failures, code: Failures(requests=had.requests + more.requests, seconds=had.seconds + more.seconds)}


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one version, day and form (their columns) that wait for the prediction log.

    `pieces` are in the order in which they came, the first has the number `first` here, the last `last`. `origin` tells the file whose numbers
    these are from the one that took its place (empty: made before files had one).
    """

    kind: str
    name: str
    day: str
    version: int
    digest: Digest
    form: str
    first: int
    last: int
    pieces: tuple[Rows, ...]
    origin: str = ""


class Windows(Database):
    """The file. One thread owns an instance; any number of instances, in any processes, may be open at once.

    Raises, when opened and later: StorageFull, InvalidConfig (not writable), Unavailable (locked), Tampered (damaged), UnsupportedFormat (made
    by a newer release).
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, when_full="observations wait in the spool. Free some space")
        with self._translated():
            with self._transaction() as connection:
                found = connection.execute("PRAGMA user_version").fetchone()[0]
                for statement in "".join(_STEPS[found:]).split(";\n"):
                    connection.execute(statement)
                if found == 1:
                    _refine(connection)
                if found < 4:
                    _number(connection)
                if found == 0:
                    connection.execute(f"PRAGMA application_id={secrets.randbelow(2**31 - 1) + 1:d}")
                if found < VERSION:
                    connection.execute(f"PRAGMA user_version={VERSION:d}")
            origin = self._connection.execute("PRAGMA application_id").fetchone()[0]
            self._origin = f"{origin:08x}" if origin else ""
        if found > VERSION:
            self.close()
            raise UnsupportedFormat(f"{path.name} was written by a newer release of modelyard")

    # Taking in.

    def take(self, segments: Mapping[str, Segment], *, day_of: Callable[[float], str], oddities: Mapping[str, str] = {}) -> int:
        """Keep the segments that are not kept yet, all in one transaction; how many these were. `oddities` says as what trouble some are counted.

        Raises Conflict, keeping none, for profile counts of one digest that have different bins, and for counts that no window can hold.
        """
        with self._translated(), self._transaction() as connection:
            names = _note(connection, segments)
            new = [segments[name] for name in names]
            for name in names:
                if name in oddities:
                    self._count(connection, oddities[name], 1)
            windows: dict[tuple[str, int, int, Digest], Window] = {}
            counts: dict[tuple[str, int, Digest, float], Array] = {}
            evidence: dict[tuple[str, int, Digest], list[tuple[float, int, Part]]] = {}
            for segment in new:
                start = int(segment.ended_at // WINDOW_S) * WINDOW_S
                if segment.lost:
                    self._count(connection, "lost", segment.lost)
                for part in segment.parts:
                    key = (part.name, start, part.version, part.digest)
                    _merge(windows, key, _window(segment, part))
                    if part.generation:
                        which = (part.name, part.generation, part.digest)
                        evidence.setdefault(which, []).append((segment.ended_at, segment.slot, part))
                    for item in part.profiles:
                        place = (part.name, start, part.digest, item.share)
                        vector = profile.unpack(item.counts)
                        counts[place] = _plus(counts[place], vector) if place in counts else vector
                    for kind, rows in (("predictions", part.predictions), ("inputs", part.inputs)):
                        if rows is not None:
                            self._stage(connection, kind, part, rows, day=day_of(segment.ended_at), at=segment.ended_at)
            for key, window in windows.items():
                self._keep_window(connection, key, window)
            for place, vector in counts.items():
                self._keep_counts(connection, place, vector)
            for which, parts in evidence.items():
                self._keep_evidence(connection, which, parts)
            written = {(name, start) for name, start, *_ in windows} | {(name, start) for name, start, *_ in counts}
            changes.note(connection, [(name, (start, start + WINDOW_S)) for name, start in sorted(written)])
            return len(new)

    def _stage(self, connection: sqlite3.Connection, kind: str, part: Part, rows: Rows, *, day: str, at: float) -> None:
        body = msgspec.msgpack.encode(rows)
        form = repr([(item.name, item.datatype, item.shape) for item in rows.columns]) + (" by caller" if rows.groups else "")
        values = (kind, part.name, day, part.version, part.digest, form, at, len(body), body)
        connection.execute("INSERT INTO staged (kind, name, day, version, digest, form, at, size, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _keep_window(self, connection: sqlite3.Connection, key: tuple[str, int, int, Digest], window: Window) -> None:
        query = f"SELECT {_FIELDS} FROM windows WHERE name = ? AND start = ? AND version = ? AND digest = ?"  # noqa: S608  a constant
        had = connection.execute(query, key).fetchone()
        if had is not None:
            window.add(_read_window(had))
        _require_countable(window)
        blobs = [msgspec.msgpack.encode(value) for value in (window.latencies, window.failures, window.dropped, window.use)]
        values = (*key, window.started_at, window.ended_at, window.requests, window.rows, *blobs)
        connection.execute("INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _keep_counts(self, connection: sqlite3.Connection, place: tuple[str, int, Digest, float], vector: Array) -> None:
        query = "SELECT counts FROM profiles WHERE name = ? AND start = ? AND digest = ? AND share = ?"
        had = connection.execute(query, place).fetchone()
        if had is not None:
            vector = _plus(profile.unpack(had[0]), vector)
        connection.execute("INSERT OR REPLACE INTO profiles VALUES (?, ?, ?, ?, ?)", (*place, profile.pack(vector)))

    def _keep_evidence(self, connection: sqlite3.Connection, which: tuple[str, int, Digest], parts: list[tuple[float, int, Part]]) -> None:
        had = connection.execute("SELECT seen, at, second FROM evidence WHERE name = ? AND generation = ? AND digest = ?", which).fetchone()
        before = Second() if had is None else msgspec.msgpack.decode(had[2], type=Second)
        seen, second = continued(before, parts)
        at = max(at for at, _, _ in parts)
        if had is not None:
            seen, at = msgspec.msgpack.decode(had[0], type=Seen) + seen, max(at, had[1])
        values = (*which, at, msgspec.msgpack.encode(seen), msgspec.msgpack.encode(second))
        connection.execute("INSERT OR REPLACE INTO evidence (name, generation, digest, at, seen, second) VALUES (?, ?, ?, ?, ?, ?)", values)

    def pass_over(self, names: Iterable[str]) -> None:
        """Count segments as taken that nothing is kept of, so that nobody brings them again."""
        with self._translated(), self._transaction() as connection:
            _note(connection, names)

    def untaken(self, names: Iterable[str]) -> list[str]:
        """Of segments with these names those that were not taken in yet."""
        found: list[str] = []
        with self._translated():
            for source, group in _by_source(names).items():
                had = _taken(self._connection, source)
                found += [name for name, number in group if number not in had]
        return found

    def trouble(self, kind: str, count: int = 1) -> None:
        """Count what could not be kept."""
        with self._translated(), self._transaction() as connection:
            self._count(connection, kind, count)

    def _count(self, connection: sqlite3.Connection, kind: str, count: int) -> None:
        query = "INSERT INTO troubles VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET count = count + excluded.count"
        connection.execute(query, (kind, count))
        if count:
            connection.execute("INSERT OR REPLACE INTO troubles VALUES (?, ?)", (_AT + kind, int(time.time())))

    # Handing on to the log.

    def staged_bytes(self) -> tuple[int, float | None]:
        """How much waits for the log, and since when (None: nothing)."""
        with self._translated():
            size, oldest = self._connection.execute("SELECT coalesce(sum(size), 0), min(at) FROM staged").fetchone()
        return size, oldest

    def staged(self, *, limit_bytes: int) -> Iterator[Staged]:
        """What waits, group by group, each with at least one piece and no more than about `limit_bytes`."""
        while True:
            with self._translated():
                first = self._connection.execute(f"SELECT {_GROUP} FROM staged ORDER BY id LIMIT 1").fetchone()  # noqa: S608  a constant
                if first is None:
                    return
                query = f"SELECT id, size, body FROM staged WHERE ({_GROUP}) = (?, ?, ?, ?, ?, ?) ORDER BY id"  # noqa: S608  a constant
                taken: list[tuple[int, int, bytes]] = []
                size = 0
                for row in self._connection.execute(query, first):
                    if taken and size + row[1] > limit_bytes:
                        break
                    size += row[1]
                    taken.append(row)
            pieces = tuple(msgspec.msgpack.decode(body, type=Rows) for _, _, body in taken)
            kind, name, day, version, digest, form = first
            ids = [id_ for id_, _, _ in taken]
            yield Staged(
                kind=kind,
                name=name,
                day=day,
                version=version,
                digest=digest,
                form=form,
                first=ids[0],
                last=ids[-1],
                pieces=pieces,
                origin=self._origin,
            )

    def waiting(self, name: str) -> list[tuple[Digest, Rows]]:
        """The predictions of one deployment that wait for the log, by version; they go on waiting."""
        query = "SELECT digest, body FROM staged WHERE kind = 'predictions' AND name = ? ORDER BY id"
        with self._translated():
            found = self._connection.execute(query, (name,)).fetchall()
        return [(Digest(digest), msgspec.msgpack.decode(body, type=Rows)) for digest, body in found]

    def written(self, group: Staged) -> None:
        """The log has these rows: let go of them."""
        query = f"DELETE FROM staged WHERE ({_GROUP}) = (?, ?, ?, ?, ?, ?) AND id BETWEEN ? AND ?"  # noqa: S608  a constant
        of = (group.kind, group.name, group.day, group.version, group.digest, group.form)
        with self._translated(), self._transaction() as connection:
            connection.execute(query, (*of, group.first, group.last))

    # Telling.

    def seen(self, name: str, *, since: float) -> dict[tuple[int, Digest], Window]:
        """Per version and digest, what was seen in the windows that end after `since`."""
        query = f"SELECT version, digest, {_FIELDS} FROM windows WHERE name = ? AND start > ?"  # noqa: S608  a constant
        found: dict[tuple[int, Digest], Window] = {}
        with self._translated():
            for version, digest, *fields in self._connection.execute(query, (name, since - WINDOW_S)):
                _merge(found, (version, Digest(digest)), _read_window(fields))
            for span in ROLLED_S:
                query = "SELECT version, digest, body FROM rolled WHERE name = ? AND span = ? AND start > ?"
                for version, digest, blob in self._connection.execute(query, (name, span, since - span)):
                    _merge(found, (version, Digest(digest)), msgspec.msgpack.decode(blob, type=Window))
        return found

    def active_s(self, name: str, *, since: float) -> float:
        """How long workers had traffic in the windows that end after `since`: idle minutes, and idle ends of minutes, do not count."""
        with self._translated():
            total = _active_s(self._connection, name, since - WINDOW_S, math.inf)
            for span in ROLLED_S:
                query = "SELECT coalesce(sum(seconds), 0.0) FROM rolled_active WHERE name = ? AND span = ? AND start > ?"
                total += self._connection.execute(query, (name, span, since - span)).fetchone()[0]
        return total

    def counts(self, name: str, digest: Digest, *, since: float) -> Array | None:
        """The profile counts of one digest in the windows that end after `since`, all shares together; None where there are none."""
        total: Array | None = None
        with self._translated():
            blobs = self._connection.execute(
                "SELECT counts FROM profiles WHERE name = ? AND start > ? AND digest = ?", (name, since - WINDOW_S, digest)
            ).fetchall()
            for span in ROLLED_S:
                query = "SELECT counts FROM rolled_profiles WHERE name = ? AND span = ? AND start > ? AND digest = ?"
                blobs += self._connection.execute(query, (name, span, since - span, digest)).fetchall()
        for (blob,) in blobs:
            vector = profile.unpack(blob)
            total = vector if total is None else _plus(total, vector)
        return total

    def minutes(self, name: str, digest: Digest, *, since: float, until: float) -> list[Minute]:
        """What was seen of one digest in each minute that begins from `since` to before `until` and had any traffic; the oldest first.

        Of a time that is no longer kept by the minute the windows are longer (`span_s`), and there may be one for counters and another for counts:
        either way each second stands once in each. Counts that contradict each other within a window are none; counts without counters have no
        version (0).
        """
        windows: dict[tuple[int, int], tuple[int, Window]] = {}
        counts: dict[tuple[int, int], Array | None] = {}
        with self._translated():
            for start, span, version, window in self._spans(name, digest, since, until):
                if (start, span) in windows:  # one bundle under two numbers
                    window.add(windows[start, span][1])
                windows[start, span] = version, window
            for start, span, blob in self._counted(name, digest, since, until):
                vector, had = profile.unpack(blob), counts.get((start, span))
                if (start, span) in counts:
                    counts[start, span] = None if had is None or had.shape != vector.shape else had + vector
                else:
                    counts[start, span] = vector
        found = []
        for start, span in sorted({*windows, *counts}):
            version, window = windows.get((start, span), (0, Window(started_at=start, ended_at=start + span)))
            found.append(
                Minute(
                    start=start,
                    version=version,
                    digest=digest,
                    requests=window.requests,
                    rows=window.rows,
                    latencies=window.latencies,
                    failures=window.failures,
                    dropped=window.dropped,
                    counts=counts.get((start, span)),
                    use=window.use,
                    span_s=span,
                )
            )
        return found

    def changed(self, name: str, *, after: int) -> tuple[int, list[Stretch]]:
        """The number of the latest change to this file, and in which stretches windows of a deployment have changed after the change `after`."""
        with self._translated():
            return changes.since(self._connection, name, after)

    def _spans(self, name: str, digest: Digest, since: float, until: float) -> Iterator[tuple[int, int, int, Window]]:
        """Start, span, version and window of each that begins in a time; of one start and span the highest version last."""
        of = (name, digest, since, until)
        query = f"SELECT start, version, {_FIELDS} FROM windows WHERE name = ? AND digest = ? AND start >= ? AND start < ? ORDER BY start, version"  # noqa: S608  a constant
        for start, version, *fields in self._connection.execute(query, of):
            yield start, WINDOW_S, version, _read_window(fields)
        query = (
            "SELECT start, span, version, body FROM rolled WHERE name = ? AND digest = ? AND start >= ? AND start < ? ORDER BY span, start, version"
        )
        for start, span, version, blob in self._connection.execute(query, of):
            yield start, span, version, msgspec.msgpack.decode(blob, type=Window)

    def _counted(self, name: str, digest: Digest, since: float, until: float) -> Iterator[tuple[int, int, bytes]]:
        """Start, span and counts of each window that begins in a time."""
        of = (name, digest, since, until)
        query = "SELECT start, counts FROM profiles WHERE name = ? AND digest = ? AND start >= ? AND start < ?"
        for start, blob in self._connection.execute(query, of):
            yield start, WINDOW_S, blob
        query = "SELECT start, span, counts FROM rolled_profiles WHERE name = ? AND digest = ? AND start >= ? AND start < ?"
        yield from self._connection.execute(query, of)

    def hours(self, name: str, digest: Digest, *, since: float) -> dict[int, int]:
        """How many rows one digest answered in each hour that has any from `since` on, by the hour's beginning; of what is kept by the day alone, by
        the day's.
        """
        of = (name, digest, since - since % HOUR_S)
        query = "SELECT start / 3600 * 3600, sum(rows) FROM windows WHERE name = ? AND digest = ? AND start >= ? GROUP BY 1"
        with self._translated():
            found: dict[int, int] = dict(self._connection.execute(query, of).fetchall())
            for start, blob in self._connection.execute("SELECT start, body FROM rolled WHERE name = ? AND digest = ? AND start >= ?", of):
                found[start] = found.get(start, 0) + msgspec.msgpack.decode(blob, type=Window).rows
        return dict(sorted(found.items()))

    def evidence(self, name: str, generation: int) -> dict[Digest, Seen]:
        """Per digest, all that was seen while the plan of `name` had this generation."""
        query = "SELECT digest, seen FROM evidence WHERE name = ? AND generation = ?"
        with self._translated():
            found = self._connection.execute(query, (name, generation)).fetchall()
        return {Digest(digest): msgspec.msgpack.decode(blob, type=Seen) for digest, blob in found}

    def forget_evidence(self) -> None:
        """Drop all evidence: generations are about to be given again."""
        with self._translated(), self._transaction() as connection:
            connection.execute("DELETE FROM evidence")

    def names(self) -> tuple[str, ...]:
        """Every deployment that was ever seen and is still kept."""
        with self._translated():
            return tuple(sorted({*_names(self._connection, "windows"), *_names(self._connection, "rolled")}))

    def troubles(self) -> dict[str, int]:
        """How much could not be kept, or not where it belongs, since this file was made, by the kinds of TROUBLES."""
        with self._translated():
            found = self._connection.execute("SELECT kind, count FROM troubles ORDER BY kind").fetchall()
        return {kind: count for kind, count in found if not kind.startswith(_AT)}

    def troubled_at(self) -> dict[str, float]:
        """When each kind of trouble was last met (seconds since 1970, UTC), as far as that is known."""
        with self._translated():
            found = self._connection.execute("SELECT kind, count FROM troubles").fetchall()
        return {kind.removeprefix(_AT): float(at) for kind, at in found if kind.startswith(_AT)}

    # Making less of what is old.

    def oldest(self, table: Rollable, span: int) -> dict[str, int]:
        """By deployment, when its oldest window of that span begins."""
        of = _TABLE[table][span != WINDOW_S]
        where = "name = ?" if span == WINDOW_S else f"name = ? AND span = {span:d}"
        found = {}
        with self._translated():
            for name in _names(self._connection, of):
                start = self._connection.execute(f"SELECT min(start) FROM {of} WHERE {where}", (name,)).fetchone()[0]  # noqa: S608  constants
                if start is not None:
                    found[name] = start
        return found

    def roll(self, table: Rollable, name: str, start: int, *, span: int, into: int) -> None:
        """Make one window of `into` seconds, which begins at `start`, of all those of `span` seconds in it; exact, all or nothing.

        What came later than an earlier roll of the same window is added to it. Of counts of one digest in different bins the newest stay, and the
        others are counted as `rebinned`.
        """
        fine, coarse = (start, start + into, span), (name, into, start)
        with self._translated(), self._transaction() as connection:
            if table == "profiles":
                if rebinned := _roll_profiles(connection, name, fine, coarse):
                    self._count(connection, "rebinned", rebinned)
            else:
                _roll_windows(connection, name, fine, coarse)
            changes.note(connection, [(name, (start, start + into))])

    def believed(self) -> float | None:
        """What time it was last believed to be (`monitor.retention`); None where it never was."""
        with self._translated():
            found = self._connection.execute("SELECT at FROM believed").fetchone()
        return None if found is None else float(found[0])

    def believe(self, at: float) -> None:
        """Remember what time it is believed to be."""
        with self._translated(), self._transaction() as connection:
            connection.execute("DELETE FROM believed")
            connection.execute("INSERT INTO believed VALUES (?)", (at,))

    def forget(self, *, before: float, waiting: Iterable[str], silent_s: Callable[[str], float] = lambda _: math.inf) -> None:
        """Drop what ended before a time, and which segments were taken of a source from which none has come for `silent_s(source)`.

        Those of a source of which some still wait are kept, or they would be taken again.
        """
        kept = {numbered(name)[0] for name in waiting}
        now = time.time()
        with self._translated(), self._transaction() as connection:
            for table in ("windows", "profiles"):
                connection.execute(f"DELETE FROM {table} WHERE start < ?", (before,))  # noqa: S608  a constant
            for table in ("rolled", "rolled_profiles", "rolled_active"):
                connection.execute(f"DELETE FROM {table} WHERE start + span <= ?", (before,))  # noqa: S608  a constant
            changes.forgotten(connection, math.ceil(before))
            connection.execute("DELETE FROM evidence WHERE at < ?", (before,))
            sources = connection.execute("SELECT source, at FROM sources").fetchall()
            gone = [(source,) for source, at in sources if source not in kept and abs(now - at) > silent_s(source)]
            connection.executemany("DELETE FROM sources WHERE source = ?", gone)


def _refine(connection: sqlite3.Connection) -> None:
    """Put the latencies of format 1 into today's buckets."""
    key = ("name", "start", "version", "digest")
    for row in connection.execute(f"SELECT latencies, {', '.join(key)} FROM windows").fetchall():  # noqa: S608  constants
        latencies = refined(msgspec.msgpack.decode(row[0], type=dict[int, int]))
        query = "UPDATE windows SET latencies = ? WHERE name = ? AND start = ? AND version = ? AND digest = ?"
        connection.execute(query, (msgspec.msgpack.encode(latencies), *row[1:]))


def _number(connection: sqlite3.Connection) -> None:
    """Put the names of what was taken in, which formats 1 and 2 kept one by one, into ranges."""
    names = [name for (name,) in connection.execute("SELECT name FROM taken")]
    _note(connection, names)
    connection.execute("DROP TABLE taken")


# -- which segments were taken ---------------------------------------------------------------------------------------------------------------


def _by_source(names: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = {}
    for name in names:
        source, number = numbered(name)
        found.setdefault(source, []).append((name, number))
    return found


def _taken(connection: sqlite3.Connection, source: str) -> Ranges:
    had = connection.execute("SELECT numbers FROM sources WHERE source = ?", (source,)).fetchone()
    return Ranges() if had is None else Ranges.decode(had[0])


def _note(connection: sqlite3.Connection, names: Iterable[str]) -> list[str]:
    """Write down that these are taken; those that were not before, in their order."""
    now = time.time()
    new = set()
    asked = list(names)
    for source, group in _by_source(asked).items():
        had = _taken(connection, source)
        new |= {name for name, number in group if had.add(number)}
        connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?)", (source, had.encode(), now))
    return [name for name in asked if name in new]


# -- minutes into hours, hours into days -----------------------------------------------------------------------------------------------------

_Fine = tuple[int, int, int]
"""From when to before when, and of which span the windows are."""
_Coarse = tuple[str, int, int]
"""The deployment, the span and the start of the window to be."""


def _roll_windows(connection: sqlite3.Connection, name: str, fine: _Fine, coarse: _Coarse) -> None:
    first, end, span = fine
    total: dict[tuple[int, Digest], Window] = {}
    if span == WINDOW_S:
        query = f"SELECT version, digest, {_FIELDS} FROM windows WHERE name = ? AND start >= ? AND start < ?"  # noqa: S608  a constant
        for version, digest, *fields in connection.execute(query, (name, first, end)):
            _merge(total, (version, Digest(digest)), _read_window(fields))
        active_s = _active_s(connection, name, first - 1, end)
        connection.execute("DELETE FROM windows WHERE name = ? AND start >= ? AND start < ?", (name, first, end))
    else:
        query = "SELECT version, digest, body FROM rolled WHERE name = ? AND span = ? AND start >= ? AND start < ?"
        for version, digest, blob in connection.execute(query, (name, span, first, end)):
            _merge(total, (version, Digest(digest)), msgspec.msgpack.decode(blob, type=Window))
        query = "SELECT coalesce(sum(seconds), 0.0) FROM rolled_active WHERE name = ? AND span = ? AND start >= ? AND start < ?"
        active_s = connection.execute(query, (name, span, first, end)).fetchone()[0]
        for table in ("rolled", "rolled_active"):
            query = f"DELETE FROM {table} WHERE name = ? AND span = ? AND start >= ? AND start < ?"  # noqa: S608  a constant
            connection.execute(query, (name, span, first, end))
    for (version, digest), window in total.items():
        query = "SELECT body FROM rolled WHERE name = ? AND span = ? AND start = ? AND version = ? AND digest = ?"
        had = connection.execute(query, (*coarse, version, digest)).fetchone()
        if had is not None:
            window.add(msgspec.msgpack.decode(had[0], type=Window))
        connection.execute("INSERT OR REPLACE INTO rolled VALUES (?, ?, ?, ?, ?, ?)", (*coarse, version, digest, msgspec.msgpack.encode(window)))
    query = "INSERT INTO rolled_active VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds"
    connection.execute(query, (*coarse, active_s))


def _roll_profiles(connection: sqlite3.Connection, name: str, fine: _Fine, coarse: _Coarse) -> int:
    """How many windows were let go for their bins."""
    first, end, span = fine
    table, of = ("profiles", "") if span == WINDOW_S else ("rolled_profiles", f" AND span = {span:d}")
    where = f"FROM {table} WHERE name = ?{of} AND start >= ? AND start < ?"
    rows = connection.execute(f"SELECT digest, share, counts {where} ORDER BY start", (name, first, end)).fetchall()
    connection.execute(f"DELETE {where}", (name, first, end))
    known = connection.execute("SELECT digest, share, counts FROM rolled_profiles WHERE name = ? AND span = ? AND start = ?", coarse).fetchall()
    total: dict[tuple[str, float], Array] = {}
    rebinned = 0
    for digest, share, blob in (*known, *rows):
        vector, had = profile.unpack(blob), total.get((digest, share))
        is_other = had is not None and had.shape != vector.shape
        rebinned += is_other
        total[digest, share] = vector if had is None or is_other else had + vector
    for key, vector in total.items():
        connection.execute("INSERT OR REPLACE INTO rolled_profiles VALUES (?, ?, ?, ?, ?, ?)", (*coarse, *key, profile.pack(vector)))
    return rebinned


def _active_s(connection: sqlite3.Connection, name: str, after: float, end: float) -> float:
    """How long there was traffic in the minutes that begin after `after` and before `end`."""
    query = "SELECT max(ended_at) - min(started_at) FROM windows WHERE name = ? AND start > ? AND start < ? GROUP BY start"
    return sum(min(max(0.0, float(seconds)), float(WINDOW_S)) for (seconds,) in connection.execute(query, (name, after, end)))


def _names(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    """The deployments in a table, by a look-up each and not through all rows."""
    query = f"SELECT min(name) FROM {table} WHERE name > ?"  # noqa: S608  a constant
    name: str | None = ""
    while name is not None:
        name = connection.execute(query, (name,)).fetchone()[0]
        if name is not None:
            yield name


_TABLE: dict[Rollable, tuple[str, str]] = {"windows": ("windows", "rolled"), "profiles": ("profiles", "rolled_profiles")}
_GROUP = "kind, name, day, version, digest, form"
_FIELDS = "started_at, ended_at, requests, rows, latencies, failures, dropped, use"


def _window(segment: Segment, part: Part) -> Window:
    return Window(
        started_at=segment.started_at,
        ended_at=segment.ended_at,
        requests=part.requests,
        rows=part.rows,
        latencies=dict(part.latencies),
        failures=part.failures,
        dropped=part.dropped,
        use=part.use or Use(),
    )


def _require_countable(window: Window) -> None:
    """Raises Conflict for counts that no traffic reaches: added up further they would not fit their columns, and nothing more could be taken in."""
    counts = [window.requests, window.rows, *window.latencies.values(), *window.dropped.values(), *msgspec.structs.astuple(window.use)]
    counts += [each.requests for each in window.failures.values()]
    if max(counts) >= COUNT_LIMIT:
        raise Conflict("counts that no window of a minute holds")


def _read_window(fields: Any) -> Window:
    started_at, ended_at, requests, rows, latencies, failures, dropped, use = fields
    return Window(
        started_at=started_at,
        ended_at=ended_at,
        requests=requests,
        rows=rows,
        latencies=msgspec.msgpack.decode(latencies, type=dict[int, int]),
        failures=msgspec.msgpack.decode(failures, type=dict[str, Failures]),
        dropped=msgspec.msgpack.decode(dropped, type=dict[str, int]),
        use=msgspec.msgpack.decode(use, type=Use),
    )


def _merge(windows: dict[K, Window], key: K, window: Window) -> None:
    if key in windows:
        windows[key].add(window)
    else:
        windows[key] = window


def _plus(left: Array, right: Array) -> Array:
    if left.shape != right.shape:
        raise Conflict("profile counts of one digest that have different bins")
    return left + right
