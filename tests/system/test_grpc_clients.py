"""Clients that people already have, unchanged, over gRPC: tritonclient (sync, asyncio, streams) and KServe's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import Running, home_with, running

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid"), workers=2) as server:
        yield server


def ask(python: Path, script: str, server: Running) -> Any:
    done = subprocess.run([str(python), "-c", script, str(server.grpc)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


TRITON = """
import asyncio, json, queue, sys
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException

rows = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.float32)

def tensor(name, array, datatype):
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made

client = triton.InferenceServerClient(sys.argv[1])
said = {"live": client.is_server_live(), "ready": client.is_server_ready(), "model": client.is_model_ready("grid")}
said["server"] = client.get_server_metadata().name
said["inputs"] = [[each.name, each.datatype, list(each.shape)] for each in client.get_model_metadata("grid").inputs]
said["index"] = sorted(each.name for each in client.get_model_repository_index().models)
result = client.infer("grid", [tensor("X", rows, "FP32")], request_id="r1", outputs=[triton.InferRequestedOutput("probability")])
said["outputs"] = [each.name for each in result.get_response().outputs]
said["shape"] = list(result.as_numpy("probability").shape)
said["id"] = result.get_response().id
said["label"] = client.infer("grid", [tensor("X", rows, "FP32")]).as_numpy("label").tolist()
cities = np.array([["paris"], ["berlin"]], object)
shop = [tensor("city", cities, "BYTES"), tensor("size", np.array([[4.0], [4.0]]), "FP64")]
said["shop"] = client.infer("shop", shop).as_numpy("prediction").tolist()
said["compressed"] = client.infer("grid", [tensor("X", rows, "FP32")], compression_algorithm="gzip").as_numpy("label").tolist()
said["timed"] = client.infer("grid", [tensor("X", rows, "FP32")], client_timeout=20).as_numpy("label").tolist()
came = queue.Queue()
for _ in range(8):
    client.async_infer("grid", [tensor("X", rows, "FP32")], callback=lambda result, error: came.put((result, error)))
said["async"] = [came.get(timeout=20)[0].as_numpy("label").tolist() for _ in range(8)]
client.start_stream(callback=lambda result, error: came.put((result, error)))
for at in range(5):
    client.async_stream_infer("grid" if at != 2 else "none", [tensor("X", rows, "FP32")], request_id=str(at))
streamed = [came.get(timeout=20) for _ in range(5)]
client.stop_stream()
said["stream"] = [result.get_response().id if error is None else error.message() for result, error in streamed]
try:
    client.infer("grid", [tensor("Y", rows, "FP32")])
except InferenceServerException as error:
    said["error"] = [error.status(), error.message()]
try:
    client.load_model("grid")
except InferenceServerException as error:
    said["load"] = error.message()
client.close()

async def main():
    async with aio.InferenceServerClient(sys.argv[1]) as client:
        one = lambda: client.infer("grid", [tensor("X", rows, "FP32")])
        said["aio"] = [each.as_numpy("label").tolist() for each in await asyncio.gather(*(one() for _ in range(20)))]
        async def asked():
            for at in range(4):
                yield {"model_name": "grid", "inputs": [tensor("X", rows, "FP32")], "request_id": str(at)}
        said["aio stream"] = [result.get_response().id async for result, error in client.stream_infer(asked())]

asyncio.run(main())
print(json.dumps(said))
"""


def test_tritonclient(server: Running, clients_python: Path) -> None:
    said = ask(clients_python, TRITON, server)
    assert (said["live"], said["ready"], said["model"], said["server"]) == (True, True, True, "modelyard")
    assert said["inputs"] == [["X", "FP32", [-1, 4]]]
    assert said["index"] == ["grid", "line", "shop"]
    assert (said["outputs"], said["shape"], said["id"]) == (["probability"], [2, 2], "r1")
    assert said["shop"] == [8.0, 4.0]
    assert said["label"] == said["compressed"] == said["timed"] == [0, 1]
    assert said["async"] == [[0, 1]] * 8
    assert [each for at, each in enumerate(said["stream"]) if at != 2] == ["0", "1", "3", "4"]
    assert "no model of this name" in said["stream"][2]
    assert said["error"][0] == "StatusCode.INVALID_ARGUMENT" and "has an input that the model has not" in said["error"][1]
    assert "modelyard deploy" in said["load"]
    assert said["aio"] == [[0, 1]] * 20
    assert said["aio stream"] == ["0", "1", "2", "3"]


KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main():
    said = {}
    client = InferenceGRPCClient(url=sys.argv[1])
    said["live"] = await client.is_server_live()
    said["ready"] = await client.is_server_ready()
    said["model"] = await client.is_model_ready("grid")
    rows = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.float32)
    for binary in (False, True):
        tensor = InferInput("X", [2, 4], "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        answer = await client.infer(InferRequest("grid", [tensor], request_id="r1"))
        names = [each.name for each in answer.outputs]
        said["raw" if binary else "contents"] = {"id": answer.id, "label": answer.outputs[0].as_numpy().tolist(), "names": names}
    await client.close()
    print(json.dumps(said))

asyncio.run(main())
"""


def test_kserve_client(server: Running, clients_python: Path) -> None:
    said = ask(clients_python, KSERVE, server)
    assert (said["live"], said["ready"], said["model"]) == (True, True, True)
    for form in ("contents", "raw"):
        assert said[form] == {"id": "r1", "label": [0, 1], "names": ["label", "probability"]}
