"""Many models by hand: `python -m benchmarks.byhand.many bare|tick MODEL.onnx PORT` answers POST /v2/models/forest-NUMBER/infer, a session for each.

`bare` is plain ASGI on uvicorn, one run a request; `tick` speaks HTTP by httptools, and the requests of one model that arrived in one turn of the
event loop run as one batch. They check nothing, count nothing, know no key and protect against nothing.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime

MODELS = 200
NUMBER = re.compile(rb"-(\d+)/")
DATATYPES = {"int64": "INT64", "float32": "FP32"}


class Tensor(msgspec.Struct):
    """The one input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(msgspec.Struct):
    """The body."""

    inputs: list[Tensor]


decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode


class Forest:
    """One model: a session of its own."""

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]

    def predict(self, rows: list[list[float]]) -> list[Any]:
        """The outputs, each for all rows."""
        outputs: list[Any] = self._session.run(None, {self._input: np.array(rows, np.float32)})
        return outputs

    def answer(self, outputs: list[Any], row: int) -> bytes:
        """What one row is answered."""
        named = zip(self._names, (output[row : row + 1] for output in outputs), strict=True)
        told = [{"name": name, "datatype": DATATYPES[each.dtype.name], "shape": each.shape, "data": each.ravel().tolist()} for name, each in named]
        return encode({"model_name": "forest", "outputs": told})


def bare(forests: list[Forest]) -> Any:
    """The ASGI application."""

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        forest = forests[_number(scope["raw_path"])]
        out = forest.answer(forest.predict([decode(body).inputs[0].data]), 0)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": out})

    return handle


class Tick(asyncio.Protocol):
    """One connection; `waiting` holds what arrived in this turn, by model."""

    def __init__(self, forests: list[Forest], waiting: dict[int, list[tuple[Tick, Tensor]]]) -> None:
        import httptools

        self._forests = forests
        self._waiting = waiting
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        tensor, self._body = decode(self._body).inputs[0], b""
        number = _number(self._url)
        if number not in self._waiting:
            self._waiting[number] = []
            asyncio.get_running_loop().call_soon(self._run, number)
        self._waiting[number].append((self, tensor))

    def _run(self, number: int) -> None:
        batch, forest = self._waiting.pop(number), self._forests[number]
        outputs = forest.predict([tensor.data for _, tensor in batch])
        for row, (connection, _) in enumerate(batch):
            connection._reply(forest.answer(outputs, row))

    def _reply(self, out: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(out) + out)


def _number(path: bytes) -> int:
    found = NUMBER.search(path)
    return int(found[1]) if found else 0


async def _tick(forests: list[Forest], port: int) -> None:
    waiting: dict[int, list[tuple[Tick, Tensor]]] = {}
    server = await asyncio.get_running_loop().create_server(lambda: Tick(forests, waiting), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve until ended."""
    kind, model, port = sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3])
    forests = [Forest(model) for _ in range(MODELS)]
    if kind == "bare":
        import uvicorn

        uvicorn.run(bare(forests), port=port, access_log=False, log_level="warning")
    else:
        import uvloop

        uvloop.run(_tick(forests, port))


if __name__ == "__main__":
    main()
