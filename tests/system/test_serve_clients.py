"""Clients that people already have, unchanged, in an environment of their own: tritonclient over HTTP and KServe's client."""

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
    done = subprocess.run([str(python), "-c", script, server.url], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


TRITON = """
import json, sys
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1].removeprefix("http://"), concurrency=4)
said = {"live": client.is_server_live(), "ready": client.is_server_ready(), "model": client.is_model_ready("grid")}
said["metadata"] = client.get_model_metadata("grid")
said["version"] = client.get_model_metadata("grid", "1")["versions"]
said["index"] = [each["name"] for each in client.get_model_repository_index()]

def tensor(name, array, datatype, binary):
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made

rows = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.float32)
for kind, binary in (("json", False), ("binary", True)):
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probability")]
    result = client.infer("grid", [tensor("X", rows, "FP32", binary)], request_id="r1", outputs=outputs)
    said[kind] = {"label": result.as_numpy("label").tolist(), "shape": list(result.as_numpy("probability").shape), "id": result.get_response()["id"]}
    cities = np.array([["paris"], ["berlin"]], object)
    shop = [tensor("city", cities, "BYTES", binary), tensor("size", np.array([[4.0], [4.0]]), "FP64", binary)]
    said[kind]["shop"] = client.infer("shop", shop).as_numpy("prediction").tolist()
said["default"] = client.infer("grid", [tensor("X", rows, "FP32", True)]).as_numpy("label").tolist()
said["compressed"] = client.infer("grid", [tensor("X", rows, "FP32", True)], request_compression_algorithm="gzip").as_numpy("label").tolist()
said["async"] = [client.async_infer("grid", [tensor("X", rows, "FP32", True)]).get_result().as_numpy("label").tolist() for _ in range(8)]
try:
    client.infer("grid", [tensor("Y", rows, "FP32", True)])
except InferenceServerException as error:
    said["error"] = error.message()
client.close()
print(json.dumps(said))
"""


def test_tritonclient(server: Running, clients_python: Path) -> None:
    said = ask(clients_python, TRITON, server)
    assert (said["live"], said["ready"], said["model"]) == (True, True, True)
    assert said["metadata"]["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
    assert said["version"] == ["1"]
    assert said["index"] == ["grid", "line", "shop"]
    for kind in ("json", "binary"):
        assert said[kind] == {"label": [0, 1], "shape": [2, 2], "id": "r1", "shop": [8.0, 4.0]}
    assert said["default"] == said["compressed"] == [0, 1]
    assert said["async"] == [[0, 1]] * 8
    assert "has an input that the model has not" in said["error"]


KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main():
    url, said = sys.argv[1], {}
    v2 = InferenceRESTClient(config=RESTConfig(protocol="v2"))
    v1 = InferenceRESTClient(config=RESTConfig(protocol="v1"))
    said["live"] = await v2.is_server_live(url)
    said["ready"] = await v2.is_server_ready(url)
    said["model"] = [await v2.is_model_ready(url, "grid"), await v1.is_model_ready(url, "grid")]
    rows = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.float32)
    for binary in (False, True):
        tensor = InferInput("X", [2, 4], "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        answer = await v2.infer(url, InferRequest("grid", [tensor], request_id="r1"), model_name="grid")
        names = [each.name for each in answer.outputs]
        said["binary" if binary else "json"] = {"id": answer.id, "label": answer.outputs[0].as_numpy().tolist(), "names": names}
    said["v1"] = await v1.infer(url, {"instances": rows.tolist()}, model_name="grid")
    said["explained"] = await v1.explain(url, "grid", {"instances": rows.tolist()})
    await v1.close()
    await v2.close()
    print(json.dumps(said))

asyncio.run(main())
"""


def test_kserve_client(server: Running, clients_python: Path) -> None:
    said = ask(clients_python, KSERVE, server)
    assert (said["live"], said["ready"], said["model"]) == (True, True, [True, True])
    for kind in ("json", "binary"):
        assert said[kind] == {"id": "r1", "label": [0, 1], "names": ["label", "probability"]}
    assert said["v1"] == {"predictions": [0, 1]}
    assert said["explained"]["predictions"] == [0, 1]
    for each, label in zip(said["explained"]["explanations"], [0, 1], strict=True):
        assert each["class"] == label and sum(each["contributions"]["X"]) == pytest.approx(each["value"] - each["base"])
