"""Memory of a worker over hot swaps: what a version held goes back when it is let go, measured from outside, with a control that keeps it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from modelyard.types import read_worker_state
from serving import Home

pytestmark = pytest.mark.system
SWAPS, GROWTH_BYTES = 20, 10 << 20

WORKER = """
import asyncio, socket, sys
import uvloop
from modelyard import config
from modelyard.serve.loading import load
from modelyard.serve.worker import Worker

kept = []

def leaking(*arguments):
    kept.append(load(*arguments))
    kept[-1].runtime.close = lambda: None
    return kept[-1]

async def main():
    settings = config.load({"home": sys.argv[1], "workers": 1})
    worker = Worker(settings, slot=0, plan=settings.plan, run=settings.run, spool=None, load=leaking if sys.argv[2:] else load)
    listener, (ours, theirs) = socket.create_server(("127.0.0.1", 0)), socket.socketpair()
    print(listener.getsockname()[1], flush=True)
    await worker.serve(listener, theirs)

uvloop.run(main())
"""


@pytest.fixture(scope="module")
def forests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, list[Any], list[float]]:
    """A home with two forests of 100 trees, and a row."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    import modelyard
    from modelyard.types import Placement

    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(np.float32)
    home = Home(tmp_path_factory.mktemp("forests") / "h")
    made = []
    for seed in (0, 1):
        modelyard.package(RandomForestClassifier(100, random_state=seed).fit(X, y), name="forest", data=X, home=home.folder)
        known = home.registry.resolve(f"forest:{seed + 1}")
        home.placements[known.digest] = Placement(blobs=str(home.registry.blobs.folder), index=known.index)
        made.append((known.digest, known.version))
    home.run.mkdir()
    return home, made, X[0].tolist()


@contextmanager
def worker(home: Home, *leak: str) -> Iterator[tuple[int, int]]:
    """A worker over `home`; gives its pid and port."""
    with (home.folder / "worker.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-P", "-c", WORKER, str(home.folder), *leak], stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (home.folder / "worker.log").read_text()
        yield process.pid, int(line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def grown(forests: tuple[Home, list[Any], list[float]], *leak: str, swaps: int = SWAPS) -> int:
    """Bytes that a worker gained over so many swaps, each of which was asked and had let go of the version before."""
    home, versions, row = forests
    body = json.dumps({"inputs": [{"name": "X", "shape": [1, 30], "datatype": "FP32", "data": row}]})
    home.deploy("forest", {versions[0]: 100})
    with worker(home, *leak) as (pid, port):

        def swap(turn: int) -> None:
            sequence = home.deploy("forest", {versions[turn % 2]: 100})
            until = time.monotonic() + 30
            while (state := read_worker_state(home.run, 0)).sequence < sequence or (len(state.models) > 1):
                assert time.monotonic() < until, state
                time.sleep(0.01)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            for _ in range(20):
                connection.request("POST", "/v2/models/forest/infer", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                told = json.loads(answer.read())
                assert (answer.status, told["model_version"]) == (200, str(versions[turn % 2][1]))
            connection.close()

        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/v2")
        assert connection.getresponse().read()
        connection.close()
        for turn in range(1, 5):
            swap(turn)
        time.sleep(0.3)  # pages are given back on another thread
        before = resident(pid)
        for turn in range(5, 5 + swaps):
            swap(turn)
        time.sleep(0.3)
        return resident(pid) - before


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_twenty_swaps_of_a_forest_leave_no_memory_behind(forests: tuple[Home, list[Any], list[float]]) -> None:
    gained = grown(forests)
    assert gained <= GROWTH_BYTES, f"{gained / 2**20:.1f} MB"


def test_a_worker_that_kept_its_versions_would_be_found(forests: tuple[Home, list[Any], list[float]]) -> None:
    """Measured: 0.6 MB a version; so the bar is passed in twenty swaps, and well passed in forty."""
    assert grown(forests, "leak", swaps=2 * SWAPS) > GROWTH_BYTES
