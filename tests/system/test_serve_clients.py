"""Clients that people already have, unchanged, in environments of their own: tritonclient over HTTP, KServe's client, MLflow's scoring client."""

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
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid", "half"), workers=2) as server:
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
half = np.array([[1.5, 2.5], [0.25, 4.0]], np.float16)
answer = client.infer("half", [tensor("X", half, "FP16", True)], outputs=[triton.InferRequestedOutput("y", binary_data=True)])
said["half"] = {"values": answer.as_numpy("y").tolist(), "dtype": str(answer.as_numpy("y").dtype)}
as_json = [triton.InferRequestedOutput("y", binary_data=False)]
said["half as json"] = client.infer("half", [tensor("X", half, "FP16", True)], outputs=as_json).as_numpy("y").tolist()
said["half for single"] = client.infer("grid", [tensor("X", rows.astype(np.float16), "FP16", True)]).as_numpy("label").tolist()
mixed = [tensor("city", np.array([["paris"]], object), "BYTES", False), tensor("size", np.array([[4.0]]), "FP64", True)]
said["mixed"] = client.infer("shop", mixed).as_numpy("prediction").tolist()
said["zipped"] = client.infer("grid", [tensor("X", rows, "FP32", False)], request_compression_algorithm="deflate").as_numpy("label").tolist()
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
    assert said["index"] == ["grid", "half", "line", "shop"]
    for kind in ("json", "binary"):
        assert said[kind] == {"label": [0, 1], "shape": [2, 2], "id": "r1", "shop": [8.0, 4.0]}
    assert said["default"] == said["compressed"] == [0, 1]
    assert said["async"] == [[0, 1]] * 8
    assert said["half"] == {"values": [[3.0, 5.0], [0.5, 8.0]], "dtype": "float16"}
    assert said["half as json"] == [[3.0, 5.0], [0.5, 8.0]]
    assert said["half for single"] == said["zipped"] == [0, 1]
    assert said["mixed"] == [8.0]
    assert "has an input that the model has not" in said["error"]


TRITON_ASYNC = """
import asyncio, json, sys
import numpy as np
import tritonclient.http.aio as triton

async def main():
    client = triton.InferenceServerClient(sys.argv[1].removeprefix("http://"))
    rows = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.float32)

    async def ask(number):
        tensor = triton.InferInput("X", [2, 4], "FP32")
        tensor.set_data_from_numpy(rows, binary_data=number % 2 == 0)
        answer = await client.infer("grid", [tensor], request_id=str(number))
        return [answer.get_response()["id"], answer.as_numpy("label").tolist()]

    said = {"ready": await client.is_server_ready(), "answers": await asyncio.gather(*(ask(number) for number in range(16)))}
    await client.close()
    print(json.dumps(said))

asyncio.run(main())
"""


def test_tritonclient_on_asyncio(server: Running, clients_python: Path) -> None:
    said = ask(clients_python, TRITON_ASYNC, server)
    assert said == {"ready": True, "answers": [[str(number), [0, 1]] for number in range(16)]}


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
    cities = InferInput("city", [2, 1], "BYTES")
    cities.set_data_from_numpy(np.array([["paris"], ["berlin"]], object), binary_data=True)
    sizes = InferInput("size", [2, 1], "FP64")
    sizes.set_data_from_numpy(np.array([[4.0], [4.0]]), binary_data=True)
    answer = await v2.infer(url, InferRequest("shop", [cities, sizes]), model_name="shop")
    said["shop"] = answer.outputs[0].as_numpy().tolist()
    said["records"] = await v1.infer(url, {"instances": [{"city": "paris", "size": 4.0}]}, model_name="shop")
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
    assert said["shop"] == [8.0, 4.0]
    assert said["records"] == {"predictions": [8.0]}
    assert said["explained"]["predictions"] == [0, 1]
    for each, label in zip(said["explained"]["explanations"], [0, 1], strict=True):
        assert each["class"] == label and sum(each["contributions"]["X"]) == pytest.approx(each["value"] - each["base"])


MLFLOW = """
import json, sys
import numpy as np, pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

host, port = sys.argv[1].removeprefix("http://").rsplit(":", 1)
client = ScoringServerClient(host, int(port))
client.wait_server_ready(timeout=20)
client.ping()
frame = pd.DataFrame({"a": [1.0, 2.0], "b": [2, 3], "c": [3.0, None]})
said = {"version": client.get_version(), "frame": client.invoke(frame).get_predictions()[0].tolist()}
said["array"] = client.invoke(np.array([[1.0, 2.0, 3.0]])).get_predictions()[0].tolist()
said["records"] = client.invoke([{"a": 1.0, "b": 2, "c": 3.0}]).get_predictions()[0].tolist()
try:
    client.invoke(pd.DataFrame({"a": [1.0]}))
except Exception as error:
    said["error"] = str(error)
print(json.dumps(said))
"""


def test_mlflow_scoring_client(mlflow_python: Path, tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line")) as single:
        said = ask(mlflow_python, MLFLOW, single)
    assert said["frame"] == [321.0, 32.0]
    assert said["array"] == said["records"] == [321.0]
    assert said["version"]
    assert "error code 400" in said["error"]
    assert "BAD_REQUEST" in said["error"]
