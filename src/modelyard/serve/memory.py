"""How much memory there is left: for this machine, and inside the control group that this process runs in.

Hides where the system says so (`/proc`, cgroup v2 and v1). It must not decide how much is enough.
"""

from __future__ import annotations

import os
from pathlib import Path

_UNLIMITED = 1 << 60


def free_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that can still be taken: the least of what the machine and the control group leave; None where the system does not say."""
    found = [left for left in (_available(proc / "meminfo"), _left_v2(cgroup), _left_v1(cgroup / "memory")) if left is not None]
    return min(found, default=None)


def resident_bytes_of(pid: int, proc: Path = Path("/proc")) -> int:
    """Memory of process `pid` that is in RAM; 0 where there is no such process or the system does not say."""
    try:
        return int((proc / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _available(path: Path) -> int | None:
    return _field(path, "MemAvailable:", 1024)


def _left_v2(folder: Path) -> int | None:
    """What is cached of files and not in use can be taken back, so it counts as free."""
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    return max(0, limit - used + (_field(folder / "memory.stat", "inactive_file", 1) or 0))


def _left_v1(folder: Path) -> int | None:
    limit, used = _number(folder / "memory.limit_in_bytes"), _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None or limit > _UNLIMITED:
        return None
    return max(0, limit - used + (_field(folder / "memory.stat", "total_inactive_file", 1) or 0))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None


def _field(path: Path, name: str, unit: int) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1]) * unit
    return None
