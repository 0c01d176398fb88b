"""How the whole data plane stands, seen from one of its workers: whichever of them is asked, the answer is the same.

Hides that the others are known by the files that they write. It must not be asked per request for more than what it last saw.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from modelyard.errors import MalformedPayload, NotFound
from modelyard.health import Health, alone, judge
from modelyard.types import ServeState, WorkerState, read_serve_state, read_worker_state

_Stamp = tuple[int, int, int]


class Watch:
    """The reports of one run folder. One thread owns it; `refresh` reads what has changed since."""

    def __init__(self, run: Path, own: WorkerState) -> None:
        self._run = run
        self._own = own
        self._seen: dict[str, tuple[_Stamp, ServeState | WorkerState | None]] = {}
        self._health = alone(own)
        self._is_up = False

    def tell(self, own: WorkerState) -> None:
        """Take this worker's newest report."""
        self._own = own
        self.refresh()

    @property
    def health(self) -> Health:
        """As last seen; while the data plane starts, as it is now, so that it is ready no later than its supervisor says."""
        if not self._is_up:
            self.refresh()
        return self._health

    def refresh(self) -> None:
        """Look at what the others say. Without a supervisor's report this worker stands for all."""
        serve = self._read("serve.json", partial(read_serve_state, self._run))
        if not isinstance(serve, ServeState) or not _is_running(serve.pid):
            self._health = alone(self._own)
            return
        workers = [self._own]
        for slot in range(serve.size):
            if slot != self._own.slot:
                other = self._read(f"worker-{slot}.json", partial(read_worker_state, self._run, slot))
                if isinstance(other, WorkerState) and _is_running(other.pid):
                    workers.append(other)
        self._health = judge(serve, workers)
        self._is_up = serve.is_up

    def _read(self, name: str, read: Callable[[], ServeState | WorkerState]) -> ServeState | WorkerState | None:
        try:
            status = (self._run / name).stat()
        except OSError:
            self._seen.pop(name, None)
            return None
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        seen = self._seen.get(name)
        if seen is not None and seen[0] == stamp:
            return seen[1]
        state: ServeState | WorkerState | None
        try:
            state = read()
        except (NotFound, MalformedPayload):
            state = None
        self._seen[name] = (stamp, state)
        return state


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
