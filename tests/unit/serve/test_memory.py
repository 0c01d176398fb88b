"""How much memory is left, read from files as Linux writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard.serve.memory import free_bytes, resident_bytes_of


def written(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_the_least_of_machine_and_control_group_counts(tmp_path: Path) -> None:
    proc = written(tmp_path / "proc", meminfo="MemTotal:  9000 kB\nMemAvailable:  4000 kB\n")
    nothing = tmp_path / "nothing"
    assert free_bytes(proc, nothing) == 4000 * 1024
    stat = "anon 1\ninactive_file 500\n"
    v2 = written(tmp_path / "v2", memory__max="3000", memory__current="2000", memory__stat=stat)
    assert free_bytes(proc, v2) == 1500 == free_bytes(nothing, v2)
    (v2 / "memory.max").write_text("max\n")
    assert free_bytes(proc, v2) == 4000 * 1024
    v1 = tmp_path / "v1"
    written(v1 / "memory", memory__limit_in_bytes="1000", memory__usage_in_bytes="4000", memory__stat="total_inactive_file 10\n")
    assert free_bytes(proc, v1) == 0
    (v1 / "memory" / "memory.limit_in_bytes").write_text(str((1 << 63) - 4096))
    assert free_bytes(proc, v1) == 4000 * 1024
    assert free_bytes(nothing, nothing) is None


def test_what_a_process_holds() -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here")
    assert resident_bytes_of(os.getpid()) > 1 << 20
    assert resident_bytes_of(1 << 30) == 0
