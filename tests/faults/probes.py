"""What the system says about processes: who descends from whom, what they hold.

Reads /proc; it changes nothing.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def table() -> dict[int, tuple[int, str]]:
    """Every process: pid -> (parent, state)."""
    found: dict[int, tuple[int, str]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            found[int(name)] = (int(fields[1]), fields[0])
    return found


def tree(pid: int) -> dict[int, str]:
    """`pid` and all that descend from it: pid -> state."""
    processes = table()
    found = {pid: processes[pid][1]} if pid in processes else {}
    added = True
    while added:
        more = {child: state for child, (parent, state) in processes.items() if parent in found and child not in found}
        found |= more
        added = bool(more)
    return found


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def resident(pid: int) -> int:
    """Bytes of `pid` in memory; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def descriptors(pid: int) -> int:
    """Open file descriptors of `pid`; 0 when it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def unsent(port: int) -> int:
    """Bytes that the system holds of what was written to the connections of the local `port`."""
    queued = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}"):
            queued += int(fields[4].split(":")[0], 16)
    return queued


class Watch:
    """Samples a process and its descendants, in a thread, until stopped: every pid ever seen, zombies that stay, the peak memory of one."""

    def __init__(self, pid: int, *, every_s: float = 0.1) -> None:
        self.pid = pid
        self.seen: set[int] = {pid}
        self.peaks: dict[int, int] = {}
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()

    def look(self) -> None:
        """One sample."""
        living = tree(self.pid)
        self.seen |= living.keys()
        for pid in living:
            self.peaks[pid] = max(self.peaks.get(pid, 0), resident(pid))

    def forget_peaks(self) -> None:
        """Begin to watch for peaks anew."""
        self.peaks = {}
        self.look()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()


class Peak:
    """The most memory that one process held between two moments, sampled often; a context manager."""

    def __init__(self, pid: int, *, every_s: float = 0.005) -> None:
        self.before = resident(pid)
        self.most = self.before
        self._pid = pid
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.most = max(self.most, resident(self._pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.most = max(self.most, resident(self._pid))
        self._stop.set()
        self._thread.join()

    @property
    def growth_mb(self) -> float:
        """How much more than at the beginning, in MB."""
        return (self.most - self.before) / 1e6


def wait(true, seconds: float, every_s: float = 0.02) -> float | None:
    """The seconds until `true()`; None when it did not come to pass in time."""
    began = time.monotonic()
    while True:
        if true():
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            return None
        time.sleep(every_s)
