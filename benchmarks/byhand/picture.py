"""An image model by hand: `python -m benchmarks.byhand.picture MODEL.onnx PORT` answers POST / with an Open Inference Protocol V2 request as JSON.

Plain ASGI on uvicorn (httptools, uvloop). Parts of the body are joined once, numbers are read by a typed decoder and go into an array without a
detour. It checks nothing beyond that, counts nothing and knows no key.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvicorn


class Tensor(msgspec.Struct):
    """The image."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(msgspec.Struct):
    """The body."""

    inputs: list[Tensor]


decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode


def app(model: str) -> Any:
    """The ASGI app over the session of `model`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given, wanted = session.get_inputs()[0].name, session.get_outputs()[0].name

    def predict(body: bytes) -> bytes:
        tensor = decode(body).inputs[0]
        image = np.frombuffer(array("f", tensor.data), np.float32).reshape(tensor.shape)
        (scores,) = session.run([wanted], {given: image})
        outputs = [{"name": wanted, "datatype": "FP32", "shape": scores.shape, "data": scores.ravel().tolist()}]
        return encode({"model_name": "picture", "outputs": outputs})

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        out = predict(b"".join(parts))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": out})

    return answer


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[1]), port=int(sys.argv[2]), access_log=False, log_level="warning", lifespan="off")
