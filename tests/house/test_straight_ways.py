"""The straight ways: one package, one deployment and one request are recorded, and the rooms that they pass are those of the architecture."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RECORDER = """
import sys, threading, json
from pathlib import Path
import modelyard
ROOT = str(Path(modelyard.__file__).parent)
passed = []
def record(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(ROOT):
        where = Path(code.co_filename).relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        passed.append(where + ":" + code.co_qualname)
def start():
    threading.setprofile_all_threads(record) if hasattr(threading, "setprofile_all_threads") else threading.setprofile(record)
    sys.setprofile(record)
def stop():
    sys.setprofile(None); threading.setprofile(None)
    print("WAY", json.dumps(list(dict.fromkeys(passed)))); passed.clear()
"""

PACKAGE = """
import numpy as np
from sklearn.ensemble import RandomForestRegressor
X = np.random.default_rng(0).normal(size=(80, 3)); model = RandomForestRegressor(5, random_state=0).fit(X, X[:, 0])
start()
modelyard.package(model, name="way", data=X)
stop()
"""

DEPLOYMENT = """
from modelyard import config
from modelyard.control.plane import ControlPlane, local_principal
plane = ControlPlane(config.load())
start()
plane.deploy(local_principal(), "way")
host = plane.host(plane.membership())
host.tick()
host.written()
plane.driver().tick()
stop()
"""

REQUEST = """
import asyncio, socket
from modelyard import config
from modelyard.serve.worker import Worker
async def main():
    settings = config.load({"workers": 1})
    settings.run.mkdir(exist_ok=True)
    worker = Worker(settings, slot=0, plan=settings.plan, run=settings.run, spool=settings.spool)
    listener = socket.create_server(("127.0.0.1", 0))
    channel, other = socket.socketpair()
    serving = asyncio.ensure_future(worker.serve(listener, channel))
    while not worker.plane.is_ready:
        await asyncio.sleep(0.01)
    body = b'{"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}'
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    head = "POST /v2/models/way/infer HTTP/1.1", "host: localhost", "content-type: application/json", f"content-length: {len(body)}", "", ""
    writer.write("\\r\\n".join(head).encode() + body)
    start()
    answer = await reader.readuntil(b"}]}")
    await asyncio.sleep(0.05)
    stop()
    assert b" 200 " in answer, answer
    writer.close()
    worker._stop.set()
    await serving
asyncio.run(main())
"""

CALL = """
import asyncio, socket
from hpack import Encoder
import numpy as np
from modelyard import config
from modelyard.protocols.messages import kind
from modelyard.serve import http2
from modelyard.serve.worker import Worker
async def main():
    settings = config.load({"workers": 1})
    settings.run.mkdir(exist_ok=True)
    worker = Worker(settings, slot=0, plan=settings.plan, run=settings.run, spool=settings.spool)
    listener, grpc = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    channel, other = socket.socketpair()
    serving = asyncio.ensure_future(worker.serve(listener, channel, grpc))
    while not worker.plane.is_ready:
        await asyncio.sleep(0.01)
    message = kind("inference.ModelInferRequest")(model_name="way", raw_input_contents=[np.zeros(3).tobytes()])
    message.inputs.add(name="X", datatype="FP64", shape=[1, 3])
    body = message.SerializeToString()
    head = {":method": "POST", ":scheme": "http", ":path": "/inference.GRPCInferenceService/ModelInfer", ":authority": "localhost"}
    block = Encoder().encode({**head, "content-type": "application/grpc", "te": "trailers"})
    reader, writer = await asyncio.open_connection(*grpc.getsockname())
    writer.write(http2.PREFACE + http2.settings({}) + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block))
    writer.write(http2.frame(http2.DATA, http2.END_STREAM, 1, bytes(1) + len(body).to_bytes(4, "big") + body))
    start()
    answer = await reader.readuntil(b"grpc-status")
    await asyncio.sleep(0.05)
    stop()
    assert b"prediction" in answer and await reader.read(2) == b"\\x010", answer
    writer.close()
    worker._stop.set()
    await serving
asyncio.run(main())
"""

WAYS = {
    "package": [
        "control.plane:package",
        "control.plane:ControlPlane.package",
        "runtime.originals:adapt",
        "runtime.schema:infer",
        "runtime.convert:convert",
        "runtime.parity:prove",
        "runtime.golden:choose",
        "monitor.profile:measure",
        "bundle.build:build",
        "registry:Registry.add",
        "bundle.load:open",
    ],
    "deployment": [
        "control.plane:ControlPlane.deploy",
        "registry:Registry.resolve",
        "bundle.load:open",
        "gates:run",
        "rollout.machine:begin",
        "rollout.host:Host.tick",
        "targets.local:Local.converge",
        "rollout.driver:Driver.tick",
    ],
    "request": [
        "serve.server:*",
        "serve.edge:Edge.handle",
        "protocols.oip_v2:*decode",
        "serve.dataplane:DataPlane.infer",
        "serve.batching:Batcher.add",
        "runtime.onnx:Onnx.predict",
        "protocols.oip_v2:*encode",
        "serve.observe:Recorder.answered",
    ],
    "call": [
        "serve.streams:Connection.data_received",
        "serve.rpc:GrpcServer.open",
        "serve.rpc:Unary.message",
        "serve.grpc_edge:GrpcEdge.handle",
        "serve.edge:Edge.ask",
        "protocols.oip_v2_grpc:*decode",
        "serve.dataplane:DataPlane.infer",
        "serve.batching:Batcher.add",
        "runtime.onnx:Onnx.predict",
        "protocols.oip_v2_grpc:*encode",
        "serve.rpc:Unary.answered",
        "serve.observe:Recorder.answered",
    ],
}


def follows(passed: list[str], way: list[str]) -> str | None:
    """The first step of `way` that is not met in its turn; None when all are."""
    steps = iter(passed)
    for step in way:
        pattern = re.compile(re.escape(step).replace(r"\*", r".*"))
        if not any(pattern.fullmatch(each) for each in steps):
            return step
    return None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    home = tmp_path_factory.mktemp("ways")
    environment = {**os.environ, "MODELYARD_HOME": str(home / "home"), "HOME": str(home)}
    ways = {}
    for name, code in (("package", PACKAGE), ("deployment", DEPLOYMENT), ("request", REQUEST), ("call", CALL)):
        done = subprocess.run([sys.executable, "-c", RECORDER + code], capture_output=True, text=True, check=False, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        ways[name] = json.loads(done.stdout.split("WAY ")[1].splitlines()[0])
    return ways


@pytest.mark.system
@pytest.mark.parametrize("name", WAYS)
def test_a_way_is_straight(recorded: dict[str, list[str]], name: str) -> None:
    missed = follows(recorded[name], WAYS[name])
    rooms = list(dict.fromkeys(step.split(":")[0] for step in recorded[name]))
    assert missed is None, f"{name} misses {missed}; it passed {rooms}"


@pytest.mark.system
@pytest.mark.parametrize("name", ["request", "call"])
def test_a_request_passes_no_room_of_the_control_plane(recorded: dict[str, list[str]], name: str) -> None:
    rooms = {step.split(".")[0].split(":")[0] for step in recorded[name]}
    assert rooms <= {"serve", "protocols", "runtime", "types", "config", "errors", "events", "monitor"}


def test_the_comparison_can_fail() -> None:
    assert follows(["a:x", "b:y"], ["b:y", "a:x"]) == "a:x"
    assert follows(["a:x", "c:z", "b:y"], ["a:x", "b:*"]) is None
