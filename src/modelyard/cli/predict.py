"""`predict`: ask a deployed model about the rows of a file."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from modelyard import config
from modelyard.cli.show import Home, Json, line, table
from modelyard.errors import InvalidConfig, MalformedPayload, NotFound, SchemaMismatch, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelyard.config import Settings
    from modelyard.runtime.data import Table
    from modelyard.types import Array, ServeState, TensorSpec

SHOWN_ROWS = 10


def predict(
    name: Annotated[str, typer.Argument(help="The deployment.")],
    *,
    data: Annotated[Path, typer.Option(help="The rows to ask about: .parquet or .csv. Columns that the model does not take are left out.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save all answers here: .csv or .parquet.")] = None,
    version: Annotated[int | None, typer.Option(help="Ask this version (default: whichever has the traffic).")] = None,
    url: Annotated[str | None, typer.Option(help="Another data plane than this home's.")] = None,
    cacert: Annotated[
        Path | None, typer.Option(help="Believe certificates of this authority (default: the system's; for this home, its own).")
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="Show this certificate, in PEM.")] = None,
    cert_key: Annotated[Path | None, typer.Option(help="The private key of --cert.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Ask a deployed model about the rows of a file, by HTTP as any client would."""
    from modelyard.client import Client, trusting
    from modelyard.runtime.data import read

    if output is not None and output.suffix not in (".csv", ".parquet"):
        raise InvalidConfig("--output ends in .csv or .parquet", field="output", rule="format")
    settings = config.load({"home": home})
    rows, _ = read(data)
    own = None if url is not None else _state(settings)
    pinned = Path(settings.tls_cert_file) if own is not None and own.scheme == "https" and cacert is None else None
    trust = trusting(cacert, certificate=cert, key=cert_key, pinned=pinned)
    where = url if own is None or url is not None else own.url
    with Client(data_url=where or "", timeout_s=settings.request_timeout_s + 5, key=_key(settings, own), trust=trust) as client:
        inputs = fit(rows, client.inputs(name, version=version), name=name)
        answers = client.predict(name, inputs, version=version)
    columns = flat(answers)
    if output is not None:
        save(columns, output)
    if json:
        told = {"name": name, "rows": rows.rows, "outputs": {key: array.tolist() for key, array in answers.items()}}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        return
    _show(columns, rows.rows, output)


def fit(table: Table, wanted: tuple[TensorSpec, ...], *, name: str) -> Mapping[str, Array]:
    """The columns of a file as the model's inputs, by name; a model of one array takes the numeric columns side by side. Raises SchemaMismatch."""
    import numpy as np

    if len(wanted) == 1 and wanted[0].name not in table.columns and len(wanted[0].shape) == 2:
        width = wanted[0].shape[1]
        texts = [column for column, array in table.columns.items() if array.dtype == object]
        if texts or width != len(table.columns):
            raise SchemaMismatch(
                f"{name} takes {width} numeric columns; the file has {len(table.columns) - len(texts)} numeric and {len(texts)} others", rule="shape"
            )
        return {wanted[0].name: np.concatenate([array.astype(np.float64) for array in table.columns.values()], axis=1)}
    missing = [spec.name for spec in wanted if spec.name not in table.columns]
    if missing:
        raise SchemaMismatch(f"the file lacks {', '.join(missing)}, which {name} takes", field=missing[0], rule="required")
    return {spec.name: table.columns[spec.name] for spec in wanted}


def flat(answers: Mapping[str, Array]) -> dict[str, list[Any]]:
    """Outputs as columns: one per output, or per element of an output that has several (`probability_0`, …)."""
    columns: dict[str, list[Any]] = {}
    for name, array in answers.items():
        wide = array.reshape(len(array), -1)
        if wide.shape[1] == 1:
            columns[name] = wide[:, 0].tolist()
        else:
            columns |= {f"{name}_{element}": wide[:, element].tolist() for element in range(wide.shape[1])}
    return columns


def save(columns: Mapping[str, list[Any]], path: Path) -> None:
    """Write columns to a .csv or .parquet file, whole or not at all. Raises StorageFull or InvalidConfig."""
    import csv
    import io
    import os
    import tempfile

    from modelyard import files

    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        files.write_atomically(path, text.getvalue().encode())
        return
    import duckdb
    import numpy as np

    descriptor, beside = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        with duckdb.connect() as connection:
            arrays = {name: np.asarray(values) for name, values in columns.items()}
            connection.register("answers", arrays)
            connection.execute("copy answers to ? (format parquet, compression zstd)", [beside])
        Path(beside).replace(path)
    finally:
        Path(beside).unlink(missing_ok=True)


def _state(settings: Settings) -> ServeState:
    from modelyard.types import read_serve_state

    try:
        return read_serve_state(settings.run)
    except (NotFound, MalformedPayload) as error:
        raise Unavailable(f"{settings.home} is not up; start it: modelyard up --detach") from error


def _key(settings: Settings, own: ServeState | None) -> str | None:
    """The key to show: MODELYARD_KEY; else, to this home's own data plane and no other, the admin key where one is wanted."""
    from modelyard.client.places import read_admin_key
    from modelyard.serve.access import wants_key

    given = config.key()
    if given is not None or own is None or settings.keys_file or not wants_key(msgspec.structs.replace(settings, host=own.host)):
        return given
    with contextlib.suppress(NotFound):
        return read_admin_key(settings)
    return None


def _show(columns: dict[str, list[Any]], rows: int, output: Path | None) -> None:
    shown = min(rows, SHOWN_ROWS)
    table(["row", *columns], [(row, *[values[row] for values in columns.values()]) for row in range(shown)], right=("row", *columns))
    rest = f"; the first {shown} of {rows:,} shown" if rows > shown else ""
    line(f"{rows:,} answers saved to {output}{rest}" if output is not None else f"{rows:,} answers{rest}")
