"""Where each microsecond of one JSON V2 row goes, at 1 and at 32 connections; `table` gives Markdown.

A worker's own objects answer recorded bytes over transports that swallow the answer: nothing is left out but the socket. Each stage's function is
timed where it is called; what a stage calls is taken off it, and so is the cost of timing, which is measured on a function that does nothing. The
quickest of several rounds counts. Then the same request is sent over a socket, and the worker's processor time per request
is read: what the stages do not explain is the event loop and the kernel. The ceiling is what the model alone costs: decode, array,
run, encode, in a loop.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec

from benchmarks.servers import Home, Question, processor_us
from benchmarks.serving import Sides

CONNECTIONS = (1, 32)
ROUNDS, REQUESTS = 9, 4096
SECONDS = 4
STAGES = ("head, key, route", "decode", "batch", "check", "run", "encode", "answer", "metrics", "observe")
SAYS = {
    "head, key, route": "find the head among those seen, byte for byte; its key and route were judged once",
    "decode": "JSON to one array, shape and datatype held to the schema",
    "batch": "queue, deadline, rows end to end, answers told apart",
    "check": "names, dtypes, shapes, finite values",
    "run": "the ONNX session",
    "encode": "outputs to JSON",
    "answer": "status line, headers, prediction id, order",
    "metrics": "counters and histograms",
    "observe": "profile, log, sampling and their segment each second",
}


class Tensor(msgspec.Struct):
    """As much of a request as the ceiling reads."""

    shape: list[int]
    data: list[float]


class Message(msgspec.Struct):
    """The body."""

    inputs: list[Tensor]


class Stopwatch:
    """Time per stage; what was measured within a stage is not counted to it."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = dict.fromkeys(STAGES, 0)
        self._within = [0]
        self._cost = 0
        self._inner_cost = 0
        self._calibrate()

    def _calibrate(self) -> None:
        """What one timed call adds to who calls it, and to itself."""
        timed = self.timed("batch", lambda: None)
        costs, own = [], []
        for _ in range(200):
            self.spent["batch"] = 0
            began = perf_counter_ns()
            for _ in range(50):
                timed()
            costs.append((perf_counter_ns() - began) / 50)
            own.append(self.spent["batch"] / 50)
        self._inner_cost = round(statistics.median(own))
        self._cost = round(statistics.median(costs)) - self._inner_cost
        self.spent = dict.fromkeys(STAGES, 0)
        self._within = [0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time counted to `stage`."""

        def call(*arguments: Any, **named: Any) -> Any:
            within = self._within
            within.append(0)
            began = perf_counter_ns()
            try:
                return function(*arguments, **named)
            finally:
                took = perf_counter_ns() - began
                self.spent[stage] += took - within.pop() - self._inner_cost
                within[-1] += took + self._cost

        return call


@contextmanager
def watched(watch: Stopwatch) -> Iterator[None]:
    """Time the stages' functions wherever they are called."""
    from modelyard.protocols.oip_v2 import OipV2
    from modelyard.runtime.onnx import Onnx
    from modelyard.runtime.validate import Checker
    from modelyard.serve.batching import Batcher
    from modelyard.serve.dataplane import Version
    from modelyard.serve.metrics import Meter
    from modelyard.serve.observe import Observer, Recorder
    from modelyard.serve.server import Connection, Exchange

    places: tuple[tuple[str, Any, str], ...] = (
        ("head, key, route", Connection, "data_received"),
        ("decode", OipV2, "decode"),
        ("batch", Batcher, "add"),
        ("batch", Batcher, "run"),
        ("batch", Batcher, "answer"),
        ("batch", Version, "_keep"),
        ("check", Checker, "check"),
        ("run", Onnx, "predict"),
        ("encode", OipV2, "encode"),
        ("answer", Exchange, "answer"),
        ("metrics", Meter, "answered"),
        ("observe", Recorder, "answered"),
        ("observe", Observer, "flush"),
    )
    before = [(owner, name, getattr(owner, name)) for _, owner, name in places]
    for stage, owner, name in places:
        setattr(owner, name, watch.timed(stage, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


class Swallowing(asyncio.Transport):
    """A client that takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def write(self, data: Any) -> None:
        self.answers += 1

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


async def replay(home: Home, message: bytes, connections: int, watch: Stopwatch) -> dict[str, float]:
    """Microseconds per request of each stage, and of all that happened in process (`total`)."""
    from modelyard import config
    from modelyard.serve.server import Connection
    from modelyard.serve.worker import Worker

    run = Path(tempfile.mkdtemp(dir=home.folder))
    settings = config.load({"home": home.folder, "keys_file": str(home.keys_file), "workers": 1, "inline_limit_s": 1.0})
    worker = Worker(settings, slot=0, plan=home.folder / "plan.json", run=run, spool=run / "spool")
    while not worker.plane.deployments:
        await worker._follow()
        await asyncio.sleep(0.01)
    clients = [Connection(worker.server) for _ in range(connections)]
    transports = [Swallowing() for _ in clients]
    for client, transport in zip(clients, transports, strict=True):
        client.connection_made(transport)
    found: list[dict[str, float]] = []
    ticks = REQUESTS // connections
    for number in range(ROUNDS + 1):
        watch.spent = dict.fromkeys(STAGES, 0)
        began = perf_counter_ns()
        for _ in range(ticks):
            for client in clients:
                client.data_received(message)
            await asyncio.sleep(0)  # the batch
            await asyncio.sleep(0)  # what is kept of it
        worker.observer.flush()
        took = perf_counter_ns() - began
        if number:  # the first one warms up
            each = {stage: nanoseconds / 1000 / (ticks * connections) for stage, nanoseconds in watch.spent.items()}
            found.append(each | {"total": took / 1000 / (ticks * connections)})
    expected = (ROUNDS + 1) * ticks
    if any(transport.answers != expected for transport in transports):
        raise RuntimeError("not every request was answered once")
    worker.plane.close()
    return min(found, key=lambda each: each["total"])


def ceiling(sides: Sides) -> float:
    """Microseconds of decode, array, run and encode of the same request, in a loop."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(sides.model), options, providers=["CPUExecutionProvider"])
    decode, encode, run = msgspec.json.Decoder(Message).decode, msgspec.json.Encoder().encode, session.run
    name, body = session.get_inputs()[0].name, sides.row.body
    rounds = []
    for _ in range(ROUNDS):
        began = perf_counter_ns()
        for _ in range(REQUESTS):
            tensor = decode(body).inputs[0]
            outputs = run(None, {name: np.array(tensor.data, np.float32).reshape(tensor.shape)})
            encode([output.ravel().tolist() for output in outputs])
        rounds.append((perf_counter_ns() - began) / 1000 / REQUESTS)
    return min(rounds)


def over_socket(sides: Sides, connections: int, port: int, pid: int) -> dict[str, float]:
    """Per request: the worker's own time and the kernel's on its behalf, and wall time, in microseconds."""
    own, kernel = processor_us(pid)
    load = sides.wrk.load(port, sides.row, connections, SECONDS)
    own_after, kernel_after = processor_us(pid)
    requests = load.requests_s * SECONDS
    return {"own": (own_after - own) / requests, "kernel": (kernel_after - kernel) / requests, "wall": 1e6 / load.requests_s}


def message_of(question: Question) -> bytes:
    """The bytes of the request."""
    lines = {"Host": "127.0.0.1", **question.headers, "Content-Length": str(len(question.body))}
    head = f"POST {question.paths[0]} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    return head.encode() + question.body


def table() -> str:
    """The stages as Markdown."""
    import uvloop

    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(Path(folder))
        message = message_of(sides.row)
        columns = {}
        for connections in CONNECTIONS:
            watch = Stopwatch()
            with watched(watch):
                columns[connections] = uvloop.run(replay(sides.home, message, connections, watch))
        with sides.home.started(sides.row) as ours:
            sides.wrk.load(ours.port, sides.row, 32, 2)
            sockets = {connections: over_socket(sides, connections, ours.port, ours.pid) for connections in CONNECTIONS}
        least = ceiling(sides)
    return render(columns, sockets, least)


def render(columns: dict[int, dict[str, float]], sockets: dict[int, dict[str, float]], least: float) -> str:
    """The table: stages in the order in which a request meets them, then what surrounds them."""
    lines = ["| stage | what it is | " + " | ".join(f"{each} connection{'s' * (each > 1)}" for each in columns) + " |"]
    lines.append("|---|---|" + "---:|" * len(columns))

    def row(name: str, says: str, figures: list[float]) -> None:
        lines.append(f"| {name} | {says} | " + " | ".join(f"{figure:.1f} µs" for figure in figures) + " |")

    sums = {each: sum(column[stage] for stage in STAGES) for each, column in columns.items()}
    for stage in STAGES:
        row(stage, SAYS[stage], [column[stage] for column in columns.values()])
    row("**together**", "all of the above", list(sums.values()))
    row("event loop", "the worker's own time over a socket, less the above", [sockets[each]["own"] - sums[each] for each in columns])
    row("kernel", "receive, send, wait", [sockets[each]["kernel"] for each in columns])
    row("**over a socket**", "the worker's processor time per request", [sockets[each]["own"] + sockets[each]["kernel"] for each in columns])
    row("wall", "per request, of all connections", [sockets[each]["wall"] for each in columns])
    row("ceiling", "decode, array, run, encode in a loop, one row a run", [least for _ in columns])
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
