"""Logged predictions beside their inputs, as detectors read them: followed as the log grows, so that each file is read once.

Hides DuckDB, how the log writes columns, and that the two halves of a row may come to the log one after the other. One thread owns a follower. It
must not judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from modelyard.monitor.base import Logged
from modelyard.monitor.log import LISTED_ELEMENTS, PredictionLog, column_names, day_of, reading

if TYPE_CHECKING:
    from modelyard.types import Array, Digest, Schema, TensorSpec

ROWS = 20_000
"""The most rows that are kept at hand, the latest."""
FILES = 256
"""How many files are read in one go."""


class Row(NamedTuple):
    """Half of a logged row: when it was answered, and its values by name."""

    at: float
    values: dict[str, Any]


class _Rows(NamedTuple):
    """Whole rows in the order of their times."""

    ids: Array
    times: Array
    inputs: dict[str, Array]
    outputs: dict[str, Array]

    def take(self, which: Array | slice) -> _Rows:
        inputs, outputs = ({name: values[which] for name, values in columns.items()} for columns in (self.inputs, self.outputs))
        return _Rows(self.ids[which], self.times[which], inputs, outputs)


class Follower:
    """What the log has of one version of a deployment. `look` raises Unavailable where the log cannot be read; the next goes on from there."""

    def __init__(self, log: PredictionLog, name: str, digest: Digest, schema: Schema) -> None:
        self._log = log
        self._name = name
        self._digest = digest
        self._outputs = schema.outputs
        self._inputs = tuple(spec for spec in schema.inputs if spec.tag != "drop")
        self._read: dict[str, set[Path]] = {"predictions": set(), "inputs": set()}
        self._again: list[Path] = []
        self._asked: dict[str, Row] = {}
        self._whole: _Rows | None = None

    def look(self, *, since: float, until: float) -> tuple[list[str], Logged] | None:
        """The rows that were answered from `since` to before `until` and whose inputs are logged, with their ids; None without any."""
        told = set() if self._whole is None else set(self._whole.ids.tolist())
        for part in self._new("inputs", since):  # rows come again when small files become a large one
            self._asked |= {key: row for key, row in self._rows(self._inputs, part, since).items() if key not in told}
        self._asked = _latest(self._asked, since)
        # The answers of a row come to the log just before its inputs: files that were new the last time are looked through once more.
        again, self._again = [path for path in self._again if path.exists()], []
        for part in ([again] if again else []) + list(self._new("predictions", since)):
            self._join(self._rows(self._outputs, part, since, wanted=self._asked.keys()))
        if self._whole is None:
            return None
        first = max(int(np.searchsorted(self._whole.times, since)), len(self._whole.times) - ROWS)
        self._whole = self._whole.take(slice(first, None))
        found = self._whole.take(slice(None, int(np.searchsorted(self._whole.times, until))))
        if not len(found.times):
            return None
        return found.ids.tolist(), Logged(times=found.times, inputs=found.inputs, outputs=found.outputs)

    def _join(self, answered: dict[str, Row]) -> None:
        """Put the rows whose answers have come to the whole ones."""
        if not answered:
            return
        both = sorted((row.at, key) for key, row in answered.items())
        ids = [key for _, key in both]
        new = _Rows(
            ids=_objects(ids),
            times=np.array([at for at, _ in both]),
            inputs=_columns(self._inputs, [self._asked.pop(key).values for key in ids]),
            outputs=_columns(self._outputs, [answered[key].values for key in ids]),
        )
        if self._whole is None:
            self._whole = new
            return
        had = self._whole
        joined = _Rows(
            ids=np.concatenate([had.ids, new.ids]),
            times=np.concatenate([had.times, new.times]),
            inputs=_both(had.inputs, new.inputs),
            outputs=_both(had.outputs, new.outputs),
        )
        is_in_order = new.times[0] >= had.times[-1]
        self._whole = joined if is_in_order else joined.take(np.argsort(joined.times, kind="stable"))

    def _new(self, kind: str, since: float) -> Iterator[list[Path]]:
        """The files that were not read yet, so many at a time."""
        oldest, known = date.fromisoformat(day_of(since)), self._read[kind]
        files = [path for path in self._log.files(kind, self._name) if date.fromisoformat(path.parent.name) >= oldest]
        known &= set(files)
        new = [path for path in files if path not in known]
        for start in range(0, len(new), FILES):
            part = new[start : start + FILES]
            yield part
            known |= set(part)
            if kind == "predictions":
                self._again = part

    def _rows(self, specs: Sequence[TensorSpec], paths: Sequence[Path], since: float, *, wanted: Set[str] | None = None) -> dict[str, Row]:
        import duckdb

        if wanted is not None and not wanted:
            return {}
        called = column_names(spec.name for spec in specs)
        joined = "" if wanted is None else "JOIN wanted ON prediction_id = wanted.id::VARCHAR"
        query = f"""SELECT logged.* FROM read_parquet(?, union_by_name = true) logged {joined}
            WHERE digest = ? AND answered_at >= make_timestamp({int(since * 1e6):d}) ORDER BY answered_at DESC LIMIT {ROWS:d}"""  # noqa: S608  numbers
        with reading(), duckdb.connect(config={"threads": 1}) as connection:
            if wanted is not None:
                connection.register("wanted", {"id": _objects(list(wanted))})
            found = connection.execute(query, [[str(path) for path in paths], self._digest])
            places = {item[0]: place for place, item in enumerate(found.description)}
            rows = found.fetchall()
        at, key = places["answered_at"], places["prediction_id"]
        mine = {name: places[shown] for name, shown in called.items() if shown in places}
        return {row[key]: Row(row[at].replace(tzinfo=UTC).timestamp(), {name: row[place] for name, place in mine.items()}) for row in reversed(rows)}


def _latest(rows: dict[str, Row], since: float) -> dict[str, Row]:
    kept = {key: row for key, row in rows.items() if row.at >= since}
    return kept if len(kept) <= ROWS else dict(sorted(kept.items(), key=lambda item: item[1].at)[-ROWS:])


def _columns(specs: Sequence[TensorSpec], rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Named arrays of the rows: texts as objects, numbers as float64 with NaN for missing; what has no fixed width, or is not logged, is left out."""
    found: dict[str, Array] = {}
    for spec in specs:
        width = math.prod(spec.shape[1:])
        if not 0 < width <= LISTED_ELEMENTS or not any(spec.name in row for row in rows):
            continue
        is_text = spec.datatype == "BYTES" or spec.tag is not None  # what was redacted is a text
        empty = None if is_text else math.nan
        values = [row.get(spec.name) for row in rows]
        try:
            if width > 1:
                values = [[empty] * width if value is None else value for value in values]
            array = np.array(values, dtype=object if is_text else np.float64)
        except (TypeError, ValueError):
            continue
        if array.shape == ((len(rows),) if width == 1 else (len(rows), width)):
            found[spec.name] = array
    return found


def _both(left: Mapping[str, Array], right: Mapping[str, Array]) -> dict[str, Array]:
    """One after the other; a column that one of them lacks is left out."""
    return {name: np.concatenate([values, right[name]]) for name, values in left.items() if name in right}


def _objects(values: Sequence[str]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
