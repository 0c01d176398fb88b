"""A copy of a home's records and the way back to one, as verbs of a home.

Hides which process may not be there meanwhile. It must not know how a database is copied: `registry.copies` does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import files
from modelyard.errors import Conflict, InvalidConfig, ModelyardError
from modelyard.registry import copies

if TYPE_CHECKING:
    from modelyard.config import Settings
    from modelyard.types import Principal


def backup(settings: Settings, target: Path) -> int:
    """Copy the home's records, checked, to the new file `target` while they are in use; its size. Raises Conflict when it is there, or Tampered."""
    return copies.backup(_database(settings), target)


def restore(settings: Settings, principal: Principal, source: Path) -> Path | None:
    """Go back to the copy `source`; where the records that were there are kept. The audit chain, which goes back with them, tells of it.

    Raises Conflict while the home is up, NotFound, or Tampered when `source` is no whole copy; then nothing was changed.
    """
    database = _database(settings)
    files.make_folder(settings.run)
    with _nobody_else(settings):
        kept = copies.restore(database, source)
        _forget_evidence(settings)
    from modelyard.control.plane import ControlPlane

    with ControlPlane(settings) as plane:
        plane.audit.record(principal, "restore", database.name, outcome="done", detail=source.name)
    return kept


def _forget_evidence(settings: Settings) -> None:
    """The copy's deployments will give generations again that the later ones had: what was counted of those is not about what they will stand for."""
    from modelyard.monitor.intake import windows_path
    from modelyard.monitor.windows import Windows

    with contextlib.suppress(ModelyardError), contextlib.closing(Windows(windows_path(settings))) as windows:  # what cannot be opened judges nobody
        windows.forget_evidence()


def _database(settings: Settings) -> Path:
    if settings.records_url:
        raise InvalidConfig("this home's records are in PostgreSQL; copy and restore them with pg_dump and pg_restore", field="records_url")
    return settings.home / "registry.sqlite"


@contextlib.contextmanager
def _nobody_else(settings: Settings) -> Iterator[None]:
    """Keep the home from coming up while the block runs."""
    with contextlib.ExitStack() as held:
        for name in ("up.lock", "control.lock"):
            descriptor = os.open(settings.run / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"{settings.home} is up; stop it first: modelyard down") from None
        yield
