"""Logged predictions beside their inputs, as detectors read them: followed as the log grows, so that each file is read once.

Hides DuckDB, how the log writes columns, and that the two halves of a row may come to the log one after the other. One thread owns a follower. It
must not judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from modelyard.monitor.base import Logged
from modelyard.monitor.log import PredictionLog, column_names, day_of, reading

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
        self._answered: dict[str, Row] = {}

    def look(self, *, since: float, until: float) -> tuple[list[str], Logged] | None:
        """The rows that were answered from `since` to before `until` and whose inputs are logged, with their ids; None without any."""
        for part in self._new("inputs", since):
            self._asked |= self._rows(self._inputs, part, since)
        self._asked = _latest(self._asked, since)
        # The answers of a row come to the log just before its inputs: files that were new the last time are looked through once more.
        again, self._again = self._again, []
        for part in ([again] if again else []) + list(self._new("predictions", since)):
            self._answered |= self._rows(self._outputs, part, since, wanted=self._asked.keys() - self._answered.keys())
        self._answered = {key: row for key, row in self._answered.items() if key in self._asked}
        both = sorted((row.at, key) for key, row in self._answered.items() if row.at < until)
        if not both:
            return None
        ids = [key for _, key in both]
        return ids, Logged(
            times=np.array([at for at, _ in both]),
            inputs=_columns(self._inputs, [self._asked[key].values for key in ids]),
            outputs=_columns(self._outputs, [self._answered[key].values for key in ids]),
        )

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
                ids = np.empty(len(wanted), dtype=object)
                ids[:] = list(wanted)
                connection.register("wanted", {"id": ids})
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
    """Named arrays of the rows: texts as objects, numbers as float64 with NaN for missing; a column that no row has, or whose rows are not of one
    width, is left out.
    """
    found: dict[str, Array] = {}
    for spec in specs:
        values = [row.get(spec.name) for row in rows]
        if any(isinstance(value, bytes) for value in values) or all(value is None for value in values):
            continue
        is_text = any(isinstance(value, str) for value in values) or any(
            isinstance(value, list) and any(isinstance(each, str) for each in value) for value in values
        )
        if any(isinstance(value, list) for value in values):
            widths = {len(value) if isinstance(value, list) else -1 for value in values}
            if len(widths) > 1:
                continue
        if is_text:
            array = np.empty((len(values), len(values[0])) if isinstance(values[0], list) else len(values), dtype=object)
            array[:] = values
        else:
            array = np.array(values, dtype=np.float64)
        found[spec.name] = array
    return found
