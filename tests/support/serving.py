"""A real data plane for tests: homes with small sealed models, the server as a process, and a client that sends any bytes.

The models are graphs written down here, so that making a home costs no training: `line` (a frame of numbers, one nullable), `shop` (a string category
beside a number), `grid` (one array), `slow` (takes as long as its input says), `half` (doubles half floats).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from modelyard import registry
from modelyard.bundle import Attested, Built, Contents, build
from modelyard.bundle.card import Card
from modelyard.bundle.lock import take
from modelyard.monitor.profile import measure, measure_outputs
from modelyard.runtime.binding import Binding, GraphInput, GraphOutput
from modelyard.runtime.onnx import Onnx
from modelyard.security.seal import local_signer
from modelyard.types import HostPlan, Placement, Schema, TensorSpec, Tolerance, TrafficPlan, write_plan

PREDICTION = (TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),)
LINE = Schema(
    inputs=(
        TensorSpec(name="a", datatype="FP64", shape=(-1, 1), minimum=(0.0,), maximum=(10.0,)),
        TensorSpec(name="b", datatype="INT64", shape=(-1, 1), minimum=(0.0,), maximum=(10.0,)),
        TensorSpec(name="c", datatype="FP32", shape=(-1, 1), is_nullable=True, minimum=(0.0,), maximum=(10.0,)),
    ),
    outputs=PREDICTION,
    layout="frame",
    task="regression",
)
SHOP = Schema(
    inputs=(
        TensorSpec(name="city", datatype="BYTES", shape=(-1, 1), categories=("berlin", "paris"), unknown_allowed=False),
        TensorSpec(name="size", datatype="FP64", shape=(-1, 1), minimum=(0.0,), maximum=(10.0,)),
    ),
    outputs=PREDICTION,
    layout="frame",
    task="regression",
)
GRID = Schema(
    inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 4), minimum=(0.0,) * 4, maximum=(10.0,) * 4),),
    outputs=(TensorSpec(name="label", datatype="INT64", shape=(-1,)), TensorSpec(name="probability", datatype="FP32", shape=(-1, 2))),
    layout="array",
    task="classification",
    classes=(0, 1),
)
SLOW = Schema(
    inputs=(TensorSpec(name="turns", datatype="FP64", shape=(-1, 1), minimum=(0.0,), maximum=(10.0,)),),
    outputs=PREDICTION,
    layout="frame",
    task="regression",
)
HALF = Schema(
    inputs=(TensorSpec(name="X", datatype="FP16", shape=(-1, 2), minimum=(0.0, 0.0), maximum=(10.0, 10.0)),),
    outputs=(TensorSpec(name="y", datatype="FP16", shape=(-1, 2)),),
    layout="tensors",
    task="other",
)
SCHEMAS = {"line": LINE, "shop": SHOP, "grid": GRID, "slow": SLOW, "half": HALF}


def graph(kind: str, offset: float = 0.0) -> tuple[bytes, Binding]:
    """The ONNX model of `kind` and its binding; `offset` makes another version of it (its answers are higher by so much)."""
    import onnx
    from onnx import TensorProto as P
    from onnx import helper as h
    from onnx import numpy_helper

    def constant(name: str, value: Any) -> Any:
        return numpy_helper.from_array(np.asarray(value), name)

    n = "N"
    if kind == "line":
        nodes = [
            h.make_node("IsNaN", ["X"], ["absent"]),
            h.make_node("Where", ["absent", "zero", "X"], ["present"]),
            h.make_node("MatMul", ["present", "w"], ["sum"]),
            h.make_node("Add", ["sum", "offset"], ["y"]),
        ]
        inputs = [h.make_tensor_value_info("X", P.DOUBLE, [n, 3])]
        constants = [constant("w", [1.0, 10.0, 100.0]), constant("zero", 0.0), constant("offset", offset)]
        given = (GraphInput(graph="X", inputs=("a", "b", "c"), dtype="float64"),)
    elif kind == "shop":
        nodes = [
            h.make_node("LabelEncoder", ["city"], ["code"], domain="ai.onnx.ml", keys_strings=["berlin", "paris"], values_floats=[1.0, 2.0]),
            h.make_node("Cast", ["code"], ["rate"], to=P.DOUBLE),
            h.make_node("Mul", ["rate", "size"], ["product"]),
            h.make_node("Add", ["product", "offset"], ["wide"]),
            h.make_node("Reshape", ["wide", "flat"], ["y"]),
        ]
        inputs = [h.make_tensor_value_info("city", P.STRING, [n, 1]), h.make_tensor_value_info("size", P.DOUBLE, [n, 1])]
        constants = [constant("offset", offset), constant("flat", np.array([-1], np.int64))]
        given = (GraphInput(graph="city", inputs=("city",), dtype="string"), GraphInput(graph="size", inputs=("size",), dtype="float64"))
    elif kind == "grid":
        nodes = [
            h.make_node("ReduceSum", ["X", "one"], ["sum"], keepdims=1),
            h.make_node("Sub", ["sum", "middle"], ["centred"]),
            h.make_node("Sigmoid", ["centred"], ["p"]),
            h.make_node("Sub", ["unit", "p"], ["q"]),
            h.make_node("Concat", ["q", "p"], ["probability"], axis=1),
            h.make_node("ArgMax", ["probability"], ["y"], axis=1, keepdims=0),
        ]
        inputs = [h.make_tensor_value_info("X", P.FLOAT, [n, 4])]
        constants = [constant("one", np.array([1], np.int64)), constant("middle", np.float32(20 - offset)), constant("unit", np.float32(1))]
        given = (GraphInput(graph="X", inputs=("X",), dtype="float32"),)
    elif kind == "half":
        nodes = [h.make_node("Mul", ["X", "two"], ["scaled"]), h.make_node("Add", ["scaled", "offset"], ["y"])]
        inputs = [h.make_tensor_value_info("X", P.FLOAT16, [n, 2])]
        constants = [constant("two", np.float16(2)), constant("offset", np.float16(offset))]
        given = (GraphInput(graph="X", inputs=("X",), dtype="float16"),)
    else:
        body = h.make_graph(
            [
                h.make_node("Identity", ["go"], ["still"]),
                h.make_node("MatMul", ["m", "step"], ["grown"]),
                h.make_node("Clip", ["grown", "low", "high"], ["kept"]),
            ],
            "body",
            [
                h.make_tensor_value_info("i", P.INT64, []),
                h.make_tensor_value_info("go", P.BOOL, []),
                h.make_tensor_value_info("m", P.FLOAT, [160, 160]),
            ],
            [h.make_tensor_value_info("still", P.BOOL, []), h.make_tensor_value_info("kept", P.FLOAT, [160, 160])],
        )
        nodes = [
            h.make_node("ReduceMax", ["turns"], ["longest"], keepdims=0),
            h.make_node("Cast", ["longest"], ["times"], to=P.INT64),
            h.make_node("Loop", ["times", "", "step"], ["spent"], body=body),
            h.make_node("ReduceMin", ["spent"], ["least"], keepdims=0),
            h.make_node("Cast", ["least"], ["nothing"], to=P.DOUBLE),
            h.make_node("Mul", ["nothing", "zero"], ["none"]),
            h.make_node("Add", ["turns", "none"], ["wide"]),
            h.make_node("Add", ["wide", "offset"], ["moved"]),
            h.make_node("Reshape", ["moved", "flat"], ["y"]),
        ]
        inputs = [h.make_tensor_value_info("turns", P.DOUBLE, [n, 1])]
        random = np.random.default_rng(0).random((160, 160), np.float32)
        constants = [
            constant("step", random), constant("low", np.float32(0)), constant("high", np.float32(1)), constant("zero", 0.0),
            constant("offset", offset), constant("flat", np.array([-1], np.int64)),
        ]  # fmt: skip
        given = (GraphInput(graph="turns", inputs=("turns",), dtype="float64"),)
    outputs = [h.make_tensor_value_info("y", P.INT64 if kind == "grid" else P.DOUBLE, [n])]
    if kind == "half":
        outputs = [h.make_tensor_value_info("y", P.FLOAT16, [n, 2])]
    bound: tuple[GraphOutput, ...] = (GraphOutput(name="y" if kind == "half" else "prediction", graph="y"),)
    if kind == "grid":
        outputs.append(h.make_tensor_value_info("probability", P.FLOAT, [n, 2]))
        bound = (GraphOutput(name="label", graph="y"), GraphOutput(name="probability", graph="probability"))
    model = h.make_model(
        h.make_graph(nodes, kind, inputs, outputs, constants), opset_imports=[h.make_opsetid("", 18), h.make_opsetid("ai.onnx.ml", 3)], ir_version=9
    )
    onnx.checker.check_model(model)
    return model.SerializeToString(), Binding(kind="onnx", inputs=given, outputs=bound)


def golden(kind: str) -> dict[str, Any]:
    """Golden inputs of `kind`."""
    draw = np.random.default_rng(1)
    if kind == "line":
        c = draw.random((64, 1)).astype(np.float32)
        c[::7] = np.nan
        return {"a": draw.random((64, 1)), "b": draw.integers(0, 10, (64, 1)), "c": c}
    if kind == "shop":
        cities = np.array(["berlin", "paris"], object)[draw.integers(0, 2, (64, 1))]
        return {"city": cities, "size": draw.random((64, 1))}
    if kind == "grid":
        return {"X": (draw.random((64, 4)) * 10).astype(np.float32)}
    if kind == "half":
        return {"X": draw.integers(0, 10, (64, 2)).astype(np.float16)}
    return {"turns": np.array([[5.0], [6.0], [7.0], [8.0]])}


EXAMPLES: dict[str, dict[str, Any]] = {
    "line": {"a": 0.5, "b": 2, "c": 0.25}, "shop": {"city": "paris", "size": 0.5}, "grid": {"X": [1.0, 2.0, 3.0, 4.0]}, "slow": {"turns": 5.0},
    "half": {"X": [1.0, 2.0]},
}  # fmt: skip


def spoilt_line(fault: str) -> bytes:
    """The model `line` that answers its golden rows as it should, and live ones, whose `a` is 1 or more, not at all (`errors`) or late (`slow`)."""
    import onnx
    from onnx import TensorProto as P
    from onnx import helper as h
    from onnx import numpy_helper

    model = onnx.load_from_string(graph("line")[0])
    added = [
        h.make_node("Gather", ["X", "first"], ["column"], axis=1),
        h.make_node("ReduceMax", ["column"], ["largest"], keepdims=0),
        h.make_node("Cast", ["largest"], ["turns"], to=P.INT64),
    ]
    constants = {"first": np.array([0], np.int64)}
    if fault == "errors":
        added.append(h.make_node("Gather", ["none", "turns"], ["nothing"], axis=0))
        constants["none"] = np.array([0.0])
    else:
        body = h.make_graph(
            [h.make_node("Identity", ["go"], ["still"]), h.make_node("MatMul", ["m", "m"], ["next"])],
            "body",
            [
                h.make_tensor_value_info("i", P.INT64, []),
                h.make_tensor_value_info("go", P.BOOL, []),
                h.make_tensor_value_info("m", P.DOUBLE, [90, 90]),
            ],
            [h.make_tensor_value_info("still", P.BOOL, []), h.make_tensor_value_info("next", P.DOUBLE, [90, 90])],
        )
        added += [
            h.make_node("Mul", ["turns", "each"], ["times"]),
            h.make_node("Loop", ["times", "", "zeros"], ["spent"], body=body),
            h.make_node("ReduceMax", ["spent"], ["nothing"], keepdims=0),
        ]
        constants |= {"each": np.array(200, np.int64), "zeros": np.zeros((90, 90))}
    added.append(h.make_node("Add", ["sum", "nothing"], ["total"]))
    nodes = [*model.graph.node[:-1], *added, h.make_node("Add", ["total", "offset"], ["y"])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_bundle(
    home: Path,
    kind: str,
    *,
    name: str | None = None,
    offset: float = 0.0,
    wrong_answers: bool = False,
    instead: bytes | None = None,
    reference: Mapping[str, Any] | None = None,
) -> Built:
    """A sealed bundle of `kind`; with `wrong_answers` its golden outputs are not what the model gives. `instead` is another model of its schema,
    `reference` the inputs that are profiled, if not the golden ones.
    """
    model, binding = graph(kind, offset)
    model = instead or model
    schema, inputs = SCHEMAS[kind], golden(kind)
    outputs = Onnx(model, binding, schema).predict(inputs)
    if wrong_answers:
        outputs = {key: array + array.dtype.type(1) for key, array in outputs.items()}
    card = Card(
        title=f"{kind} + {offset:g}", schema=schema, method="written by hand", tolerance=Tolerance(), rows=64, golden_rows=64, packages={},
        python="3.11", example=EXAMPLES[kind],
    )  # fmt: skip
    lock, profile, profiled = take(["numpy"]), measure(reference or inputs, schema), outputs
    if reference is not None:
        profiled = Onnx(model, binding, schema).predict(dict(reference))
    contents = Contents(model=model, runtime=binding, schema=schema, lock=lock, profile=profile, golden=inputs, card=card)
    attested = Attested(name=name or kind, outputs=outputs, parity={}, platform={}, profile=measure_outputs(profiled, schema))
    return build(contents, attested, signer=local_signer(home / "keys"))


class Home:
    """A home folder with models in its registry and a plan; `deploy` writes the next plan."""

    def __init__(self, folder: Path, **stores: str) -> None:
        self.folder = folder
        self.registry = registry.open(folder, **stores)
        self.sequence = 0
        self.plans: dict[str, TrafficPlan] = {}
        self.placements: dict[Any, Placement] = {}

    def add(self, kind: str, *, name: str | None = None, **more: Any) -> Any:
        """Register the next version of a model, made with `more`; gives (digest, version)."""
        built = make_bundle(self.folder, kind, name=name, **more)
        version = self.registry.add(name or kind, built)
        self.placements[built.digest] = Placement(blobs=str(self.registry.blobs.folder), index=built.index)
        return built.digest, version.version

    def deploy(
        self, name: str, weights: Mapping[Any, int], *, hold: tuple[Any, ...] = (), shadows: Mapping[Any, float] | None = None, **more: Any
    ) -> int:
        """Write the plan in which the (digest, version) pairs of `weights` answer for `name`; gives its sequence number."""
        shadows = shadows or {}
        versions = dict([*weights, *hold, *shadows])
        generation = self.plans[name].generation + 1 if name in self.plans else 1
        self.plans[name] = TrafficPlan(
            name=name,
            generation=generation,
            weights={digest: weight for (digest, _), weight in weights.items()},
            versions=versions,
            hold=tuple(digest for digest, _ in hold),
            shadows={digest: share for (digest, _), share in shadows.items()},
            **more,
        )
        return self.write()

    def write(self) -> int:
        """Write all plans under the next sequence number."""
        self.sequence += 1
        named = {digest for plan in self.plans.values() for digest in plan.digests}
        places = {digest: place for digest, place in self.placements.items() if digest in named}
        write_plan(self.folder / "plan.json", HostPlan(sequence=self.sequence, plans=tuple(self.plans.values()), placements=places))
        return self.sequence

    @property
    def run(self) -> Path:
        """Where the processes write their states."""
        return self.folder / "run"


def home_with(folder: Path, *kinds: str) -> Home:
    """A home that serves version 1 of each of `kinds` under its own name."""
    home = Home(folder)
    for kind in kinds:
        home.deploy(kind, {home.add(kind): 100})
    return home


class Answer:
    """One HTTP answer, read by rules of its own, so that a fault of the server is not hidden by a forgiving client."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:300]!r}"


def read_answer(stream: Any) -> Answer | None:
    """The next answer from a socket's file; None at its end."""
    line = stream.readline()
    if not line:
        return None
    version, status, _ = line.split(b" ", 2)
    assert version == b"HTTP/1.1"
    headers: dict[str, str] = {}
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.decode("latin-1").partition(":")
        assert name.lower() not in headers, f"{name} stands twice"
        headers[name.lower()] = value.strip()
    size = int(headers.get("content-length", 0))
    return Answer(int(status), headers, stream.read(size))


class Running:
    """A running data plane."""

    def __init__(self, process: subprocess.Popen[bytes], card: dict[str, Any], home: Home, log: Path) -> None:
        self.process = process
        self.card = card
        self.home = home
        self.log = log
        self.url: str = card["url"]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.grpc: str | None = card.get("grpc")

    def connect(self, timeout: float = 20) -> socket.socket:
        """A TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def send(self, data: bytes, *, timeout: float = 20) -> list[Answer]:
        """Everything that is answered to `data` until the server closes, or falls silent behind at least one answer."""
        answers: list[Answer] = []
        with self.connect(timeout) as connection, connection.makefile("rb") as stream:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            while True:
                try:
                    answer = read_answer(stream)
                except TimeoutError:
                    if answers:
                        return answers
                    raise
                if answer is None:
                    return answers
                answers.append(answer)

    def ask(self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, timeout: float = 20) -> Answer:
        """One request on a connection of its own; `body` is bytes, or a value to be sent as JSON."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if body is not None:
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        lines |= dict(headers or {})
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        (answer,) = self.send(head.encode("latin-1") + data, timeout=timeout)
        return answer

    def infer(self, name: str, inputs: list[dict[str, Any]], **more: Any) -> Answer:
        """A V2 inference."""
        return self.ask("POST", f"/v2/models/{name}/infer", {"inputs": inputs, **more})

    def predict(self, name: str, instances: Any) -> Answer:
        """A V1 prediction."""
        return self.ask("POST", f"/v1/models/{name}:predict", {"instances": instances})

    def workers(self) -> list[int]:
        """The pids of the worker processes."""
        return children(self.process.pid)

    def is_well(self) -> bool:
        """Whether it says ready and answers a probe."""
        return self.ask("GET", "/v2/health/ready").status == 200

    def wait(self, *, sequence: int, timeout: float = 30) -> None:
        """Until every worker has applied the plan `sequence`."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            states = [json.loads(path.read_bytes()) for path in self.home.run.glob("worker-*.json")]
            if states and all(state["sequence"] >= sequence for state in states):
                return
            time.sleep(0.02)
        raise AssertionError(f"plan {sequence} was not applied: {states}")


def children(pid: int) -> list[int]:
    """The living child processes of `pid`."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "Z" not in line.split()[1]]


def command(home: Home, *flags: str) -> list[str]:
    """The command line of a data plane over `home` on a free port."""
    return [sys.executable, "-P", "-m", "modelyard.serve", "--home", str(home.folder), "--port", "0", "--grpc-port", "0", "--json", *flags]


@contextmanager
def running(home: Home, *flags: str, workers: int = 1, settings: Mapping[str, Any] | None = None) -> Iterator[Running]:
    """A data plane over `home`, ready; ended, and its workers with it, at the end."""
    environment = {**os.environ, **{f"MODELYARD_{key.upper()}": str(value) for key, value in (settings or {}).items()}}
    log = home.folder / "serve.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command(home, "--workers", str(workers), *flags), stdout=subprocess.PIPE, stderr=errors, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Running(process, json.loads(line), home, log)
    finally:
        left = children(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def tensor(name: str, values: list[Any], datatype: str = "FP64", shape: list[int] | None = None) -> dict[str, Any]:
    """A V2 tensor of one value a row."""
    return {"name": name, "shape": shape or [len(values), 1], "datatype": datatype, "data": values}


def line_row(a: Any = 1.0, b: Any = 2, c: Any = 3.0) -> list[dict[str, Any]]:
    """A V2 request for `line`: its answer is a + 10 b + 100 c."""
    return [tensor("a", [a]), tensor("b", [b], "INT64"), tensor("c", [c], "FP32")]
