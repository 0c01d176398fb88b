"""PyTorch modules: exported with proof where torch.export can express them, else refused naming the isolated way, which is taken here too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
MODELS = Path(__file__).parents[1] / "support" / "isolated_models"

HEAD = """
import json, sys
import numpy as np
import torch
from torch import nn
import modelyard
from modelyard import runtime
from modelyard.errors import ModelyardError

home, models = sys.argv[1:]
torch.manual_seed(0)
X = np.random.default_rng(0).random((150, 4)).astype(np.float32)

def packaged(model, data, **more):
    return modelyard.package(model, name="net", data=data, home=home + more.pop("where", ""), progress=lambda *_: None, **more)

def served(bundle, inputs):
    opened = runtime.open(bundle)
    try:
        return {name: array.tolist() for name, array in opened.predict(inputs).items()}
    finally:
        opened.close()
"""
EXPORTED = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(4, 16), nn.Linear(16, 3), nn.Dropout(0.5)
    def forward(self, x):
        return torch.softmax(self.second(self.drop(torch.relu(self.first(x)))), dim=1)

net = Net()
first, second = packaged(net, X), packaged(net, X, where="2")
net.eval()
expected = net(torch.from_numpy(X)).detach().numpy()
found = np.array(served(first, {"X": X})["output"])
parity = first.attestation["parity"]
graph = first.read("model")
print(json.dumps({
    "digests": [first.digest, second.digest], "close": bool(np.allclose(found, expected, atol=1e-5)), "shape": list(first.schema.outputs[0].shape),
    "kind": json.loads(first.read("runtime"))["kind"], "rows": parity["rows"], "passed": parity["passed"], "batches": sorted(parity["batch_bits"]),
    "places": [word for word in ("/tmp", "site-packages", ".py") if word.encode() in graph], "packages": sorted(first.lock.packages),
}))
"""
TWO_INPUTS = """
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.line = nn.Embedding(5, 2), nn.Linear(3, 1)
    def forward(self, size, kind):
        both = torch.cat([size, self.table(kind[:, 0])], dim=1)
        return {"score": self.line(both)[:, 0], "kind_out": kind}

rng = np.random.default_rng(0)
data = {"size": rng.random((90, 1)).astype(np.float32), "kind": rng.integers(0, 5, (90, 1))}
net = Two()
bundle = packaged(net, data)
net.eval()
expected = net(**{name: torch.from_numpy(array) for name, array in data.items()})["score"].detach().numpy()
found = served(bundle, data)
print(json.dumps({"names": list(found), "close": bool(np.allclose(found["score"], expected, atol=1e-5)), "training": net.training}))
"""
REFUSED = """
sys.path.insert(0, models)
from net import Net
try:
    packaged(Net(), X)
    print(json.dumps({}))
except ModelyardError as error:
    print(json.dumps({"code": error.code, "message": error.message}))
"""
ISOLATED = """
import safetensors.torch
sys.path.insert(0, models)
from net import Net, Served
net = Net()
safetensors.torch.save_file(net.state_dict(), home + ".safetensors")
given = {"code": [models + "/net.py"], "files": {"weights": home + ".safetensors"}}
first, second = packaged(Served, X, **given), packaged("net:Served", X, where="2", **given)
found = served(first, {"X": X})["prediction"]
try:
    packaged(Served, X, code=given["code"], files={"weights": net.state_dict()})
    refused = ""
except ModelyardError as error:
    refused = error.message
torch.save(net.state_dict(), home + ".pt")
try:
    packaged(Served, X, code=given["code"], files={"weights": home + ".pt"})
except ModelyardError as error:
    refused += error.message
print(json.dumps({
    "close": bool(np.allclose(found, net(torch.from_numpy(X)).detach().numpy(), atol=1e-5)), "digests": [first.digest, second.digest],
    "members": sorted(first.parts), "packages": sorted(first.lock.packages), "refused": refused,
}))
"""


def run(python: Path, code: str, tmp_path: Path) -> Any:
    done = subprocess.run([str(python), "-c", HEAD + code, str(tmp_path / "home"), str(MODELS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_module_becomes_a_graph_that_answers_alike_at_any_batch_and_has_one_digest(torch_python: Path, tmp_path: Path) -> None:
    found = run(torch_python, EXPORTED, tmp_path)
    assert found["close"] and found["passed"] and found["rows"] == 150 and found["shape"] == [-1, 3] and found["kind"] == "onnx"
    assert found["batches"] == ["1", "2", "64", "7"]
    assert len(set(found["digests"])) == 1 and found["places"] == []
    assert "torch" in found["packages"]


def test_inputs_and_outputs_go_by_name(torch_python: Path, tmp_path: Path) -> None:
    found = run(torch_python, TWO_INPUTS, tmp_path)
    assert found == {"names": ["score", "kind_out"], "close": True, "training": False}


def test_what_cannot_be_exported_is_refused_naming_the_isolated_way(torch_python: Path, tmp_path: Path) -> None:
    found = run(torch_python, REFUSED, tmp_path)
    assert found["code"] == "unconvertible" and "code=[" in found["message"] and "safetensors" in found["message"]


def test_the_isolated_way_serves_it_with_its_weights_as_data(torch_python: Path, tmp_path: Path) -> None:
    found = run(torch_python, ISOLATED, tmp_path)
    assert found["close"] and len(set(found["digests"])) == 1
    assert found["members"] == ["code/net.py", "files/weights.safetensors"]
    assert {"torch", "safetensors", "numpy"} <= set(found["packages"])
    assert "safetensors" in found["refused"] and "torch.save" in found["refused"]
