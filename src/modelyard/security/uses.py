"""When each access key was last used: noted in memory, written down once a minute by each process, and read over all of them.

Hides the files, `run/used-<process>.json` in the home, which hold a key's id and a time and are replaced whole; a crash loses a minute. It must not
know what a key may do.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from modelyard.errors import ModelyardError
from modelyard.files import read_limited, write_atomically

EVERY_S = 60.0
"""Between two writings. A use is noted at least as often, whatever the process remembers of a caller."""

LIMIT_BYTES = 16 << 20


class Uses:
    """The uses that one process has seen. Any thread may note one."""

    def __init__(self, run: Path, process: str) -> None:
        self._path = run / f"used-{process}.json"
        self._lock = threading.Lock()
        self._noted: dict[str, str] = {}

    def note(self, id: str) -> None:
        """The key with this id was used now."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            self._noted[id] = at

    def write(self) -> None:
        """Write down what was noted since the last time, beside what is there. Raises StorageFull or InvalidConfig, and keeps it for next time."""
        with self._lock:
            noted, self._noted = self._noted, {}
        if not noted:
            return
        try:
            write_atomically(self._path, msgspec.json.encode({**_read(self._path), **noted}), mode=0o600, durable=False)
        except ModelyardError:
            with self._lock:
                self._noted = {**noted, **self._noted}
            raise


def last_uses(run: Path) -> dict[str, str]:
    """The last use of each key that any process of the home has written down: ISO 8601 in UTC, by the key's id."""
    found: dict[str, str] = {}
    for path in sorted(run.glob("used-*.json")):
        for key, at in _read(path).items():
            found[key] = max(at, found.get(key, ""))
    return found


def _read(path: Path) -> dict[str, str]:
    """What `path` says; a file that is not there, or is damaged, says nothing: it is no more than a note."""
    try:
        return msgspec.json.decode(read_limited(path, LIMIT_BYTES), type=dict[str, str])
    except (ModelyardError, msgspec.MsgspecError):
        return {}
