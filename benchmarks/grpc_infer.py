"""gRPC ModelInfer beside a bare `grpc.aio` servicer of the same session, with everything on: a key, schema check, metrics, observations.

One row of 30 floats a call, raw, 32 calls in flight on 4 connections. The server is pinned to one core, the load (`h2_load`, frames made before) to
another; rounds alternate and the median of their ratios counts. A Python client is measured beside it, because it costs more than either server.
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.items import Item, ratio, spread
from benchmarks.servers import ON_LOAD_CORE, ON_SERVER_CORE
from benchmarks.serving import forest

SECONDS = 2
ROUNDS = 5
CONNECTIONS, STREAMS = 4, 8


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_message() -> bytes:
    """The call's message."""
    from sklearn.datasets import load_breast_cancer

    from modelyard.protocols.messages import kind

    message = kind("inference.ModelInferRequest")(model_name="forest")
    message.inputs.add(name="X", datatype="FP32", shape=[1, 30])
    message.raw_input_contents.append(load_breast_cancer(return_X_y=True)[0][0].astype("<f4").tobytes())
    return message.SerializeToString()


@contextmanager
def started(command: list[str], port: int) -> Iterator[str]:
    """A server on core 0, once it listens."""
    process = subprocess.Popen([*ON_SERVER_CORE, sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def load(address: str, message: Path, connections: int, streams: int, key: str = "") -> dict[str, float]:
    """What `h2_load` finds."""
    command = [*ON_LOAD_CORE, sys.executable, "-m", "benchmarks.h2_load", address, str(connections), str(streams), str(SECONDS), str(message)]
    return json.loads(subprocess.run([*command, *([key] if key else [])], capture_output=True, text=True, check=True).stdout)


def python_client_us(address: str, message: Path, key: str) -> float:
    """Median µs of one call at a time by grpcio's own client."""
    code = (
        "import grpc, pathlib, statistics, sys, time\n"
        "address, message, key = sys.argv[1], pathlib.Path(sys.argv[2]).read_bytes(), sys.argv[3]\n"
        "call = grpc.insecure_channel(address).unary_unary('/inference.GRPCInferenceService/ModelInfer')\n"
        "waits = []\n"
        "for _ in range(3000):\n"
        "    began = time.perf_counter(); call(message, metadata=(('authorization', f'Bearer {key}'),)); waits.append(time.perf_counter() - began)\n"
        "print(statistics.median(waits) * 1e6)\n"
    )
    return float(
        subprocess.run([*ON_LOAD_CORE, sys.executable, "-c", code, address, str(message), key], capture_output=True, text=True, check=True).stdout
    )


def run() -> list[Item]:
    """Throughput beside the bare servicer, and what a call costs server and client."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, home = forest(folder)
        message = folder / "message"
        message.write_bytes(make_message())
        key = home.authorization["Authorization"].removeprefix("Bearer ")
        port, bare_port = free_port(), free_port()
        serve = ["-P", "-m", "modelyard.serve", "--home", str(home.folder), "--port", "0", "--workers", "1"]
        serve += ["--grpc-port", str(port), "--keys-file", str(home.keys_file), "--spool", str(folder / "spool")]
        bare_server = [str(Path(__file__).with_name("reference_grpc.py")), str(model), str(bare_port)]
        with started(serve, port) as ours, started(bare_server, bare_port) as bare:
            load(ours, message, CONNECTIONS, STREAMS, key), load(bare, message, CONNECTIONS, STREAMS)
            speed, ours_rate, bare_rate = ratio(
                lambda: load(ours, message, CONNECTIONS, STREAMS, key)["rate"],
                lambda: load(bare, message, CONNECTIONS, STREAMS)["rate"],
                rounds=ROUNDS,
            )
            ours_us, bare_us = load(ours, message, 1, 1, key)["p50_us"], load(bare, message, 1, 1)["p50_us"]
            client_us = python_client_us(ours, message, key)
    cost = 1e6 / statistics.median(ours_rate), 1e6 / statistics.median(bare_rate)
    note = (
        f"calls/s: ours {spread(ours_rate, '')}, bare grpc.aio {spread(bare_rate, '')}; a call costs {cost[0]:.0f} µs, bare {cost[1]:.0f} µs; "
        f"one at a time {ours_us:.0f} µs, bare {bare_us:.0f} µs, with grpcio's Python client {client_us:.0f} µs"
    )
    return [Item(name="grpc-infer", figure=speed, unit="x", bar=0.9, better="higher", note=note)]
