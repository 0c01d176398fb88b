"""What packaging costs: a forest of 100 full-grown trees, with the 100,000 rows that it was trained on.

The model is trained and packaged in a process of its own, as a user does; its memory and that of all its children is read while
it packages. It says nothing of training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.items import Item

ROWS, FEATURES, TREES = 100_000, 30, 100
READY = "trained"


def package_forest() -> None:
    """Train, say so, package into the home of the environment, and print what it took as JSON."""
    import pandas as pd
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    from modelyard.control import package

    X, y = make_classification(n_samples=ROWS, n_features=FEATURES, n_informative=12, flip_y=0.02, random_state=0)
    frame = pd.DataFrame(X, columns=[f"f{i:02}" for i in range(FEATURES)])
    forest = RandomForestClassifier(TREES, n_jobs=os.cpu_count(), random_state=0).fit(frame, y)
    forest.set_params(n_jobs=1)
    print(READY, flush=True)
    stages: dict[str, float] = {}
    started = time.perf_counter()

    def progress(stage: str, _: float) -> None:
        stages[stage] = time.perf_counter() - started

    package(forest, name="forest", data=frame, labels=y, progress=progress)
    took = time.perf_counter() - started
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    print(json.dumps({"seconds": took, "nodes": nodes, "stages": stages}), flush=True)


def resident_bytes(session: int) -> int:
    """Proportional memory of all processes of the session (what several share counts once); resident where that is not to be had."""
    total = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            rollup = (folder / "smaps_rollup").read_text()
            total += 1024 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except (OSError, StopIteration, ValueError, IndexError):
            continue  # it ended between the two reads
    return total


def run() -> list[Item]:
    """Time and peak memory of packaging, from the call to the registered version."""
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.packaging"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "MODELYARD_HOME": home},
        )
        assert process.stdout is not None
        if process.stdout.readline().strip() != READY:
            process.kill()
            raise RuntimeError("the forest was not trained")
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident_bytes(process.pid))
            time.sleep(0.05)
        if process.returncode:
            raise RuntimeError(f"packaging ended with {process.returncode}")
        found = json.loads(process.stdout.readlines()[-1])
        process.stdout.close()
    note = f"{TREES} trees of {found['nodes']:,} nodes, {ROWS:,} rows of {FEATURES} columns"
    return [
        Item(name="package-forest-time", figure=found["seconds"], unit="s", bar=60, better="lower", note=note),
        Item(name="package-forest-memory", figure=peak / 1e6, unit="MB", bar=2000, better="lower", note="peak of all its processes"),
    ]


if __name__ == "__main__":
    package_forest()
