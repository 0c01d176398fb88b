"""An image of 224 x 224 x 3 to a small convolutional net: binary beside the session alone, JSON beside an app written by hand.

The net is made here of seeded weights: five convolutions with a stride of two, a mean over the picture, ten scores; 3 to 5 ms. Ours has everything
on and a key; theirs is `byhand/picture.py`. JSON comes as 150,528 numbers, flat and nested.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.items import Item, ratio, spread
from benchmarks.servers import JSON, Home, Question, Wrk, alone, started, v2

SHAPE = (224, 224, 3)
CHANNELS = (3, 48, 80, 128, 160, 192)
CLASSES = 10
ROUNDS = 5
CONNECTIONS = 4


def net() -> bytes:
    """The graph: `X` [-1, 224, 224, 3] to `scores` [-1, 10]."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    nodes = [helper.make_node("Transpose", ["X"], ["h0"], perm=[0, 3, 1, 2])]
    weights = []

    def weight(name: str, *shape: int, spread: int) -> str:
        values = (draw.standard_normal(shape) / np.sqrt(spread)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    last = len(CHANNELS) - 1
    for at, (given, made) in enumerate(itertools.pairwise(CHANNELS)):
        kernel = weight(f"w{at}", made, given, 3, 3, spread=9 * given)
        nodes.append(helper.make_node("Conv", [f"h{at}", kernel], [f"c{at}"], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"h{at + 1}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"h{last}"], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", weight("head", CHANNELS[-1], CLASSES, spread=CHANNELS[-1])], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=1))
    graph = helper.make_graph(
        nodes,
        "picture",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def nested(image: Any) -> bytes:
    """The JSON request with the picture's rows as lists."""
    tensor = {"name": "X", "shape": list(image.shape), "datatype": "FP32", "data": image.astype(float).tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def run() -> list[Item]:
    """Pictures a second: binary, JSON."""
    import numpy as np

    import modelyard

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home, wrk = Home(folder / "home"), Wrk(folder)
        model, arrays = folder / "picture.onnx", folder / "picture.npz"
        model.write_bytes(net())
        pictures = np.round(np.random.default_rng(0).random((8, *SHAPE)), 4).astype(np.float32)
        np.savez(arrays, X=pictures[:1])
        modelyard.package(model, name="picture", data=pictures, home=home.folder)
        home.serve("picture")
        binary = v2("picture", pictures[:1], home.authorization, binary=True)
        flat = v2("picture", pictures[:1], home.authorization)
        deep = Question(flat.paths, nested(pictures[:1]), flat.headers)
        theirs = Question(["/"], flat.body, JSON)
        command = [sys.executable, "-m", "benchmarks.byhand.picture", str(model), "{port}"]
        with started(command, theirs) as app, home.started(binary) as server:

            def ours(question: Question) -> float:
                return wrk.load(server.port, question, CONNECTIONS).requests_s

            def by_hand() -> float:
                return wrk.load(app.port, theirs, CONNECTIONS).requests_s

            ours(binary), ours(flat), by_hand()
            of_session, sent, session = ratio(lambda: ours(binary), lambda: alone(model, arrays), rounds=ROUNDS)
            of_app, mine, others = ratio(lambda: ours(flat), by_hand, rounds=ROUNDS)
            deep_rate = [ours(deep) for _ in range(2)]
    return [
        Item(
            name="image-binary",
            figure=of_session,
            unit="x",
            bar=0.8,
            better="higher",
            note=f"images/s: ours {spread(sent, '')}, session alone {spread(session, '')}",
        ),
        Item(
            name="image-json",
            figure=of_app,
            unit="x",
            bar=1.0,
            better="higher",
            note=f"images/s: ours {spread(mine, '')} (nested {spread(deep_rate, '')}), by hand {spread(others, '')}; {len(flat.body):,} bytes each",
        ),
    ]
