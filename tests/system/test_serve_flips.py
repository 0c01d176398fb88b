"""Traffic over real sockets while weights go up and down: no request fails, no answer is of two versions, none of an old one is late."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from modelyard.protocols.messages import kind
from serving import Home, Running, line_row, read_answer, running

TURNS = 20
STEPS = (1, 10, 50, 100, 50, 10, 1, 0)
ROWS = 3
ADDED = {"1": 320.0, "2": 1320.0}

pytestmark = pytest.mark.system


class Said(NamedTuple):
    """One answer: when it was asked and had, and who gave it."""

    asked_s: float
    had_s: float
    version: str


class Client(threading.Thread):
    """Asks over and over on one connection, three rows that no other request has; keeps what was wrong."""

    def __init__(self, server: Running, number: int) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.number = number
        self.said: list[Said] = []
        self.wrong: list[Any] = []
        self.is_over = False

    def run(self) -> None:
        try:
            with self.connected() as ask:
                turn = 0
                while not self.is_over:
                    turn += 1
                    values = [float(turn), turn + 0.25, self.number + 0.5]
                    began = time.monotonic()
                    names, found = ask(values)
                    self.said.append(Said(began, time.monotonic(), names[0]))
                    if len(set(names)) != 1 or found != [value + ADDED.get(names[0], np.nan) for value in values]:
                        self.wrong.append((names, values, found))
        except Exception as error:  # noqa: BLE001 - whatever it is, a request has failed
            self.wrong.append(error)

    @contextmanager
    def connected(self) -> Iterator[Callable[[list[float]], tuple[list[str], list[float]]]]:
        raise NotImplementedError
        yield


class Http(Client):
    """V2 as JSON."""

    @contextmanager
    def connected(self) -> Iterator[Callable[[list[float]], tuple[list[str], list[float]]]]:
        with self.server.connect() as connection, connection.makefile("rb") as stream:

            def ask(values: list[float]) -> tuple[list[str], list[float]]:
                inputs = [{**tensor, "shape": [ROWS, 1], "data": tensor["data"] * ROWS} for tensor in line_row()]
                inputs[0]["data"] = values
                body = json.dumps({"inputs": inputs}).encode()
                connection.sendall(b"POST /v2/models/line/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                answer = read_answer(stream)
                assert answer is not None
                assert answer.status == 200, answer
                said = answer.json()
                return [answer.headers["x-model-version"], said["model_version"]], said["outputs"][0]["data"]

            yield ask


class Grpc(Client):
    """V2 over gRPC."""

    @contextmanager
    def connected(self) -> Iterator[Callable[[list[float]], tuple[list[str], list[float]]]]:
        with grpc.insecure_channel(str(self.server.grpc), options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer", response_deserializer=kind("inference.ModelInferResponse").FromString
            )

            def ask(values: list[float]) -> tuple[list[str], list[float]]:
                message = kind("inference.ModelInferRequest")(model_name="line")
                columns = {"a": np.array(values), "b": np.full(ROWS, 2), "c": np.full(ROWS, 3.0, np.float32)}
                for (name, column), datatype in zip(columns.items(), ("FP64", "INT64", "FP32"), strict=True):
                    message.inputs.add(name=name, datatype=datatype, shape=[ROWS, 1])
                    message.raw_input_contents.append(column.tobytes())
                answer, call = infer.with_call(message.SerializeToString(), timeout=30)
                version = dict(call.initial_metadata())["x-model-version"]
                return [version, answer.model_version], np.frombuffer(answer.raw_output_contents[0]).tolist()

            yield ask


class Whole(NamedTuple):
    """A time in which one version had all traffic: from the acknowledgement to the next plan."""

    since_s: float
    until_s: float
    version: str


def late(clients: list[Client], times: list[Whole]) -> list[tuple[Whole, Said]]:
    """Answers of another version to requests that began after the acknowledgement and had their answer before the next plan."""
    return [
        (whole, said)
        for client in clients
        for whole in times
        for said in client.said
        if whole.since_s <= said.asked_s and said.had_s <= whole.until_s and said.version != whole.version
    ]


@pytest.mark.parametrize("more", [{}, {"sticky": "field:a"}], ids=["by weight", "sticky"])
def test_weights_go_up_and_down_without_a_trace_in_the_answers(tmp_path: Path, more: dict[str, str]) -> None:
    home = Home(tmp_path / "h")
    old, new = (home.add("line", offset=offset) for offset in (0.0, 1000.0))
    home.deploy("line", {old: 100}, hold=(new,), champion=old[0], **more)
    times: list[Whole] = []
    with running(home, workers=2) as server:
        clients = [*(Http(server, number) for number in range(3)), *(Grpc(server, number) for number in range(3, 5))]
        for client in clients:
            client.start()
        for _ in range(TURNS):
            for weight in STEPS:
                weights = {version: share for version, share in ((old, 100 - weight), (new, weight)) if share}
                rest = tuple(version for version in (old, new) if version not in weights)
                began_s = time.monotonic()
                if times and not times[-1].until_s:
                    times[-1] = times[-1]._replace(until_s=began_s)
                shadows = {new: 0.3} if 0 < weight < 100 else {}
                server.wait(sequence=home.deploy("line", weights, hold=rest, shadows=shadows, champion=old[0], **more))
                if weight in (0, 100):
                    times.append(Whole(time.monotonic(), 0.0, "2" if weight else "1"))
                    marks = [len(client.said) for client in clients]
                    until_s = time.monotonic() + 30
                    while any(len(client.said) <= mark + 3 for client, mark in zip(clients, marks, strict=True)) and time.monotonic() < until_s:
                        assert all(client.is_alive() for client in clients), [client.wrong for client in clients]
                        time.sleep(0.002)
        times[-1] = times[-1]._replace(until_s=time.monotonic())
        for client in clients:
            client.is_over = True
        for client in clients:
            client.join(30)
    assert [client.wrong for client in clients] == [[]] * len(clients)
    assert late(clients, times) == []
    assert {said.version for client in clients for said in client.said} == {"1", "2"}
    assert all(any(whole.since_s <= said.asked_s <= whole.until_s for said in client.said) for client in clients for whole in times), "all were asked"


def test_a_late_answer_and_a_mixed_one_would_be_seen(tmp_path: Path) -> None:
    """The checks' own: an answer of the old version after the acknowledgement, and a client whose answers are of no version that it names."""
    times = [Whole(10.0, 20.0, "2")]
    home = Home(tmp_path / "h")
    home.deploy("line", {home.add("line", offset=5.0): 100})
    with running(home) as server:
        client = Http(server, 0)
        client.said = [Said(9.0, 11.0, "1"), Said(12.0, 21.0, "1"), Said(12.0, 13.0, "2")]
        assert late([client], times) == []
        client.said.append(Said(12.0, 13.0, "1"))
        assert late([client], times) == [(times[0], Said(12.0, 13.0, "1"))]
        client.start()
        while not client.wrong:
            time.sleep(0.002)
        client.is_over = True
        client.join(10)
    assert client.wrong[0][0] == ["1", "1"], "it says that it is version 1, whose answers are others"
