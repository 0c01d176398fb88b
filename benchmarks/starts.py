"""How long a person waits for the command line, and a program for the import: each in fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.items import Item, ratio, spread

ROUNDS = 7


def seconds(command: list[str]) -> float:
    """Wall time of one run of `command`, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - started


def run() -> list[Item]:
    """`modelyard --help`, and `import modelyard` beside what every typed program imports."""
    script = Path(sys.executable).with_name("modelyard")
    helped = [str(script), "--help"]
    seconds(helped)  # compiled files and page cache, as for any second use
    waits = [seconds(helped) * 1000 for _ in range(ROUNDS)]
    share, ours, bare = ratio(
        lambda: seconds([sys.executable, "-c", "import modelyard"]), lambda: seconds([sys.executable, "-c", "import typing"]), rounds=ROUNDS
    )
    return [
        Item(name="help", figure=statistics.median(waits), unit="ms", bar=300, better="lower", note=spread(waits, " ms")),
        Item(
            name="import-modelyard",
            figure=share,
            unit="x",
            bar=1.3,
            better="lower",
            note=f"`import typing` {statistics.median(bare) * 1000:.0f} ms, `import modelyard` {statistics.median(ours) * 1000:.0f} ms",
        ),
    ]
