"""The census model by hand: `python -m benchmarks.byhand.people MODEL.onnx PORT` answers POST / with `{"instances": [{…}, …]}` as KServe V1 does.

Plain ASGI on uvicorn (httptools, uvloop), records read into typed structs, one thread, only the output that is answered. It counts nothing, keeps
nothing, knows no key and protects against nothing.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvicorn

MISSING = "\ufdd0"
"""What the graph takes for a missing text."""


class Person(msgspec.Struct, rename=lambda name: name.replace("_", "-")):
    """One row of the census."""

    age: int
    workclass: str | None
    fnlwgt: int
    education: str
    education_num: int
    marital_status: str
    occupation: str | None
    relationship: str
    race: str
    sex: str
    capital_gain: int
    capital_loss: int
    hours_per_week: int
    native_country: str | None


class Request(msgspec.Struct):
    """The body."""

    instances: list[Person]


decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode


def app(model: str) -> Any:
    """The ASGI app over the session of `model`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run

    def predict(body: bytes) -> bytes:
        people = decode(body).instances
        numbers = [(p.age, p.fnlwgt, p.education_num, p.capital_gain, p.capital_loss, p.hours_per_week) for p in people]
        texts = [
            (
                p.workclass or MISSING,
                p.education,
                p.marital_status,
                p.occupation or MISSING,
                p.relationship,
                p.race,
                p.sex,
                p.native_country or MISSING,
            )
            for p in people
        ]
        (labels,) = run(["label"], {"numbers": np.array(numbers, np.float64), "strings": np.array(texts, object)})
        return encode({"predictions": labels.tolist()})

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        out = predict(body)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": out})

    return answer


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[1]), port=int(sys.argv[2]), access_log=False, log_level="warning", lifespan="off")
