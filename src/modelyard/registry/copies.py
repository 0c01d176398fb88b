"""A copy of a home's registry.sqlite while it is in use, and the way back to one.

Hides SQLite's online backup and the order in which files are replaced: at any moment there is the old database, or none (which is said, never made
anew), or the copy. What is replaced is kept. It must not know what a record means; who may restore, and when, is the caller's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.errors import Conflict, NotFound
from modelyard.files import sync_folder, translate
from modelyard.registry.records import SqliteRecords, translated

if TYPE_CHECKING:
    from collections.abc import Iterator

BESIDE = ("-wal", "-shm", "-mark")
"""What lies beside a database and belongs to it alone."""


def backup(database: Path, target: Path) -> int:
    """Copy `database` to the new file `target`, as it is at one moment, and check it; its size. Raises Conflict when `target` is there."""
    if target.exists():
        raise Conflict(f"{target.name} is there already; give another name")
    if not database.exists():
        raise NotFound("this home has no registry.sqlite yet")
    with closing(SqliteRecords(database, is_checked=True)), _beside(target) as copy:  # what is damaged is told so, not copied
        with translated(copy), closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as made:
            source.backup(made)
        _place(copy, target)
    return target.stat().st_size


def restore(database: Path, source: Path) -> Path | None:
    """Put a copy of `source` in the place of `database`, migrated and checked; where what was there is kept now, None when nothing was there.

    Nobody else may have `database` open. Raises NotFound, or as opening does for a `source` that is no whole registry; then nothing was changed.
    """
    kept = database.with_name(f"{database.name}-replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}")
    with _beside(database) as copy:
        try:
            shutil.copyfile(source, copy)
        except OSError as error:
            raise translate(error, source) from error
        SqliteRecords(copy, is_checked=True).close()
        try:
            # What belongs to the old database must never lie beside the new one, so it goes first.
            for ending in (*BESIDE, ""):
                if (old := database.with_name(database.name + ending)).exists():
                    old.rename(kept.with_name(kept.name + ending))
            sync_folder(database.parent)
        except OSError as error:
            raise translate(error, database) from error
        _place(copy, database)
    return kept if kept.exists() else None


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A name for a file that becomes `place` when it is done; what is left of it goes."""
    copy = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        yield copy
    except OSError as error:
        raise translate(error, place) from error
    finally:
        for ending in ("", *BESIDE, "-journal"):
            copy.with_name(copy.name + ending).unlink(missing_ok=True)


def _place(copy: Path, place: Path) -> None:
    descriptor = os.open(copy, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(copy, place)
    sync_folder(place.parent)
