"""Abuse of HTTP/2 and gRPC (fault 29): each ends in RESOURCE_EXHAUSTED or GOAWAY, and another client is answered meanwhile."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from h2 import Socketed, connected, fields, frame, message

from modelyard.protocols.messages import kind
from modelyard.serve import http2, streams
from serving import Running, home_with, running

RESOURCE_EXHAUSTED = "8"


def infer(rows: int = 1) -> bytes:
    """A ModelInferRequest for `grid`."""
    made = kind("inference.ModelInferRequest")(model_name="grid")
    made.inputs.add(name="X", datatype="FP32", shape=[rows, 4])
    made.raw_input_contents.append(np.resize(np.array([1, 2, 3, 4], np.float32), (rows, 4)).tobytes())
    return bytes(made.SerializeToString())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("abuse") / "home", "grid", "slow")) as made:
        yield made


@pytest.fixture
def abuser(server: Running) -> Iterator[Socketed]:
    """A connection to abuse. At its end another client must be answered, by the same worker."""
    before = server.workers()
    with connected(str(server.grpc)) as made:
        yield made
        with connected(str(server.grpc)) as other:
            assert other.answer(other.call(infer()))["grpc-status"] == "0"
    assert server.workers() == before
    assert server.is_well()


def resident_mb(server: Running) -> float:
    (pid,) = server.workers()
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def sent_away(caller: Socketed) -> int:
    """Read until GOAWAY; its code."""
    caller.read(lambda: caller.goaway is not None)
    assert caller.goaway is not None
    return caller.goaway.code


def test_ten_thousand_rapid_resets(abuser: Socketed) -> None:
    for _ in range(10_000):
        abuser.send(http2.reset(abuser.call(infer()), http2.CANCEL))
        if abuser.is_cut:
            break
    assert sent_away(abuser) == http2.ENHANCE_YOUR_CALM


def test_resets_that_we_are_made_to_send_count_alike(abuser: Socketed) -> None:
    for _ in range(10_000):
        number = abuser.begin()
        abuser.send(http2.window_update(number, 0))
        if abuser.is_cut:
            break
    assert sent_away(abuser) == http2.ENHANCE_YOUR_CALM


def test_a_message_above_the_limit_is_refused_before_it_arrives(server: Running, abuser: Socketed) -> None:
    before = resident_mb(server)
    number = abuser.begin()
    abuser.data(number, b"\0" + (1 << 30).to_bytes(4, "big") + bytes(1000), ends=False)
    assert abuser.answer(number)["grpc-status"] == RESOURCE_EXHAUSTED
    assert resident_mb(server) < before + 5


def test_many_messages_begun_and_never_ended_hold_little(server: Running, abuser: Socketed) -> None:
    before = resident_mb(server)
    for _ in range(http2.STREAMS):
        number = abuser.begin()
        abuser.data(number, b"\0" + (4 << 20).to_bytes(4, "big") + bytes(8000), ends=False)
    abuser.send(frame(http2.PING, 0, 0, bytes(8)))
    abuser.read(lambda: any(each.kind == http2.PING for each in abuser.frames))
    granted = sum(http2.number(each.payload) for each in abuser.frames if each.kind == http2.WINDOW_UPDATE and each.stream)
    assert granted <= streams.MESSAGES_BYTES
    assert resident_mb(server) < before + 16


def test_a_flood_of_metadata_is_refused(abuser: Socketed) -> None:
    flood = fields(**{f"x-{at}": "y" * 900 for at in range(30)})
    assert abuser.answer(abuser.begin(flood, ends=True))["grpc-status"] == RESOURCE_EXHAUSTED


def test_a_header_block_without_end(abuser: Socketed) -> None:
    abuser.send(frame(http2.HEADERS, 0, 1, b"\0\1a\1b"))
    for _ in range(100_000):
        abuser.send(frame(http2.CONTINUATION, 0, 1, b"\0\1a\1b" * 100))
        if abuser.is_cut:
            break
    assert sent_away(abuser) == http2.ENHANCE_YOUR_CALM


def test_a_header_bomb(server: Running, abuser: Socketed) -> None:
    before = resident_mb(server)
    abuser.send(frame(http2.HEADERS, http2.END_HEADERS, 1, abuser.encoder.encode([*fields(), ("x", "y" * 3500)])))
    abuser.send(frame(http2.HEADERS, http2.END_HEADERS, 3, b"\xbe" * 16_000))
    assert sent_away(abuser) == http2.ENHANCE_YOUR_CALM
    assert resident_mb(server) < before + 5


@pytest.mark.parametrize(
    "data",
    [frame(http2.PING, 0, 0, bytes(8)), http2.settings({http2.INITIAL_WINDOW_SIZE: 1000}), frame(200, 0, 0, b"x"), http2.window_update(0, 1)],
    ids=["ping", "settings", "unknown", "window"],
)
def test_a_flood_of_frames_that_ask_for_nothing(abuser: Socketed, data: bytes) -> None:
    for _ in range(1000):
        abuser.send(data * 100)
        if abuser.is_cut:
            break
    assert sent_away(abuser) == http2.ENHANCE_YOUR_CALM


def test_empty_and_tiny_data(server: Running, abuser: Socketed) -> None:
    number = abuser.begin()
    for _ in range(1000):
        abuser.send(frame(http2.DATA, 0, number) * 100)
        if abuser.is_cut:
            break
    assert sent_away(abuser) == http2.ENHANCE_YOUR_CALM
    with connected(str(server.grpc)) as other:
        number = other.begin()
        other.data(number, b"\0" + (1 << 20).to_bytes(4, "big"), ends=False)
        for _ in range(1000):
            other.send(frame(http2.DATA, 0, number, b"x") * 100)
            if other.is_cut:
                break
        assert sent_away(other) == http2.ENHANCE_YOUR_CALM


def test_a_window_that_overflows(abuser: Socketed) -> None:
    abuser.send(http2.window_update(0, http2.WINDOW_LIMIT))
    assert sent_away(abuser) == http2.FLOW_CONTROL_ERROR


def test_more_data_than_the_window_allows(abuser: Socketed) -> None:
    for _ in range(2):  # these take all the room that there is
        abuser.data(abuser.begin(), b"\0" + (4 << 20).to_bytes(4, "big"), ends=False)
    refused = abuser.begin()  # on this one no window is ever given beyond the first
    abuser.send(b"".join(frame(http2.DATA, 0, refused, b"\0\0\x10\0\0" + bytes(16_000)) for _ in range(9)))
    abuser.read(lambda: abuser.ended(refused) or abuser.goaway is not None)
    assert abuser.goaway is None
    assert [each.code for each in abuser.of(refused) if each.kind == http2.RST_STREAM] == [http2.FLOW_CONTROL_ERROR]


@pytest.mark.parametrize("seed", range(5))
def test_garbage(server: Running, abuser: Socketed, seed: int) -> None:
    draw = random.Random(seed)
    with connected(str(server.grpc), greets=False) as other:
        other.send(draw.randbytes(100_000))
        sent_away(other)
    with suppress(OSError):
        abuser.send(draw.randbytes(100_000))
    abuser.read(lambda: abuser.goaway is not None)


NO_MESSAGES = {
    "empty": b"",
    "garbage": b"\xff" * 100,
    "a broken tensor": b"\x0a\x04grid\x2a\xff",
    "empty tensors": b"\x0a\x04grid" + b"\x2a\x02\x2a\x00" * 500,
    "cut off": infer()[:-3],
    "one tensor too many": infer() + b"\x3a\x01x",
}


@pytest.mark.parametrize("body", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_is_refused(abuser: Socketed, body: bytes) -> None:
    answer = abuser.answer(abuser.call(body))
    assert answer["grpc-status"] in {"3", "5"}


def test_a_gzip_bomb(abuser: Socketed) -> None:
    import gzip

    number = abuser.begin(fields(grpc_encoding="gzip"))
    abuser.data(number, message(gzip.compress(bytes(64 << 20)), 1))
    assert abuser.answer(number)["grpc-status"] == RESOURCE_EXHAUSTED


def test_http_1_on_the_grpc_port_is_told_and_closed(server: Running) -> None:
    host, _, port = str(server.grpc).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"POST /v2/models/grid/infer HTTP/1.1\r\nHost: x\r\n\r\n")
        caller = Socketed(connection)
        assert sent_away(caller) == http2.PROTOCOL_ERROR
        caller.read(lambda: caller.is_closed)


def test_the_silent_and_the_slow_are_closed(server: Running) -> None:
    began = time.monotonic()
    with connected(str(server.grpc), greets=False, timeout=30) as silent, connected(str(server.grpc), timeout=30) as slow:
        slow.send(b"\0\0\x09\1\4\0\0")
        for each in (silent, slow):
            each.read(lambda each=each: each.goaway is not None)
            assert each.goaway.code == http2.ENHANCE_YOUR_CALM
    assert time.monotonic() - began < 25  # ten seconds each, at once


def test_a_reader_who_does_not_read_holds_little(server: Running) -> None:
    """Answers that nobody takes: by closed windows, and by a full socket."""
    before = resident_mb(server)
    callers: list[Any] = []
    body = infer(1000)  # answered by 16 kB
    for settings in ({http2.INITIAL_WINDOW_SIZE: 0}, {http2.INITIAL_WINDOW_SIZE: http2.WINDOW_LIMIT}):
        for _ in range(10):
            host, _, port = str(server.grpc).rpartition(":")
            connection = socket.create_connection((host, int(port)), timeout=0.3)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller = Socketed(connection)
            caller.greet(settings)
            caller.send(http2.window_update(0, http2.WINDOW_LIMIT - http2.DEFAULT_WINDOW))
            callers.append(caller)
            for _ in range(http2.STREAMS):
                caller.call(body)
                if caller.is_cut:
                    break
    with connected(str(server.grpc)) as other:
        assert other.answer(other.call(infer()))["grpc-status"] == "0"
    assert resident_mb(server) < before + len(callers)  # a megabyte each at most
    for caller in callers:
        caller.connection.close()
