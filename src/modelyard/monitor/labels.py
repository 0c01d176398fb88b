"""True answers, as they come: late, twice, changed, or for predictions that nobody logged; joined with the prediction log by prediction id.

Hides the ledger (one SQLite file of the home) and how a label finds its prediction: in the log's Parquet files, by DuckDB, or among the rows that
still wait for it. The newest label of an id stands. It must not judge; truths and answers are compared as texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard import events
from modelyard.config import Settings
from modelyard.errors import InvalidInput
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
ID_LIMIT = 1000
TRUTH_LIMIT = 1000
BATCH = 10_000
"""The most labels that are given at once."""


def labels_path(settings: Settings) -> Path:
    """Where a home keeps its labels."""
    return settings.home / "labels.sqlite"


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What labels were: of an id not seen before, the same as before, or another than before (which stands from now on)."""

    new: int = 0
    same: int = 0
    changed: int = 0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """All labels of one deployment: `matched` a logged prediction, `unsampled` could not (the log kept only a share), `unknown` are of no prediction.

    `predictions` were logged. `received` tells how the labels came.
    """

    labels: int
    matched: int
    unsampled: int
    unknown: int
    predictions: int
    received: Received


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled predictions of one version, a row each: when answered (seconds since 1970), truth and answer as texts, probabilities (or empty)."""

    times: Any
    truth: Any
    predicted: Any
    probability: Any


class Ledger(Database):
    """The file. One thread owns an instance; any number of instances may be open. Raises StorageFull, Unavailable or Tampered."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, when_full="free some space and send the labels again")
        with self._translated():
            self._connection.executescript(_TABLES)

    def give(self, name: str, labels: Sequence[tuple[str, Scalar]], *, at: float) -> Received:
        """Keep the labels of a deployment's predictions, by prediction id, all or none. Raises InvalidInput for what is no label."""
        if len(labels) > BATCH:
            raise InvalidInput(f"at most {BATCH:,} labels are taken at once", field="labels", rule="count")
        texts = [(_checked(key), text(truth)) for key, truth in labels]
        new = same = changed = 0
        with self._translated(), self._transaction() as connection:
            for key, truth in texts:
                had = connection.execute("SELECT truth FROM labels WHERE name = ? AND id = ?", (name, key)).fetchone()
                new, same, changed = new + (had is None), same + (had == (truth,)), changed + (had is not None and had != (truth,))
                connection.execute("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?)", (name, key, truth, at))
            query = """INSERT INTO received VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
                new = new + excluded.new, same = same + excluded.same, changed = changed + excluded.changed"""
            connection.execute(query, (name, new, same, changed))
        return Received(new=new, same=same, changed=changed)

    def labels(self, name: str) -> dict[str, str]:
        """The label that stands for each id."""
        with self._translated():
            return dict(self._connection.execute("SELECT id, truth FROM labels WHERE name = ?", (name,)))

    def received(self, name: str) -> Received:
        """How all labels of a deployment came."""
        with self._translated():
            found = self._connection.execute("SELECT new, same, changed FROM received WHERE name = ?", (name,)).fetchone()
        return Received() if found is None else Received(new=found[0], same=found[1], changed=found[2])

    def forget(self, *, before: float) -> None:
        """Drop labels that came before a time: their predictions are no longer kept."""
        with self._translated(), self._transaction() as connection:
            connection.execute("DELETE FROM labels WHERE at < ?", (before,))


def text(value: Scalar | None) -> str:
    """A truth or an answer as it is compared: 1, 1.0 and "1" are the same. Raises InvalidInput for what is no answer."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | float | np.number):
        if not math.isfinite(value):
            raise InvalidInput("a label is a text, a finite number or true or false", field="labels", rule="truth")
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    if not isinstance(value, str) or len(value) > TRUTH_LIMIT:
        raise InvalidInput(f"a label is a text of at most {TRUTH_LIMIT} characters, a finite number or true or false", field="labels", rule="truth")
    return value


def answers(ledger: Ledger, log: PredictionLog, windows: Windows, name: str, *, since: float) -> dict[Digest, Answers]:
    """The labelled predictions of a deployment that were answered from `since` on, by version; of one id the latest prediction counts."""
    truths = ledger.labels(name)
    found: dict[str, tuple[float, str, Any, Any]] = {}
    for key, row in _logged(log, windows, name, list(truths)):
        if key not in found or row[0] >= found[key][0]:
            found[key] = row
    by_digest: dict[Digest, list[tuple[float, str, str, Any]]] = {}
    for key, (at, digest, answer, probability) in found.items():
        if at >= since and answer is not None and not isinstance(answer, list):  # an answer of several numbers has no one truth
            by_digest.setdefault(Digest(digest), []).append((at, truths[key], text(answer), probability))
    return {digest: _stacked(rows) for digest, rows in by_digest.items()}


def account(ledger: Ledger, log: PredictionLog, windows: Windows, name: str) -> Account:
    """What became of all labels of a deployment."""
    truths = ledger.labels(name)
    matched = {key for key, _ in _logged(log, windows, name, list(truths))}
    predictions, share = _kept(log, windows, name)
    rest = [key for key in truths if key not in matched]
    unsampled = sum(not _is_in_share(key, share) for key in rest)
    return Account(
        labels=len(truths),
        matched=len(matched),
        unsampled=unsampled,
        unknown=len(rest) - unsampled,
        predictions=predictions,
        received=ledger.received(name),
    )


def _checked(id: str) -> str:
    if not 0 < len(id) <= ID_LIMIT:
        raise InvalidInput(f"a prediction id has 1 to {ID_LIMIT} characters", field="labels", rule="id")
    return id


_Row = tuple[str, tuple[float, str, Any, Any]]


def _logged(log: PredictionLog, windows: Windows, name: str, ids: Sequence[str]) -> Iterator[_Row]:
    """The predictions with one of `ids`. What waits is read first: it only ever moves into the files, so that nothing is missed."""
    wanted = set(ids)
    waiting = [(digest, rows) for digest, rows in windows.waiting(name) if not wanted.isdisjoint(rows.ids)]
    if wanted:
        yield from log.find(name, ids)
    for digest, rows in waiting:
        columns = {item.name: events.column_array(item, len(rows.ids)) for item in rows.columns}
        answer = next((columns[each] for each in ("label", "prediction") if each in columns), None)
        probability = columns.get("probability")
        for place, (key, at) in enumerate(zip(rows.ids, events.times_array(rows).tolist(), strict=True)):
            if key in wanted and answer is not None:
                yield (
                    key,
                    (at, digest, answer[place] if answer.ndim == 1 else None, None if probability is None else np.ravel(probability[place]).tolist()),
                )


def _kept(log: PredictionLog, windows: Windows, name: str) -> tuple[int, float]:
    """How many predictions are logged, and the least share that was."""
    count, share = log.kept(name)
    for _, rows in windows.waiting(name):
        count, share = count + len(rows.ids), min(share, rows.share)
    return count, share


def _is_in_share(id: str, share: float) -> bool:
    """Whether a prediction of this id, of one row or of several, would have been logged."""
    limit = events.threshold(share)
    if int(events.positions([id])[0]) < limit:
        return True
    request, slash, row = id.rpartition("/")
    if not (slash and row.isascii() and row.isdigit() and int(row) < 1 << 24):
        return False
    return int(events.positions([request], np.array([int(row) + 1]))[-1]) < limit


def _stacked(rows: Iterable[tuple[float, str, str, Any]]) -> Answers:
    times, truth, predicted, probability = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
    is_known = all(each is not None for each in probability) and len({len(each) for each in probability if each is not None}) == 1
    return Answers(
        times=np.array(times),
        truth=np.array(truth, dtype=object),
        predicted=np.array(predicted, dtype=object),
        probability=np.array(probability, dtype=np.float64) if is_known else np.zeros((0, 0)),
    )


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions whose truth is known, a row each, as guards read them: classes by their place; `score` is of the second of two."""

    truth: Any
    predicted: Any
    score: Any


def labelled(found: Answers, classes: Sequence[Scalar] | None, *, first: float = -math.inf, last: float = math.inf) -> Labelled:
    """The answers from `first` to before `last`. A truth that is no class, or no number of a regression, is left out."""
    chosen = (found.times >= first) & (found.times < last)
    score: Array = found.probability[chosen] if len(found.probability) == len(chosen) else np.zeros((0, 0))
    if classes is None:
        truth, predicted = (np.array([_number(each) for each in values[chosen]]) for values in (found.truth, found.predicted))
        known = np.isfinite(truth) & np.isfinite(predicted)
        return Labelled(truth=truth[known], predicted=predicted[known], score=np.zeros(0))
    places: Mapping[str, int] = {text(each): place for place, each in enumerate(classes)}
    truth, predicted = (np.array([places.get(each, -1) for each in values[chosen]], dtype=np.int64) for values in (found.truth, found.predicted))
    known = (truth >= 0) & (predicted >= 0)
    second = score[known, 1] if score.ndim == 2 and score.shape[1:] == (2,) and len(classes) == 2 else np.zeros(0)
    return Labelled(truth=truth[known], predicted=predicted[known], score=second)


def _number(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        return math.nan
