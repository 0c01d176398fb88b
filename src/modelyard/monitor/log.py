"""The prediction log: every logged prediction, and the sampled inputs, as Parquet.

Hides the files (zstd, one folder per kind, deployment and day) and DuckDB, which writes them. Anything that reads Parquet reads the log. A file
is written beside, then renamed; it is named after its waiting room and the first of its rows there, so that writing it again after a crash replaces
it and no other.
It must not decide what is logged.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from modelyard import events
from modelyard.errors import InvalidInput, MalformedPayload, StorageFull, Unavailable
from modelyard.files import make_folder, sync_folder
from modelyard.monitor import tidying

if TYPE_CHECKING:
    import duckdb

    from modelyard.events import Rows
    from modelyard.monitor.windows import Staged
    from modelyard.types import Array

Kind = Literal["predictions", "inputs"]
LIMIT = 1_000_000
"""The most rows that are read at once, where nothing else is said."""
LISTED_ELEMENTS = 1024
"""Rows of an array with more elements than this are written as bytes, others as lists."""
_OURS = ("prediction_id", "answered_at", "version", "digest", "share")
GROUP = "caller_group"
"""A column of ours in files that are called so (`tidying.BY_CALLER`), of predictions whose callers stayed with a version. In one of 0.1.0 it is an
output of the model that has this name.
"""
_LAST_S = float(2**37)


class LoggedRows(NamedTuple):
    """Rows of the log, one a prediction, oldest first: `times` in seconds since 1970, `columns` by the names that `column_names` gives the model's.

    Missing numbers are NaN, missing texts None; several values a row are a row of an array, or an object each where they are not equally many.
    """

    ids: Array
    times: Array
    versions: Array
    digests: Array
    shares: Array
    columns: dict[str, Array]


_NONE = np.zeros(0, dtype=object)
_EMPTY = LoggedRows(_NONE, np.zeros(0), np.zeros(0, dtype=np.int64), _NONE, np.zeros(0), {})


def day_of(at: float) -> str:
    """The day (UTC) of a time in seconds since 1970."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


class PredictionLog:
    """The log's folder. One process writes it.

    Columns: `prediction_id`, `answered_at` (UTC), `version`, `digest`, `share` (of all ids, those whose hash falls into it were logged), then the
    model's outputs (kind `predictions`) or its inputs, redacted (kind `inputs`). Predictions whose callers stayed with a version have `caller_group`
    too (`events.Callers`), in files that are called so.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfit: set[tuple[Path, ...]] = set()

    def write(self, group: Staged) -> Path:
        """Write one group of rows as one file. Raises StorageFull, Misconfigured, or InvalidInput for rows that no file can hold; then nothing of it
        is left."""
        import duckdb

        folder = make_folder(self._folder / group.kind / group.name / group.day)
        origin = f"{group.origin}-" if group.origin else ""
        path = folder / f"{group.version}-{origin}{group.first}{tidying.BY_CALLER if group.pieces[0].groups else tidying.SUFFIX}"
        temporary = folder / f".{path.name}.tmp"
        try:
            columns, selected = _columns(group)
        except (ValueError, MalformedPayload) as error:  # of several forms or widths, or of no row
            raise InvalidInput("rows that the prediction log cannot hold") from error
        query = f"COPY (SELECT {', '.join(selected)} FROM part) TO {_text(str(temporary))} (FORMAT parquet, COMPRESSION zstd)"  # noqa: S608  quoted
        try:
            with duckdb.connect(config={"threads": 1}) as connection:
                connection.register("part", columns)
                connection.execute(query)
            _sync(temporary)
            temporary.replace(path)
            sync_folder(folder)
        except (duckdb.Error, OSError) as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, duckdb.IOException | OSError):
                raise StorageFull("no space left for the prediction log; its rows wait. Free some space") from error
            raise InvalidInput("rows that the prediction log cannot hold") from error
        return path

    def files(self, kind: str, name: str) -> list[Path]:
        """The Parquet files of one deployment, `kind` predictions or inputs, the oldest day first."""
        folder = self._folder / kind / name
        gone = {path for note in folder.glob(f"*/{tidying.NOTE}") for path in tidying.parts(note.parent)}
        return sorted(path for path in folder.glob("*/[!.]*.parquet") if path not in gone)

    def tidy(self, *, before: date) -> bool:
        """Make one file of many small ones of a day before a day, once; whether there may be more to do. Raises StorageFull."""
        for batch in tidying.due(self._folder, before=before):
            if batch.paths in self._unfit:
                continue
            try:
                tidying.merge(batch)
            except InvalidInput:  # they stay as they are
                self._unfit.add(batch.paths)
                continue
            return True
        return False

    def rows(
        self,
        kind: Kind,
        name: str,
        *,
        since: float = -math.inf,
        until: float = math.inf,
        version: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int = LIMIT,
    ) -> LoggedRows:
        """The logged rows of a deployment that were answered from `since` to before `until` (seconds since 1970), oldest first, at most `limit`.

        `version` and `ids` choose among them. Only the files of those days are read. Raises Unavailable where they cannot be.
        """
        paths = self._between(kind, name, since, until, version)
        return self._read([paths], since, until, ids, limit)[0] if paths else _EMPTY

    def matched(
        self,
        name: str,
        *,
        since: float = -math.inf,
        until: float = math.inf,
        version: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int = LIMIT,
    ) -> tuple[LoggedRows, LoggedRows]:
        """As `rows`, of the sampled inputs and of the answers to them: row by row of one prediction."""
        inputs = self._between("inputs", name, since, until, version)
        answers = self._between("predictions", name, since, until, version)
        if not inputs or not answers:
            return _EMPTY, _EMPTY
        asked, answered = self._read([inputs, answers], since, until, ids, limit)
        return asked, answered

    def _between(self, kind: Kind, name: str, since: float, until: float, version: int | None) -> list[Path]:
        """The files in which rows of a time may lie: a segment's rows lie under the day of its end, which may be the next."""
        first = day_of(max(since, 0.0)) if since < _LAST_S else "9999"
        last = day_of(min(until, _LAST_S) + 86400) if until > 0 else "0000"
        paths = [path for path in self.files(kind, name) if first <= path.parent.name <= last]
        return paths if version is None else [path for path in paths if path.name.startswith(f"{version}-")]

    def _read(self, sides: list[list[Path]], since: float, until: float, ids: Sequence[str] | None, limit: int) -> list[LoggedRows]:
        """What lies in the files of the first side, and in those of the others beside it, by prediction and digest."""
        import duckdb

        with reading(), duckdb.connect(config={"threads": 1}) as connection:
            tables = [_table(connection, paths) for paths in sides]
            columns = [_described(connection, table) for table in tables]
            shown = [f"t{side}.{_name(name)} AS c{side}_{at}" for side, names in enumerate(columns) for at, name in enumerate(names)]
            joins = [
                f"JOIN {table} AS t{side} ON t0.prediction_id = t{side}.prediction_id AND t0.digest = t{side}.digest"
                for side, table in enumerate(tables)
                if side
            ]
            if ids is not None:
                connection.register("wanted", {"id": _texts(ids)})
                joins.append("JOIN (SELECT DISTINCT id::VARCHAR AS id FROM wanted) AS chosen ON t0.prediction_id = chosen.id")
            query = f"""SELECT {", ".join(shown)} FROM {tables[0]} AS t0 {" ".join(joins)}
                WHERE epoch_us(t0.answered_at) >= ? AND epoch_us(t0.answered_at) < ?
                ORDER BY t0.answered_at, t0.prediction_id LIMIT ?"""  # noqa: S608  quoted
            found = connection.execute(query, [_microseconds(since), _microseconds(until), limit]).fetchnumpy()
        return [_logged({name: found[f"c{side}_{at}"] for at, name in enumerate(names)}) for side, names in enumerate(columns)]

    def find(self, name: str, ids: Sequence[str], files: Sequence[Path] | None = None) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Of a deployment's logged predictions (in all `files`, or these) those with one of `ids`. Raises Unavailable where they cannot be read.

        Each with when it was answered (seconds since 1970), by which digest, the label or number of the answer, its probabilities or None, and the
        group of its caller or None.
        """

        for paths in _alike(self.files("predictions", name) if files is None else files):
            yield from self._found(ids, paths)

    def _found(self, ids: Sequence[str], paths: Sequence[Path]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        import duckdb

        with reading(), duckdb.connect(config={"threads": 1}) as connection:
            connection.register("wanted", {"id": _texts(ids)})
            read = _read_parquet(paths)
            has = {*_described(connection, read)}
            answer = next((_name(each) for each in ("label", "prediction") if each in has), None)
            if answer is None:
                return
            probability = '"probability"::DOUBLE[]' if "probability" in has else "NULL"
            group = GROUP if _is_by_caller(paths[0]) else "NULL"
            query = f"""SELECT prediction_id, epoch_us(answered_at) / 1e6, digest, {answer}, {probability}, {group}
                FROM {read} JOIN wanted ON prediction_id = id::VARCHAR"""  # noqa: S608  quoted
            found = connection.execute(query)
            while rows := found.fetchmany(10_000):
                for key, *match in rows:
                    yield key, tuple(match)

    def kept(self, name: str) -> tuple[int, float]:
        """How many predictions of a deployment are logged, and the least share of them that was (1 without any). Raises Unavailable."""
        import duckdb

        paths = self.files("predictions", name)
        if not paths:
            return 0, 1.0
        with reading(), duckdb.connect(config={"threads": 1}) as connection:
            read = _read_parquet(paths)
            count, share = connection.execute(f"SELECT count(*), coalesce(min(share), 1.0) FROM {read}").fetchall()[0]  # noqa: S608  quoted
        return int(count), float(share)

    def forget(self, *, before: date) -> None:
        """Delete the folders of days before a day."""
        for folder in self._folder.glob("*/*/*"):
            try:
                is_old = date.fromisoformat(folder.name) < before
            except ValueError:  # not one of ours
                continue
            if is_old:
                shutil.rmtree(folder, ignore_errors=True)


def _is_by_caller(path: Path) -> bool:
    return path.name.endswith(tidying.BY_CALLER)


def _alike(paths: Iterable[Path]) -> list[list[Path]]:
    """The files that have the groups of callers, and those that do not, where there are any."""
    found: tuple[list[Path], list[Path]] = ([], [])
    for path in paths:
        found[_is_by_caller(path)].append(path)
    return [each for each in found if each]


def _read_parquet(paths: Iterable[Path]) -> str:
    return f"read_parquet([{', '.join(_text(str(path)) for path in paths)}], union_by_name = true)"


def _described(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    return [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()]  # noqa: S608  quoted


def _table(connection: duckdb.DuckDBPyConnection, paths: Iterable[Path]) -> str:
    """What lies in these files without the groups of callers; an output that 0.1.0 called so is called as `column_names` has it today."""
    selected = []
    for side in _alike(paths):
        read = _read_parquet(side)
        names = _described(connection, read)
        shown = {name: _name(name) for name in names if name.lower() != GROUP}
        for old in {*names} - {*shown} if not _is_by_caller(side[0]) else ():
            new = f"{old}_"
            shown[new] = f"coalesce({_name(new)}, {_name(old)})" if new in shown else _name(old)
        selected.append(f"SELECT {', '.join(f'{value} AS {_name(name)}' for name, value in shown.items())} FROM {read}")  # noqa: S608  quoted
    return f"({' UNION ALL BY NAME '.join(selected)})"


def _microseconds(at: float) -> int:
    return int(min(max(at, 0.0), _LAST_S) * 1e6)


def _logged(found: dict[str, Array]) -> LoggedRows:
    columns = {name: _plain(values) for name, values in found.items()}
    ids, times, versions, digests, shares = (columns.pop(name) for name in _OURS)
    return LoggedRows(ids, times.astype("datetime64[us]").astype(np.int64) / 1e6, versions, digests, shares, columns)


def _plain(values: Array) -> Array:
    """A column as arrays are elsewhere: missing numbers NaN, missing texts None, lists of one length as rows of an array."""
    if np.ma.isMaskedArray(values):
        masked: Any = values
        is_missing = np.ma.getmaskarray(masked)
        values = np.asarray(masked.data)
        if is_missing.any():
            values = values.astype(object if values.dtype == object else np.result_type(values.dtype, np.float16))
            values[is_missing] = None if values.dtype == object else np.nan
    if values.dtype == object and len(values) and isinstance(values[0], list | np.ndarray):
        widths = {len(row) if isinstance(row, list | np.ndarray) else -1 for row in values}
        if len(widths) == 1:
            return np.array([list(row) for row in values])
    return values


@contextmanager
def reading() -> Iterator[None]:
    """What DuckDB raises while the block reads the log is Unavailable."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise Unavailable("the prediction log cannot be read now") from error


def oldest_kept(now: float, retention_days: int) -> date:
    """The first day that is kept."""
    return datetime.fromtimestamp(now, UTC).date() - timedelta(days=retention_days)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _columns(group: Staged) -> tuple[dict[str, Array], list[str]]:
    """Flat arrays for DuckDB, and how they are selected."""
    counts = [len(rows.ids) for rows in group.pieces]
    flat: dict[str, Array] = {
        "prediction_id": _texts([name for rows in group.pieces for name in rows.ids]),
        "answered_at": (np.concatenate([events.times_array(rows) for rows in group.pieces]) * 1e6).astype("datetime64[us]"),
        "share": np.repeat([rows.share for rows in group.pieces], counts),
    }
    # What is the same in all rows is no array: text costs the most here.
    same = {"version": f"{group.version:d}::BIGINT", "digest": f"{_text(group.digest)}::VARCHAR"}
    selected = [f"{same[name]} AS {_name(name)}" if name in same else _name(name) for name in _OURS]
    names = [item.name for item in group.pieces[0].columns]
    if any([item.name for item in rows.columns] != names for rows in group.pieces):
        raise ValueError("rows of several forms")
    groups = [events.groups_array(rows) for rows in group.pieces]
    if groups[0] is not None:
        flat[GROUP] = np.concatenate([each for each in groups if each is not None])
        selected.append(f"{GROUP}::UTINYINT AS {GROUP}")
    called = column_names(names)
    for place, item in enumerate(group.pieces[0].columns):
        selected.append(f"{_spread(flat, f'c{place}', _joined(group.pieces, place))} AS {_name(called[item.name])}")
    return flat, selected


def column_names(names: Iterable[str]) -> dict[str, str]:
    """What the log calls each of a model's inputs or outputs, in their order: DuckDB's names know no case, and ours are taken."""
    used, called = {*_OURS, GROUP}, {}
    for name in names:
        shown = name
        while shown.lower() in used:
            shown += "_"
        used.add(shown.lower())
        called[name] = shown
    return called


def _joined(pieces: Sequence[Rows], place: int) -> Array:
    """One column of rows of one form, which have the same columns in the same order."""
    return np.concatenate([events.column_array(rows.columns[place], len(rows.ids)) for rows in pieces])


def _spread(flat: dict[str, Array], key: str, values: Array) -> str:
    """Put `values` into `flat` as one-dimensional arrays; the expression that makes one value per row of them."""
    if values.ndim == 1:
        flat[key] = values
        return f"{key}::VARCHAR" if values.dtype == object else key
    wide = values.reshape(len(values), -1)
    if wide.dtype != object and wide.shape[1] > LISTED_ELEMENTS:
        flat[key] = _texts([row.tobytes() for row in wide])
        return f"{key}::BLOB"
    cast = "::VARCHAR" if wide.dtype == object else ""
    for element in range(wide.shape[1]):
        flat[f"{key}_{element}"] = np.ascontiguousarray(wide[:, element])
    return f"[{', '.join(f'{key}_{element}{cast}' for element in range(wide.shape[1]))}]"


def _texts(values: Sequence[Any]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
