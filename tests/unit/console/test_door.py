"""The wire of the control API, over real sockets: who says nothing, trickles, does not listen or crowds the house."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from modelyard.console import door
from modelyard.console.door import Door

Dial = Callable[..., socket.socket]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, `/read` when it has read the body, `/large` with much, `/slow` late."""
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    content = b"x" * (64 << 20 if scope["path"] == "/large" else 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(content)).encode())]})
    await send({"type": "http.response.body", "body": content})


class Running:
    """uvicorn in a thread."""

    def __init__(self, protocol: Any = Door) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.open: list[socket.socket] = []

    def dial(self, said: bytes = b"") -> socket.socket:
        """A connection on which `said` was sent."""
        line = socket.create_connection(self.listener.getsockname())
        line.settimeout(5)
        self.open.append(line)
        line.sendall(said)
        return line

    def end(self) -> None:
        for line in self.open:
            line.close()
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(door, "STALLED_S", 0.3)
    monkeypatch.setattr(door, "CONNECTIONS", 4)


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.end()


def rest(line: socket.socket) -> bytes:
    """All that comes until the connection is closed; fails when it stays open."""
    parts = b""
    try:
        while part := line.recv(65536):
            parts += part
    except ConnectionResetError:
        pass
    return parts


GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def trickle(line: socket.socket, data: bytes) -> bytes:
    """Send `data` byte by byte until it is refused; what was answered."""
    try:
        for at in range(len(data)):
            line.sendall(data[at : at + 1])
            time.sleep(0.05)
    except OSError:
        pass
    return rest(line)


def test_who_says_nothing_is_closed_without_an_answer(running: Running) -> None:
    assert rest(running.dial()) == b""


def test_a_head_that_trickles_is_refused_in_the_one_form(running: Running) -> None:
    for line in (running.dial(), running.dial(GET)):  # the first request, and one behind another
        if line is running.open[1]:
            line.recv(65536)
        said = trickle(line, GET * 3)
        assert said.startswith(b"HTTP/1.1 400") and json.loads(said.partition(b"\r\n\r\n")[2])["error"]["rule"] == "timeout"


def test_without_the_bound_it_would_go_on() -> None:
    """The control: uvicorn's own protocol lets a head trickle."""
    running = Running(H11Protocol)
    try:
        assert trickle(running.dial(), GET + b"GET / HTTP/1.1\r\nConnection: close\r\nHost: h\r\n\r\n").count(b"200 OK") == 2
    finally:
        running.end()


def test_who_has_asked_may_stay_and_ask_again(running: Running) -> None:
    line = running.dial(GET)
    assert line.recv(65536).startswith(b"HTTP/1.1 200")
    time.sleep(0.6)
    line.sendall(GET)
    assert line.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_body_whose_answer_is_out_may_not_trickle_on(running: Running) -> None:
    line = running.dial(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx")
    said = trickle(line, b"x" * 50)
    assert said.startswith(b"HTTP/1.1 200")
    line = running.dial(b"POST /read HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx")
    time.sleep(0.6)  # a body that is being read is the reader's to bound
    line.sendall(b"y")
    assert line.recv(65536).startswith(b"HTTP/1.1 200")


def test_who_does_not_take_an_answer_loses_it(running: Running) -> None:
    line = running.dial(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
    time.sleep(1.0)
    assert len(rest(line)) < 64 << 20


def test_what_is_no_http_is_told_in_the_one_form(running: Running) -> None:
    said = rest(running.dial(b"nonsense\r\n\r\n"))
    assert said.startswith(b"HTTP/1.1 400") and json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed_payload"
    assert rest(running.dial(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 100_000)).startswith(b"HTTP/1.1 400")


def test_whose_answer_is_out_does_not_fill_the_house_by_a_body_that_never_comes(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_TIMEOUT_S", 30.0)
    for line in [running.dial(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n") for _ in range(4)]:
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
    assert running.dial(GET).recv(65536).startswith(b"HTTP/1.1 200")


def test_a_full_house_shows_out_who_has_asked_nothing_and_else_turns_away(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_TIMEOUT_S", 30.0)
    silent = [running.dial() for _ in range(4)]
    time.sleep(0.1)
    asked = running.dial(GET)
    assert asked.recv(65536).startswith(b"HTTP/1.1 200")
    assert rest(silent[0]) == b""
    busy = [running.dial(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n") for _ in range(4)]
    time.sleep(0.1)
    said = rest(running.dial())
    assert said.startswith(b"HTTP/1.1 429") and b"Retry-After: 1" in said
    assert all(line.recv(65536).startswith(b"HTTP/1.1 200") for line in busy)
