"""`labels`: true answers of predictions from a file, and what became of them.

Hides how files are read (DuckDB: CSV, Parquet, JSON lines). What a label is worth is `monitor.labels`'.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from modelyard import config
from modelyard.cli.show import Home, Json, emit_json, escape, line
from modelyard.cli.world import connect
from modelyard.errors import InvalidInput
from modelyard.types import parse_name

READERS = {
    ".csv": "read_csv_auto(?, all_varchar = true)",  # or yes becomes true, and 007 seven
    ".parquet": "read_parquet(?)",
    ".jsonl": "read_json_auto(?)",
    ".ndjson": "read_json_auto(?)",
    ".json": "read_json_auto(?)",
}
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
IDS, TRUTHS, TIMES = ("prediction_id", "id"), ("label", "truth"), ("known_at",)


class Table(NamedTuple):
    """The labels of a file in its order, as (prediction id, truth, since when it is known in seconds since 1970, if it says so); one id may have
    several. `left_out` are its rows without an id or a label.
    """

    labels: list[tuple[str, Any, float | None]]
    left_out: int


def labels(
    name: Annotated[str, typer.Argument(help="The deployment.")],
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="CSV, Parquet or JSON lines with the columns prediction_id and label, perhaps known_at.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Give true answers of predictions, by prediction id; without a file, show what became of those given."""
    given = None if file is None else read(file)
    with connect(config.load({"home": home})) as client:
        told = None if given is None else client.give_labels(parse_name(name), given.labels)
        found = client.labels(parse_name(name))
    if json:
        emit_json(found)
        return
    if told is not None:
        line(f"taken: {told.new:,} new, {told.same:,} the same as before, {told.changed:,} changed")
        if told.outdated:
            line(f"kept as earlier: {told.outdated:,}, known before the one that stands")
        if told.future:
            line(f"refused: {told.future:,}, dated in the future")
    line(f"{name} has {found.labels:,} labels of {found.predictions:,} logged predictions:")
    line(f"  {found.matched:,} matched, {found.unknown:,} of no prediction")
    if found.unsampled:
        line(f"  {found.unsampled:,} are unsampled: the log kept a share of the predictions, and would not have kept theirs, if there were any")
    line(f"  {found.late:,} came after the day of their prediction, {found.conflicting:,} ids have had different labels")
    if found.mistyped:
        line(f"  {found.mistyped:,} are no answer that the model could give, and count in no figure")
    if given is not None and given.left_out:
        line(f"  left out: {given.left_out:,} rows of the file without an id or a label")
    for kind, ids in found.named.items():
        line(f"  {kind}: {escape(', '.join(ids))}{' …' if len(ids) > 2 else ''}")


def read(path: Path) -> Table:
    """The labels in a file. Raises InvalidInput."""
    import duckdb

    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(f"labels are read from {', '.join(sorted(READERS))}", field="file", rule="form")
    if not path.is_file():
        raise InvalidInput(f"there is no file {path.name} here", field="file", rule="path")
    try:
        with duckdb.connect(config={"threads": 1}) as connection:
            found = connection.execute(f"SELECT * FROM {reader}", [str(path)])  # noqa: S608  one of the names above
            names = [column[0].lower() for column in found.description]
            places = [next((names.index(each) for each in wanted if each in names), None) for wanted in (IDS, TRUTHS, TIMES)]
            rows = found.fetchall()
    except duckdb.Error as error:
        raise InvalidInput(f"{path.name} is not a table that can be read as {path.suffix}", field="file", rule="form") from error
    key, truth, time = places
    if key is None or truth is None:
        raise InvalidInput(f"{path.name} needs the columns prediction_id and label; it has {', '.join(names)}", field="file", rule="columns")
    kept = [row for row in rows if row[key] is not None and row[truth] is not None]
    since = [None if time is None or row[time] is None else _seconds(row[time]) for row in kept]
    return Table([(str(row[key]), _plain(row[truth]), at) for row, at in zip(kept, since, strict=True)], len(rows) - len(kept))


def _seconds(value: Any) -> float:
    """A time as seconds since 1970; without a zone it is UTC. Raises InvalidInput."""
    try:
        if isinstance(value, str):
            value = float(value) if _NUMBER.fullmatch(value) else datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput("known_at is a time as 2026-01-31T12:00:00+00:00 or in seconds since 1970", field="file", rule="known_at") from error


def _plain(value: Any) -> Any:
    """A number that is written as one; a Decimal or a date has no form of its own on the wire."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else value
    if isinstance(value, bool | int | float):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
