"""Fewer files in the prediction log: of days that are over, many small ones become a few.

Hides how that loses nothing and shows nothing twice, whenever it ends: what is put together is written beside, then a note says what it is made of,
then it is renamed into its place, then its parts go, then the note. Who lists the folder in between leaves out the parts that a note names
(`parts`). It must not change a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from modelyard.errors import InvalidInput, ModelyardError, StorageFull
from modelyard.files import read_limited, sync_folder, write_atomically

NOTE = ".merging.json"
SUFFIX, BY_CALLER = ".parquet", ".callers.parquet"
"""How the log's files are called, and those whose rows have the group of their caller beside them: these stay by themselves."""
FEW = 8
"""So many small files of one version and day are left as they are."""
AT_ONCE = 64
LARGE_BYTES = 32 << 20
"""A file of this size is not put together with others any more."""
MOST_BYTES = 64 << 20


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Which file is made of which."""

    into: str
    of: tuple[str, ...]


class Batch(NamedTuple):
    """Small files of one version and day that are called alike, and are to be one."""

    folder: Path
    version: str
    ending: str
    paths: tuple[Path, ...]


def due(log: Path, *, before: date) -> Iterator[Batch]:
    """What there is to be put together in the days before a day, the oldest first."""
    for folder in sorted(log.glob("*/*/*"), key=lambda path: path.name):
        try:
            is_over = date.fromisoformat(folder.name) < before
        except ValueError:  # not one of ours
            continue
        if is_over:
            finish(folder)
            yield from _small(folder)


def merge(batch: Batch) -> Path:
    """Make one file of a batch. Raises StorageFull, or InvalidInput where their columns do not fit together; then all is as before."""
    import duckdb

    names = tuple(path.name for path in batch.paths)
    target = batch.folder / f"{batch.version}-m{hashlib.sha256(chr(0).join(names).encode()).hexdigest()[:16]}{batch.ending}"
    temporary = batch.folder / f".{target.name}.tmp"
    read = ", ".join("'" + str(path).replace("'", "''") + "'" for path in batch.paths)
    into = "'" + str(temporary).replace("'", "''") + "'"
    query = f"COPY (SELECT * FROM read_parquet([{read}], union_by_name = true)) TO {into} (FORMAT parquet, COMPRESSION zstd)"  # noqa: S608  quoted
    try:
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute(query)
        _sync(temporary)
        write_atomically(batch.folder / NOTE, msgspec.json.encode(Note(into=target.name, of=names)), mode=0o600)
        temporary.replace(target)
        sync_folder(batch.folder)
    except (duckdb.Error, OSError, StorageFull) as error:
        temporary.unlink(missing_ok=True)
        (batch.folder / NOTE).unlink(missing_ok=True)
        if isinstance(error, duckdb.IOException | OSError | StorageFull):
            raise StorageFull("no space left to put files of the prediction log together; they stay as they are") from error
        raise InvalidInput("files of the prediction log whose columns do not fit together") from error
    finish(batch.folder)
    return target


def finish(folder: Path) -> None:
    """Go on where whoever wrote a note was ended: its parts go if what they became is there, else they stay."""
    note = _note(folder)
    if note is not None:
        for path in parts(folder):
            path.unlink(missing_ok=True)
    (folder / NOTE).unlink(missing_ok=True)


def parts(folder: Path) -> list[Path]:
    """The files of a day's folder that another one has taken the place of."""
    note = _note(folder)
    if note is None or not (folder / Path(note.into).name).exists():
        return []
    return [folder / Path(name).name for name in note.of if name != note.into]


def _note(folder: Path) -> Note | None:
    try:
        return msgspec.json.decode(read_limited(folder / NOTE, 1 << 20), type=Note)
    except (ModelyardError, msgspec.MsgspecError):
        return None


def _small(folder: Path) -> Iterator[Batch]:
    alike: dict[tuple[str, str], list[tuple[Path, int]]] = {}
    for path in sorted(folder.glob("[!.]*.parquet")):
        with suppress(FileNotFoundError):
            size = path.lstat().st_size
            if size < LARGE_BYTES:
                ending = BY_CALLER if path.name.endswith(BY_CALLER) else SUFFIX
                alike.setdefault((path.name.partition("-")[0], ending), []).append((path, size))
    for (version, ending), found in alike.items():
        if len(found) <= FEW:
            continue
        chosen: list[Path] = []
        total = 0
        for path, size in found[:AT_ONCE]:
            if chosen and total + size > MOST_BYTES:
                break
            chosen.append(path)
            total += size
        if len(chosen) > 1:
            yield Batch(folder, version, ending, tuple(chosen))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
