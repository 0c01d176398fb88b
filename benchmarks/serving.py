"""The data plane beside the ruler (`reference_servers.py bare`), with everything on: schema check, metrics, observations.

The same ONNX session answers on both sides: a 100-tree forest over 30 floats, one row a request, JSON V2. The server is pinned to one core, wrk to
another; rounds alternate and the median of their ratios counts, so that what else the machine does meets both sides alike.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.items import Item, ratio, spread

REFERENCE = Path(__file__).with_name("reference_servers.py")
SECONDS = 4
ROUNDS = 5
STARTS = 5
PINNED = shutil.which("taskset") is not None and (os.cpu_count() or 1) > 1


def make(folder: Path) -> tuple[Path, bytes]:
    """A home that serves the forest as `forest`, and the request that all servers are sent."""
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    import modelyard
    from modelyard import registry
    from modelyard.types import HostPlan, Placement, TrafficPlan, write_plan

    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(np.float32)
    forest = RandomForestClassifier(100, random_state=0).fit(X, y)
    path = folder / "forest.onnx"
    path.write_bytes(to_onnx(forest, X[:1], options={id(forest): {"zipmap": False}}).SerializeToString())
    home = folder / "home"
    modelyard.package(path, name="forest", data=X, home=home)
    version = registry.open(home).resolve("forest")
    plan = TrafficPlan(name="forest", generation=1, weights={version.digest: 100}, versions={version.digest: version.version})
    place = Placement(blobs=str(home / "blobs"), index=version.index)
    write_plan(home / "plan.json", HostPlan(sequence=1, plans=(plan,), placements={version.digest: place}))
    tensor = {"name": "X", "shape": [1, 30], "datatype": "FP32", "data": [float(value) for value in X[0].astype(np.float64)]}
    return path, json.dumps({"inputs": [tensor]}).encode()


class Servers:
    """Starts both sides alike, on a core of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model, self.body = make(folder)
        self.script = folder / "post.lua"
        done = 'done = function(s, l, r) io.write(string.format("errors %d p50 %d\\n", s.errors.status, l:percentile(50))) end'
        self.script.write_text(
            f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{self.body.decode()}]]\n{done}\n'
        )
        self.port = 18_300

    @contextmanager
    def started(self, kind: str) -> Iterator[tuple[str, float, int]]:
        """A fresh server of `kind` (`ours`, or one of the reference's): its URL, the seconds to its first answer, the pid that answers."""
        self.port += 1
        if kind == "ours":
            home = self.folder / "home"
            command = [
                "-P",
                "-m",
                "modelyard.serve",
                "--home",
                str(home),
                "--port",
                str(self.port),
                "--grpc-port",
                "0",
                "--workers",
                "1",
                "--spool",
                str(home / "spool"),
            ]
            path = "/v2/models/forest/infer"
        else:
            command, path = [str(REFERENCE), kind, str(self.model), str(self.port)], "/"
        pin = ["taskset", "-c", "0"] if PINNED else []
        began = time.perf_counter()
        process = subprocess.Popen([*pin, sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._first_answer(path)
            seconds = time.perf_counter() - began
            yield f"http://127.0.0.1:{self.port}{path}", seconds, _answering(process.pid) if kind == "ours" else process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def _first_answer(self, path: str) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("POST", path, self.body, {"Content-Type": "application/json"})
                if connection.getresponse().status == 200:
                    return
            except OSError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.005)

    def load(self, url: str, connections: int) -> tuple[float, float]:
        """Requests per second, and the median wait in µs, of a closed loop over `connections`."""
        pin = ["taskset", "-c", "1"] if PINNED else []
        command = [*pin, "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", str(self.script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        errors, p50 = re.search(r"errors (\d+) p50 (\d+)", said).groups()
        if errors != "0" or "Socket errors" in said:
            raise RuntimeError(said)
        return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), float(p50)


def _answering(parent: int) -> int:
    return int(subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True).stdout.split()[0])


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run() -> list[Item]:
    """Throughput at 32 connections, the median wait at one, the start, and the memory of a worker."""
    if shutil.which("wrk") is None:
        raise RuntimeError("needs wrk (apt-get install wrk)")
    with tempfile.TemporaryDirectory() as name:
        servers = Servers(Path(name))

        def start(kind: str) -> float:
            with servers.started(kind) as (_, seconds, _):
                return seconds

        start("ours"), start("bare")  # compiled files and page cache, as for any second start
        begin, ours_s, bare_s = ratio(lambda: start("ours"), lambda: start("bare"), rounds=STARTS)
        with servers.started("bare") as (bare, _, _), servers.started("ours") as (ours, _, pid):
            servers.load(ours, 32), servers.load(bare, 32)
            speed, ours_rate, bare_rate = ratio(lambda: servers.load(ours, 32)[0], lambda: servers.load(bare, 32)[0], rounds=ROUNDS)
            wait, ours_us, bare_us = ratio(lambda: servers.load(ours, 1)[1], lambda: servers.load(bare, 1)[1], rounds=ROUNDS)
            memory = _resident_mb(pid)
    return [
        Item(
            name="serve-32-connections",
            figure=speed,
            unit="x",
            bar=1.5,
            better="higher",
            note=f"requests/s: ours {spread(ours_rate, '')}, bare ASGI {spread(bare_rate, '')}",
        ),
        Item(
            name="serve-p50-1-connection",
            figure=wait,
            unit="x",
            bar=1.3,
            better="lower",
            note=f"ours {statistics.median(ours_us):.0f} µs, bare ASGI {statistics.median(bare_us):.0f} µs",
        ),
        Item(
            name="serve-start",
            figure=begin,
            unit="x",
            bar=1.5,
            better="lower",
            note=f"to the first answer: ours {statistics.median(ours_s):.2f} s, bare ASGI {statistics.median(bare_s):.2f} s",
        ),
        Item(name="serve-memory", figure=memory, unit="MB", bar=150, better="lower", note="one worker after the load, forest of 100 trees"),
    ]
