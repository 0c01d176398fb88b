"""True answers, as they come: late, twice, changed, or for predictions that nobody logged; joined with the prediction log by prediction id.

Hides the ledger (one SQLite file of the home) and how a label finds its prediction: in the log's Parquet files, by DuckDB, or among the rows that
still wait for it; once, so that what is asked later does not depend on how long the log is. The newest label of an id stands; those that it took the
place of stay as conflicts. It must not judge; truths and answers are compared as texts.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from modelyard import events
from modelyard.config import Settings
from modelyard.errors import InvalidInput, Unavailable, UnsupportedFormat
from modelyard.monitor.database import Database
from modelyard.types import Digest, Scalar

if TYPE_CHECKING:
    from modelyard.monitor.log import PredictionLog
    from modelyard.monitor.windows import Windows
    from modelyard.types import Array

_TABLES = """
CREATE TABLE IF NOT EXISTS labels (name TEXT NOT NULL, id TEXT NOT NULL, truth TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (name, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS received (name TEXT PRIMARY KEY, new INTEGER NOT NULL, same INTEGER NOT NULL, changed INTEGER NOT NULL) WITHOUT ROWID;
"""
_JOINED = """
ALTER TABLE labels ADD COLUMN first_at REAL NOT NULL DEFAULT 0;
ALTER TABLE labels ADD COLUMN known_at REAL NOT NULL DEFAULT 0;
ALTER TABLE labels ADD COLUMN looked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE labels ADD COLUMN found INTEGER NOT NULL DEFAULT 0;
UPDATE labels SET first_at = at, known_at = at;
ALTER TABLE received ADD COLUMN outdated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE received ADD COLUMN future INTEGER NOT NULL DEFAULT 0;
CREATE INDEX labels_open ON labels (name, looked, at) WHERE found = 0;
CREATE TABLE conflicts (name TEXT NOT NULL, id TEXT NOT NULL, truth TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX conflicts_by_id ON conflicts (name, id);
CREATE TABLE joined (
  number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, id TEXT NOT NULL, digest TEXT NOT NULL, answered REAL NOT NULL,
  came REAL NOT NULL, truth TEXT NOT NULL, predicted TEXT, probability BLOB
);
CREATE UNIQUE INDEX joined_by_id ON joined (name, id);
CREATE INDEX joined_by_time ON joined (name, digest, answered);
CREATE INDEX joined_by_number ON joined (name, digest, number);
CREATE TABLE searched (name TEXT NOT NULL, file TEXT NOT NULL, PRIMARY KEY (name, file)) WITHOUT ROWID;
CREATE TABLE refused (name TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (name, id)) WITHOUT ROWID;
"""
_GROUPED = """
ALTER TABLE joined ADD COLUMN caller INTEGER;
"""
_NUMBERED = """
ALTER TABLE labels ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE labels SET number = 1 WHERE found = 0 AND looked = 0;
CREATE TABLE numbers (name TEXT PRIMARY KEY, last INTEGER NOT NULL, looked INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO numbers SELECT DISTINCT name, 1, 0 FROM labels;
DROP INDEX labels_open;
CREATE INDEX labels_new ON labels (name, number) WHERE found = 0;
CREATE INDEX labels_open ON labels (name, at, number) WHERE found = 0;
"""
_STEPS = (_TABLES, _JOINED, _GROUPED, _NUMBERED)
"""What each format adds to the one before it. A file of the first has no number of its own; since the fourth `looked` of a label says nothing, it is
told by its number: those up to `numbers.looked` were looked for.
"""
VERSION = len(_STEPS)
ID_LIMIT = 1000
TRUTH_LIMIT = 1000
BATCH = 10_000
"""The most labels that are given at once."""
AHEAD_S = 86_400.0
"""A label from further ahead than this is refused: the clock that dated it is wrong."""
RETRIED_S = 86_400.0
RETRIED = 100_000
"""For how long, and of how many labels at most, it is looked whether their predictions are logged after all."""
_AT_ONCE = 500
_PROBES = 16
_WRITTEN_AT_ONCE = 2_000
"""So many rows are written in one transaction where there may be a million: others write in between."""
_ADDED_AT_ONCE = 200
"""So many rows one statement adds: each by a statement of its own costs twice as much."""
_BOOLEANS, _NUMBERS = (bool, np.bool_), (int, float, np.number)
_NAMED = 3
_DAY_S = 86_400


def labels_path(settings: Settings) -> Path:
    """Where a home keeps its labels."""
    return settings.home / "labels.sqlite"


class Given(NamedTuple):
    """One label: of which prediction, what is true, and since when that is known (seconds since 1970; None: now)."""

    id: str
    truth: Scalar
    known_at: float | None = None


Unchecked = Given | tuple[str, Scalar] | tuple[str, Scalar, float | None]
"""A label as somebody gives it."""


class Sheet(NamedTuple):
    """Labels as columns: of which predictions, what is true as it is compared, since when that is known; and when all were given."""

    ids: Sequence[str]
    truths: Sequence[str]
    known: Sequence[float]
    at: float


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What labels were: of an id not seen before, the same as before, or another than before (which stands from now on).

    `outdated` are others that were known earlier than the one that stands, `future` those dated more than a day ahead, which are not kept.
    """

    new: int = 0
    same: int = 0
    changed: int = 0
    outdated: int = 0
    future: int = 0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """All labels of one deployment: `matched` a logged prediction, `unknown` are of no prediction, and of the `unsampled` nobody can tell.

    For these the log kept a share of the predictions in which theirs would not be, if there were any. `predictions` were logged. `received` tells how
    the labels came. Of the matched, `late` came after the day (UTC) of their prediction, `mistyped` are no answer that the model could give;
    `conflicting` ids have had different labels. `named` gives some ids of each kind that needs a look.
    """

    labels: int
    matched: int
    unsampled: int
    unknown: int
    predictions: int
    received: Received
    late: int = 0
    mistyped: int = 0
    conflicting: int = 0
    named: dict[str, tuple[str, ...]] = {}


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled predictions of one version, a row each: when answered (seconds since 1970), truth and answer as texts, probabilities (or empty).

    `numbers` count the predictions of the home whose truth was found, in the order in which it was. `groups` are of their callers (`events.Callers`;
    -1: it did not stay with a version); None where nobody asked for them.
    """

    times: Any
    truth: Any
    predicted: Any
    probability: Any
    numbers: Any = None
    groups: Any = None


class Match(NamedTuple):
    """A logged prediction: when it was answered, by which digest, its label or number (None: no single one), its probabilities, if any, and the group
    of its caller, if it has one.
    """

    at: float
    digest: str
    answer: Any
    probability: Any
    group: int | None = None


class _Label(NamedTuple):
    """One that stands; `is_new` and `is_newer`: what of it is still to be written."""

    truth: str
    known_at: float
    at: float
    is_found: bool = False
    is_new: bool = False
    is_newer: bool = False


class Ledger(Database):
    """The file. One thread owns an instance; any number of instances may be open. A file of an older release is carried on in place.

    Raises StorageFull, Unavailable, Tampered, or UnsupportedFormat (made by a newer release).
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, when_full="free some space and send the labels again")
        self._opened: dict[str, int] = {}
        with self._translated():
            found = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if found < VERSION:
                with self._transaction() as connection:
                    found = connection.execute("PRAGMA user_version").fetchone()[0]
                    for statement in "".join(_STEPS[found:]).split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={VERSION:d}")
        if found > VERSION:
            self.close()
            raise UnsupportedFormat(f"{path.name} was written by a newer release of modelyard")

    # Taking in.

    def give(self, name: str, labels: Sequence[Unchecked], *, at: float) -> Received:
        """Keep the labels of a deployment's predictions, by prediction id, all or none. Raises InvalidInput for what is no label."""
        return self.keep([(name, sheet(labels, at=at))])[0]

    def keep(self, sheets: Sequence[tuple[str, Sheet]]) -> list[Received]:
        """Keep labels of deployments in one transaction, in this order, all or none; what those of each sheet were."""
        with self._translated(), self._transaction() as connection:
            return [self._keep_sheet(connection, name, each) for name, each in sheets]

    def _keep_sheet(self, connection: sqlite3.Connection, name: str, labels: Sheet) -> Received:
        counts = dict.fromkeys(Received.__struct_fields__, 0)
        if _are_written_as_new(connection, name, labels):
            counts["new"] = len(labels.ids)
        else:
            had = _had(connection, name, labels.ids)
            for label in zip(labels.ids, labels.truths, labels.known, strict=True):
                counts[self._keep(connection, name, label, labels.at, had)] += 1
            _write(connection, name, had, labels.at)
        fields = ", ".join(counts)
        added = ", ".join(f"{field} = {field} + excluded.{field}" for field in counts)
        marks = ", ".join("?" * len(counts))
        query = f"INSERT INTO received (name, {fields}) VALUES (?, {marks}) ON CONFLICT (name) DO UPDATE SET {added}"  # noqa: S608  names of ours
        connection.execute(query, (name, *counts.values()))
        return Received(**counts)

    def _keep(self, connection: sqlite3.Connection, name: str, label: tuple[str, str, float], at: float, had: dict[str, _Label]) -> str:
        """What becomes of one label: of which id, what is true, since when that is known. `had` are those that stand, and is brought up to date."""
        key, truth, known_at = label
        if known_at > at + AHEAD_S:
            connection.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", (name, key, at))
            query = "DELETE FROM refused WHERE name = ?1 AND id NOT IN (SELECT id FROM refused WHERE name = ?1 ORDER BY at DESC LIMIT ?2)"
            connection.execute(query, (name, _NAMED))
            return "future"
        stood = had.get(key)
        if stood is None:
            had[key] = _Label(truth, known_at, at, is_new=True)
            return "new"
        if stood.truth == truth:
            had[key] = stood._replace(at=max(stood.at, at), known_at=max(stood.known_at, known_at), is_newer=True)
            return "same"
        if (known_at, at) < (stood.known_at, stood.at):
            connection.execute("INSERT INTO conflicts VALUES (?, ?, ?, ?)", (name, key, truth, at))
            return "outdated"
        connection.execute("INSERT INTO conflicts VALUES (?, ?, ?, ?)", (name, key, stood.truth, stood.at))
        had[key] = stood._replace(truth=truth, known_at=known_at, at=at, is_newer=True)
        if stood.is_found:
            connection.execute("UPDATE joined SET truth = ? WHERE name = ? AND id = ?", (truth, name, key))
        return "changed"

    # Finding predictions.

    def open(self, name: str, *, now: float) -> tuple[list[str], list[str]]:
        """The ids without a prediction: those that were never looked for, and those that may still be logged. `match` says what was found of them."""
        with self._translated():
            last, looked = self._numbers(name)
            self._opened[name] = last
            query = "SELECT id FROM labels WHERE name = ? AND found = 0 AND number > ? AND number <= ?"
            new = [key for (key,) in self._connection.execute(query, (name, looked, last))]
            query = "SELECT id FROM labels WHERE name = ? AND found = 0 AND at >= ? AND number <= ? ORDER BY at DESC LIMIT ?"
            return new, [key for (key,) in self._connection.execute(query, (name, now - RETRIED_S, looked, RETRIED))]

    def _numbers(self, name: str) -> tuple[int, int]:
        """The number of the last label of a deployment, and up to which number they were looked for."""
        found = self._connection.execute("SELECT last, looked FROM numbers WHERE name = ?", (name,)).fetchone()
        return (0, 0) if found is None else (int(found[0]), int(found[1]))

    def searched(self, name: str) -> set[str]:
        """The log's files in which every id was looked for that has no prediction."""
        with self._translated():
            return {file for (file,) in self._connection.execute("SELECT file FROM searched WHERE name = ?", (name,))}

    def match(self, name: str, found: Mapping[str, Match], *, files: Iterable[str]) -> None:
        """Keep which predictions were found of the ids that `open` gave last, and in which files it was looked for all of them.

        A file counts as searched only where every id was looked for that was called looked for and may still be: another process may be at this too.
        A few thousand are kept at a time, so that labels that come meanwhile do not wait; one that is left by a crash is looked for again.
        """
        ordered = sorted(found.items(), key=lambda item: item[1].at)
        with self._translated():
            for start in range(0, len(ordered), _WRITTEN_AT_ONCE):
                with self._transaction() as connection:
                    for key, match in ordered[start : start + _WRITTEN_AT_ONCE]:
                        _join(connection, name, key, match)
            with self._transaction() as connection:
                searched, until = {*files}, self._opened.get(name, 0)
                if self._numbers(name)[1] > until:  # what came since was looked for by another, in the files that it knew
                    searched &= {file for (file,) in connection.execute("SELECT file FROM searched WHERE name = ?", (name,))}
                else:
                    connection.execute("UPDATE numbers SET looked = ? WHERE name = ?", (until, name))
                connection.execute("DELETE FROM searched WHERE name = ?", (name,))
                connection.executemany("INSERT INTO searched VALUES (?, ?)", [(name, file) for file in sorted(searched)])

    def joined(self, name: str, *, since: float) -> dict[Digest, Answers]:
        """The labelled predictions that were answered from `since` on, by version, in the order of their answers."""
        query = """SELECT digest, answered, truth, predicted, probability, number, coalesce(caller, -1) FROM joined
            WHERE name = ? AND answered >= ? AND predicted IS NOT NULL ORDER BY answered, number"""
        by_digest: dict[Digest, list[Any]] = {}
        with self._translated():
            for of, *row in self._connection.execute(query, (name, since)):
                by_digest.setdefault(Digest(of), []).append(row)
        return {of: _stacked(each) for of, each in by_digest.items()}

    def newer(self, name: str, digest: Digest, *, after: int, most: int) -> tuple[int, Answers | None]:
        """The last number, and the labelled predictions of one version with a number above `after`, at most `most`, in the order of their answers."""
        query = """SELECT answered, truth, predicted, probability, number, coalesce(caller, -1) FROM joined
            WHERE name = ? AND digest = ? AND number > ? AND predicted IS NOT NULL ORDER BY number DESC LIMIT ?"""
        with self._translated():
            rows = self._connection.execute(query, (name, digest, after, most)).fetchall()
        if not rows:
            return after, None
        return rows[0][-2], _stacked(sorted(rows, key=lambda row: (row[0], row[-2])))

    def changes(self, name: str) -> int:
        """How many labels have taken the place of another so far: while it is the same, so are the truths of what was joined."""
        with self._translated():
            found = self._connection.execute("SELECT changed FROM received WHERE name = ?", (name,)).fetchone()
        return 0 if found is None else int(found[0])

    # Telling.

    def labels(self, name: str) -> dict[str, str]:
        """The label that stands for each id."""
        with self._translated():
            return dict(self._connection.execute("SELECT id, truth FROM labels WHERE name = ?", (name,)))

    def of(self, name: str, ids: Sequence[str]) -> dict[str, str]:
        """The label that stands for each of `ids` that has one."""
        found: dict[str, str] = {}
        with self._translated():
            for start in range(0, len(ids), _AT_ONCE):
                part = ids[start : start + _AT_ONCE]
                query = f"SELECT id, truth FROM labels WHERE name = ? AND id IN ({', '.join('?' * len(part))})"  # noqa: S608  question marks
                found |= dict(self._connection.execute(query, (name, *part)))
        return found

    def received(self, name: str) -> Received:
        """How all labels of a deployment came."""
        fields = Received.__struct_fields__
        with self._translated():
            found = self._connection.execute(f"SELECT {', '.join(fields)} FROM received WHERE name = ?", (name,)).fetchone()  # noqa: S608  names of ours
        return Received() if found is None else Received(**dict(zip(fields, found, strict=True)))

    def conflicts(self, name: str) -> dict[str, tuple[str, ...]]:
        """Of each id that has had different labels those that do not stand, in the order in which they came."""
        found: dict[str, tuple[str, ...]] = {}
        with self._translated():
            for key, truth in self._connection.execute("SELECT id, truth FROM conflicts WHERE name = ? ORDER BY rowid", (name,)):
                found[key] = (*found.get(key, ()), truth)
        return found

    def refused(self, name: str) -> tuple[str, ...]:
        """Some ids whose labels were dated too far ahead, the latest."""
        with self._translated():
            return tuple(key for (key,) in self._connection.execute("SELECT id FROM refused WHERE name = ? ORDER BY at DESC", (name,)))

    def unmatched(self, name: str, *, most: int = -1) -> list[str]:
        """The ids whose prediction was not found, at most so many."""
        with self._translated():
            return [key for (key,) in self._connection.execute("SELECT id FROM labels WHERE name = ? AND found = 0 LIMIT ?", (name, most))]

    def alone(self, name: str) -> int:
        """How many labels there are whose prediction was not found."""
        with self._translated():
            return int(self._connection.execute("SELECT count(*) FROM labels WHERE name = ? AND found = 0", (name,)).fetchone()[0])

    def matched(self, name: str) -> tuple[int, int]:
        """How many labels have their prediction, and how many of these came after its day (UTC)."""
        query = "SELECT count(*), coalesce(sum(came >= (CAST(answered AS INTEGER) / ?1 + 1) * ?1), 0) FROM joined WHERE name = ?2"
        with self._translated():
            found = self._connection.execute(query, (_DAY_S, name)).fetchone()
        return int(found[0]), int(found[1])

    def truths(self, name: str) -> list[tuple[Digest, str, int, str]]:
        """Of the labels that have their prediction: by which version, what is true, how many, and one id of them."""
        query = "SELECT digest, truth, count(*), min(id) FROM joined WHERE name = ? GROUP BY digest, truth"
        with self._translated():
            return [(Digest(digest), truth, count, key) for digest, truth, count, key in self._connection.execute(query, (name,))]

    def forget(self, *, before: float) -> None:
        """Drop labels that came before a time, and those of predictions that were answered before it: these are no longer kept."""
        with self._translated():
            old = self._connection.execute("SELECT name, id FROM labels WHERE at < ?", (before,)).fetchall()
            gone = self._connection.execute("SELECT name, id FROM joined WHERE answered < ?", (before,)).fetchall()
            for start in range(0, len(old), _WRITTEN_AT_ONCE):
                part = old[start : start + _WRITTEN_AT_ONCE]
                with self._transaction() as connection:
                    connection.executemany("DELETE FROM labels WHERE name = ? AND id = ? AND at < ?", [(*each, before) for each in part])
                    alone = "NOT EXISTS (SELECT 1 FROM labels WHERE labels.name = joined.name AND labels.id = joined.id)"
                    connection.executemany(f"DELETE FROM joined WHERE name = ? AND id = ? AND {alone}", part)  # noqa: S608  a constant
            for start in range(0, len(gone), _WRITTEN_AT_ONCE):
                part = gone[start : start + _WRITTEN_AT_ONCE]
                with self._transaction() as connection:
                    connection.executemany("DELETE FROM joined WHERE name = ? AND id = ?", part)
                    connection.executemany("DELETE FROM labels WHERE name = ? AND id = ? AND found = 1", part)
            with self._transaction() as connection:
                connection.execute("DELETE FROM conflicts WHERE at < ?", (before,))
                connection.execute("DELETE FROM refused WHERE at < ?", (before,))


def _join(connection: sqlite3.Connection, name: str, key: str, match: Match) -> None:
    """Keep the prediction of one label, unless another thread was faster."""
    label = connection.execute("SELECT truth, first_at FROM labels WHERE name = ? AND id = ? AND found = 0", (name, key)).fetchone()
    if label is None:
        return
    values = (name, key, match.digest, match.at, label[1], label[0], _answer(match.answer), _packed(match.probability), match.group)
    query = """INSERT OR IGNORE INTO joined (name, id, digest, answered, came, truth, predicted, probability, caller)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
    connection.execute(query, values)
    connection.execute("UPDATE labels SET found = 1 WHERE name = ? AND id = ?", (name, key))


def _had(connection: sqlite3.Connection, name: str, ids: Sequence[str]) -> dict[str, _Label]:
    """The labels that stand of these ids."""
    found = {}
    wanted = sorted(set(ids))  # side by side in the file
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        query = f"SELECT id, truth, known_at, at, found FROM labels WHERE name = ? AND id IN ({', '.join('?' * len(part))})"  # noqa: S608  question marks
        for key, truth, known_at, at, is_found in connection.execute(query, (name, *part)):
            found[key] = _Label(truth, known_at, at, is_found=bool(is_found))
    return found


def _are_written_as_new(connection: sqlite3.Connection, name: str, labels: Sheet) -> bool:
    """Write labels that are all of ids not seen before, as most of many are, without looking for each; whether they are. Else nothing is written."""
    ids = labels.ids
    if len(ids) < _PROBES or len(set(ids)) < len(ids) or max(labels.known) > labels.at + AHEAD_S:
        return False
    if _had(connection, name, ids[:: max(1, len(ids) // _PROBES)]):
        return False
    connection.execute("SAVEPOINT new")
    try:
        _add(connection, name, labels)
        is_new = True
    except sqlite3.IntegrityError:
        connection.execute("ROLLBACK TO new")
        is_new = False
    connection.execute("RELEASE new")  # which a full disk takes away with all else
    return is_new


def _adding(rows: int) -> str:
    numbered = ", ".join(f"(?, ?, ?, {place:d})" for place in range(rows))
    return f"""INSERT INTO labels (name, at, first_at, number, id, truth, known_at)
        SELECT ?, ?, ?, ? + column4, column1, column2, column3 FROM (VALUES {numbered})"""  # noqa: S608  question marks and numbers


_ADD_ONE, _ADD_MANY = _adding(1), _adding(_ADDED_AT_ONCE)


def _add(connection: sqlite3.Connection, name: str, labels: Sheet) -> None:
    """Write labels of ids that are not there, in the order in which they lie in the file, each with its number."""
    count = len(labels.ids)
    if not count:
        return
    connection.execute("INSERT INTO numbers VALUES (?, ?, 0) ON CONFLICT (name) DO UPDATE SET last = last + excluded.last", (name, count))
    first = connection.execute("SELECT last FROM numbers WHERE name = ?", (name,)).fetchone()[0] - count + 1
    rows = sorted(zip(labels.ids, labels.truths, labels.known, strict=True))
    whole = count - count % _ADDED_AT_ONCE
    for start in range(0, whole, _ADDED_AT_ONCE):
        values = chain.from_iterable(rows[start : start + _ADDED_AT_ONCE])
        connection.execute(_ADD_MANY, (name, labels.at, labels.at, first + start, *values))
    rest = ((name, labels.at, labels.at, first + place, *rows[place]) for place in range(whole, count))
    connection.executemany(_ADD_ONE, rest)


def _write(connection: sqlite3.Connection, name: str, labels: Mapping[str, _Label], at: float) -> None:
    """Write what is to be written of them, in the order in which they lie in the file; those that are new were given at `at`."""
    new = {key: each for key, each in labels.items() if each.is_new}
    _add(connection, name, Sheet([*new], [each.truth for each in new.values()], [each.known_at for each in new.values()], at))
    newer = [(each.truth, each.at, each.known_at, name, key) for key, each in labels.items() if each.is_newer and not each.is_new]
    connection.executemany("UPDATE labels SET truth = ?, at = ?, known_at = ? WHERE name = ? AND id = ?", newer)


def sheet(labels: Sequence[Unchecked], *, at: float) -> Sheet:
    """Labels as a ledger keeps them. Raises InvalidInput for what is no label, and for too many."""
    if len(labels) > BATCH:
        raise InvalidInput(f"at most {BATCH:,} labels are taken at once", field="labels", rule="count")
    ids = [each[0] for each in labels]
    if not (all(ids) and max(map(len, ids), default=0) <= ID_LIMIT):
        raise InvalidInput(f"a prediction id has 1 to {ID_LIMIT} characters", field="labels", rule="id")
    known = [_dated(each[2], at) if len(each) == 3 else at for each in labels]
    return Sheet(ids, [text(each[1]) for each in labels], known, at)


def text(value: Scalar | None) -> str:
    """A truth or an answer as it is compared: 1, 1.0 and "1" are the same. Raises InvalidInput for what is no answer."""
    if type(value) is str and len(value) <= TRUTH_LIMIT:  # what nearly all are, without numpy's slower questions
        return value
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if type(value) is not float and isinstance(value, _BOOLEANS):
        return str(bool(value))
    if type(value) is float or isinstance(value, _NUMBERS):
        try:
            number = float(value)
        except OverflowError:  # a whole number may have any number of digits
            number = math.inf
        if not math.isfinite(number):
            raise InvalidInput("a label is a text, a finite number or true or false", field="labels", rule="truth")
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    if not isinstance(value, str) or len(value) > TRUTH_LIMIT:
        raise InvalidInput(f"a label is a text of at most {TRUTH_LIMIT} characters, a finite number or true or false", field="labels", rule="truth")
    return value


def join(ledger: Ledger, log: PredictionLog, windows: Windows, name: str, *, now: float) -> int:
    """Find the predictions of the labels that have none yet; how many were found. Of one id the latest that is logged by then counts.

    A label is looked for in the whole log once, from its newest day back until all are found, and afterwards in what is logged anew.
    """
    new, old = ledger.open(name, now=now)
    if not new and not old:
        return 0
    # What waits is read first: it only ever moves into the files, so that nothing is missed.
    found = _latest(_waiting(windows, name, {*new, *old}))
    searched = ledger.searched(name)
    try:
        files = _search(log, name, (new, old), searched, found)
    except Unavailable:  # files that were put together since they were listed
        files = _search(log, name, (new, old), searched, found)
    ledger.match(name, found, files=files)
    return len(found)


def _search(log: PredictionLog, name: str, ids: tuple[Sequence[str], Sequence[str]], searched: Collection[str], found: dict[str, Match]) -> list[str]:
    """Add to `found` what the log's files have of the new and the old `ids`, these only in files not `searched` yet; the names of all files."""
    new, old = ids
    files = log.files("predictions", name)
    for _, group in groupby(reversed(files), key=lambda file: file.parent.name):
        day = list(group)
        for wanted, among in (
            (new, [file for file in day if file.name in searched]),
            ([*new, *old], [file for file in day if file.name not in searched]),
        ):
            rest = [key for key in wanted if key not in found]
            if rest and among:
                found |= _latest(log.find(name, rest, among))
    return [file.name for file in files]


def answers(ledger: Ledger, log: PredictionLog, windows: Windows, name: str, *, since: float, now: float) -> dict[Digest, Answers]:
    """The labelled predictions of a deployment that were answered from `since` on, by version; of one id the latest prediction counts."""
    join(ledger, log, windows, name, now=now)
    return ledger.joined(name, since=since)


def truths(ledger: Ledger, name: str, ids: Sequence[str], classes: Sequence[Scalar] | None) -> Array | None:
    """The truth of each of `ids`, as of Labelled; -1 (of a number: NaN) where no label has come, or one that fits no answer. None where none has."""
    found = ledger.of(name, ids)
    if not found:
        return None
    if classes is None:
        return np.array([_number(found[key]) if key in found else math.nan for key in ids])
    places = {text(each): place for place, each in enumerate(classes)}
    return np.array([places.get(found[key], -1) if key in found else -1 for key in ids], dtype=np.int64)


Fits = Callable[[Digest, str], bool]


def account(ledger: Ledger, log: PredictionLog, windows: Windows, name: str, *, now: float, fits: Fits | None = None) -> Account:
    """What became of all labels of a deployment. `fits` tells whether a truth is an answer that the version of a digest could give."""
    join(ledger, log, windows, name, now=now)
    predictions, share = _kept(log, windows, name)
    if events.threshold(share) > 0xFFFFFFFF:  # all were logged: none of the million that may be left need be looked at
        count, unsampled, unknown = ledger.alone(name), list[str](), ledger.unmatched(name, most=_NAMED)
    else:
        rest = ledger.unmatched(name)
        is_in = _are_in_share(rest, share)
        unsampled = [key for key, kept in zip(rest, is_in, strict=True) if not kept]
        unknown = [key for key, kept in zip(rest, is_in, strict=True) if kept]
        count = len(unknown)
    matched, late = ledger.matched(name)
    mistyped = [(count, key) for digest, truth, count, key in ledger.truths(name) if fits and not fits(digest, truth)]
    conflicting = ledger.conflicts(name)
    named = {
        "unsampled": unsampled,
        "unknown": unknown,
        "mistyped": [key for _, key in mistyped],
        "conflicting": list(conflicting),
        "future": ledger.refused(name),
    }
    return Account(
        labels=matched + len(unsampled) + count,
        matched=matched,
        unsampled=len(unsampled),
        unknown=count,
        predictions=predictions,
        received=ledger.received(name),
        late=late,
        mistyped=sum(count for count, _ in mistyped),
        conflicting=len(conflicting),
        named={kind: tuple(ids[:_NAMED]) for kind, ids in named.items() if ids},
    )


def anything(_: str) -> bool:
    """What fits a version of which nobody knows what it could answer."""
    return True


def fitting(classes: Sequence[Scalar] | None) -> Callable[[str], bool]:
    """Whether a truth is one of the classes; without classes, whether it is a number."""
    if classes is None:
        return lambda truth: math.isfinite(_number(truth))
    known = {text(each) for each in classes}
    return lambda truth: truth in known


def _dated(known_at: float | None, at: float) -> float:
    if known_at is None:
        return at
    if not 0 <= known_at < math.inf:
        raise InvalidInput("since when a label is known is a time in seconds since 1970", field="labels", rule="known_at")
    return float(known_at)


def _waiting(windows: Windows, name: str, wanted: set[str]) -> Iterator[tuple[str, Match]]:
    """Of the rows that wait for the log those with a wanted id."""
    for digest, rows in windows.waiting(name):
        if wanted.isdisjoint(rows.ids):
            continue
        columns = {item.name: events.column_array(item, len(rows.ids)) for item in rows.columns}
        answer = next((columns[each] for each in ("label", "prediction") if each in columns), None)
        probability, groups = columns.get("probability"), events.groups_array(rows)
        for place, (key, at) in enumerate(zip(rows.ids, events.times_array(rows).tolist(), strict=True)):
            if key in wanted and answer is not None:
                single = answer[place] if answer.ndim == 1 else None
                group = None if groups is None else int(groups[place])
                yield key, Match(at, digest, single, None if probability is None else np.ravel(probability[place]).tolist(), group)


def _latest(rows: Iterable[tuple[str, Sequence[Any]]]) -> dict[str, Match]:
    found: dict[str, Match] = {}
    for key, row in rows:
        if key not in found or row[0] >= found[key].at:
            found[key] = Match(*row)
    return found


def _answer(answer: Any) -> str | None:
    """An answer as it is compared; None where it has several numbers, or none that is finite, and so no one truth."""
    if answer is None or isinstance(answer, list):
        return None
    try:
        return text(answer)
    except InvalidInput:
        return None


def _packed(probability: Any) -> bytes | None:
    return None if probability is None else np.asarray(probability, dtype="<f8").tobytes()


def _kept(log: PredictionLog, windows: Windows, name: str) -> tuple[int, float]:
    """How many predictions are logged, and the least share that was."""
    count, share = log.kept(name)
    for _, rows in windows.waiting(name):
        count, share = count + len(rows.ids), min(share, rows.share)
    return count, share


def _are_in_share(ids: Sequence[str], share: float) -> list[bool]:
    """Of each id whether a prediction of it, of one row or of several, would have been logged. Of all at once: there may be a million."""
    limit = events.threshold(share)
    if limit > 0xFFFFFFFF:
        return [True] * len(ids)
    found: list[bool] = (events.positions(ids).astype(np.int64) < limit).tolist()
    several: dict[int, tuple[str, int]] = {}
    for place, key in enumerate(ids):
        if found[place] or "/" not in key:
            continue
        request, _, row = key.rpartition("/")
        if len(row) < 9 and row.isascii() and row.isdigit() and int(row) < 1 << 24:
            several[place] = request, int(row)
    if several:
        requests, rows = zip(*several.values(), strict=True)
        for place, position in zip(several, events.positions_of(requests, rows).tolist(), strict=True):
            found[place] = position < limit
    return found


def _stacked(rows: Sequence[Any]) -> Answers:
    times, truth, predicted, probability, numbers, groups = zip(*rows, strict=True)
    sizes = {None if each is None else len(each) for each in probability}
    is_known = None not in sizes and len(sizes) == 1
    return Answers(
        times=np.array(times, dtype=np.float64),
        truth=np.array(truth, dtype=object),
        predicted=np.array(predicted, dtype=object),
        probability=np.frombuffer(b"".join(probability), dtype="<f8").reshape(len(rows), -1) if is_known else np.zeros((0, 0)),
        numbers=np.array(numbers, dtype=np.int64),
        groups=np.array(groups, dtype=np.int64),
    )


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions whose truth is known, a row each, as guards read them: classes by their place; `score` is of the second of two.

    `groups` are of their callers, -1 where one did not stay with a version.
    """

    truth: Any
    predicted: Any
    score: Any
    groups: Any = ()


def labelled(found: Answers, classes: Sequence[Scalar] | None, *, first: float = -math.inf, last: float = math.inf) -> Labelled:
    """The answers from `first` to before `last`. A truth that is no class, or no number of a regression, is left out."""
    chosen = (found.times >= first) & (found.times < last)
    truth, predicted, known = known_rows(found, classes)
    known &= chosen
    score: Array = found.probability if len(found.probability) == len(chosen) else np.zeros((0, 0))
    second = score[known, 1] if classes is not None and score.ndim == 2 and score.shape[1:] == (2,) and len(classes) == 2 else np.zeros(0)
    groups = np.zeros(0, dtype=np.int64) if found.groups is None else found.groups[known]
    return Labelled(truth=truth[known], predicted=predicted[known], score=second, groups=groups)


def known_rows(found: Answers, classes: Sequence[Scalar] | None) -> tuple[Array, Array, Array]:
    """Truths and answers as numbers, classes by their place; and of which rows both are known."""
    truth: Array
    predicted: Array
    if classes is None:
        truth, predicted = (np.array([_number(each) for each in values], dtype=np.float64) for values in (found.truth, found.predicted))
        return truth, predicted, np.isfinite(truth) & np.isfinite(predicted)
    places: Mapping[str, int] = {text(each): place for place, each in enumerate(classes)}
    truth, predicted = (np.array([places.get(each, -1) for each in values], dtype=np.int64) for values in (found.truth, found.predicted))
    return truth, predicted, (truth >= 0) & (predicted >= 0)


def _number(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        return math.nan
