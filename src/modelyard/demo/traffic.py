"""The months after training, sent hour by hour to the endpoint as HTTP requests of one row, and the answers.

Hides connections, threads and the two wire forms (Open Inference Protocol V2 and KServe V1, in turn). It is a client like any other: it
knows a URL and a schema, nothing of the server. Bounded: a fixed number of connections, one request each at a time, a timeout on all.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelyard.types import Schema

TIMEOUT_S = 10.0
_JSON = {"content-type": "application/json"}


class Answers(msgspec.Struct, kw_only=True):
    """What came back for a sequence of rows, in their order. `predictions` maps prediction id to value: labels are joined by it."""

    ids: list[str]
    predictions: dict[str, float]
    latencies_s: list[float]
    refused: dict[str, int]
    seconds: float


class Caller:
    """One keep-alive connection; not shared between threads. Reconnects after a failure."""

    def __init__(self, host: str, port: int, name: str, schema: Schema) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        self._name = name
        self._datatypes = [(spec.name, spec.datatype) for spec in schema.inputs]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask_v2(self, row: Mapping[str, Any], id: str) -> tuple[str, float]:
        """Prediction id and prediction for one row, by Open Inference Protocol V2. Raises OSError or Refused."""
        inputs = [{"name": name, "shape": [1, 1], "datatype": kind, "data": [row[name]]} for name, kind in self._datatypes]
        answer, _ = self.post(f"/v2/models/{self._name}/infer", {"id": id, "inputs": inputs})
        return str(answer["id"]), float(answer["outputs"][0]["data"][0])

    def ask_v1(self, row: Mapping[str, Any]) -> tuple[str, float]:
        """Prediction id (the server's) and prediction for one row, by KServe V1. Raises OSError or Refused."""
        instance = {name: row[name] for name, _ in self._datatypes}
        answer, headers = self.post(f"/v1/models/{self._name}:predict", {"instances": [instance]})
        return headers["x-prediction-id"], float(answer["predictions"][0])

    def ask_whom(self, row: Mapping[str, Any]) -> tuple[int, float]:
        """The version that answered and its prediction for one row, by KServe V1. Raises OSError or Refused."""
        instance = {name: row[name] for name, _ in self._datatypes}
        answer, headers = self.post(f"/v1/models/{self._name}:predict", {"instances": [instance]})
        return int(headers["x-model-version"]), float(answer["predictions"][0])

    def post(self, path: str, body: object) -> tuple[Any, http.client.HTTPMessage]:
        """The decoded answer to `body` as JSON, and its headers. Raises Refused for any status but 200."""
        try:
            self._connection.request("POST", path, msgspec.json.encode(body), _JSON)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if response.status != 200:
            raise Refused(response.status, content.decode("utf-8", "replace"))
        return msgspec.json.decode(content), response.headers


class Refused(Exception):
    """The server answered with another status than 200; `text` is its explanation."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.text = text


def send(host: str, port: int, name: str, schema: Schema, rows: Sequence[tuple[str, Mapping[str, Any]]], *, connections: int = 4) -> Answers:
    """Send each (id, row) as one request, V2 and V1 in turn over `connections` connections, and collect the answers.

    A refused or failed request counts in `refused` by status or reason and has the id "" and no prediction.
    """
    ids = [""] * len(rows)
    values = [0.0] * len(rows)
    latencies: list[list[float]] = [[] for _ in range(connections)]
    refused: Counter[str] = Counter()
    stop = threading.Event()

    def work(number: int) -> None:
        caller = Caller(host, port, name, schema)
        with contextlib.closing(caller):
            for index in range(number, len(rows), connections):
                if stop.is_set():
                    return
                given, row = rows[index]
                started = time.perf_counter()
                try:
                    ids[index], values[index] = caller.ask_v1(row) if index // connections % 2 else caller.ask_v2(row, given)
                    latencies[number].append(time.perf_counter() - started)
                except Refused as refusal:
                    refused[str(refusal.status)] += 1
                except (OSError, http.client.HTTPException) as error:
                    refused[type(error).__name__] += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(connections)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        stop.set()
    return Answers(
        ids=ids,
        predictions={key: value for key, value in zip(ids, values, strict=True) if key},
        latencies_s=[latency for part in latencies for latency in part],
        refused=dict(refused),
        seconds=time.perf_counter() - started,
    )
