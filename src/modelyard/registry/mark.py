"""How far a database is known to have come, in a file beside it: what tells that its last writes are missing.

SQLite cannot: a write-ahead log whose end was damaged looks to it like one whose end was never written, and it goes on without those commits. Hides
the file's form. The file is written after each commit and never synced: it may be behind what is committed, and is never before it.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

_FORM = re.compile(rb"(\d{1,19}) (\d{1,19}) *\n")
_SIZE = 44


class Point(NamedTuple):
    """The latest revision of a record and the number of the last line of the audit chain."""

    revision: int
    sequence: int


class Mark:
    """The file beside one database. Any thread; several processes may write it, and then the later commit may be told by the earlier's number."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Point | None:
        """The point that was certainly reached; None where nothing is told, or nothing that can be read."""
        try:
            found = _FORM.fullmatch(self._path.read_bytes()[:_SIZE])
        except OSError:
            return None
        return None if found is None else Point(int(found[1]), int(found[2]))

    def write(self, point: Point) -> None:
        """Tell that `point` was committed. A disk that takes no note of it keeps nobody from going on."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, f"{point.revision} {point.sequence}".encode().ljust(_SIZE - 1) + b"\n", 0)
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Tell nothing any more: the database is another, a copy from before."""
        self._path.unlink(missing_ok=True)
