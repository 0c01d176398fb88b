"""`labels`: true answers of predictions from a file, and what became of them.

Hides how files are read (DuckDB: CSV, Parquet, JSON lines). What a label is worth is `monitor.labels`'.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard import config
from modelyard.cli.show import Home, Json, emit_json, line
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
IDS, TRUTHS = ("prediction_id", "id"), ("label", "truth")


def labels(
    name: Annotated[str, typer.Argument(help="The deployment.")],
    *,
    file: Annotated[Path | None, typer.Option("--file", help="CSV, Parquet or JSON lines with the columns prediction_id and label.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Give true answers of predictions, by prediction id; without a file, show what became of those given."""
    given = None if file is None else read(file)
    with connect(config.load({"home": home})) as client:
        told = None if given is None else client.give_labels(parse_name(name), given)
        found = client.labels(parse_name(name))
    if json:
        emit_json(found)
        return
    if told is not None:
        line(f"{told.new:,} labels were new, {told.same:,} the same as before, {told.changed:,} changed")
    line(f"{name} has {found.labels:,} labels of {found.predictions:,} logged predictions:")
    line(f"  {found.matched:,} matched, {found.unsampled:,} of predictions that the log did not keep, {found.unknown:,} of none that is known")


def read(path: Path) -> dict[str, Any]:
    """The labels in a file, by prediction id; of one id the last. Rows without a label are left out. Raises InvalidInput."""
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
            places = [next((names.index(each) for each in wanted if each in names), None) for wanted in (IDS, TRUTHS)]
            rows = found.fetchall()
    except duckdb.Error as error:
        raise InvalidInput(f"{path.name} is not a table that can be read as {path.suffix}", field="file", rule="form") from error
    if None in places:
        raise InvalidInput(f"{path.name} needs the columns prediction_id and label; it has {', '.join(names)}", field="file", rule="columns")
    return {str(row[places[0]]): _plain(row[places[1]]) for row in rows if row[places[0]] is not None and row[places[1]] is not None}


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
