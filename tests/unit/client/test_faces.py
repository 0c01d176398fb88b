"""Both faces over a real socket: what is sent, what is saved, and what the network's failures become."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard.client import AsyncClient, Client, faces
from modelyard.client.steps import Effect, Pause, Reply, Send, Steps
from modelyard.errors import Conflict, DeadlineExceeded, NotFound, Unavailable


class Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status = 404 if self.path == "/404" else 200
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["blocking", "awaiting"])
def carry_out(request: pytest.FixtureRequest) -> Any:
    """Carry out one effect on either face; the reply or the error that a verb is told."""

    def steps(effect: Effect) -> Steps[Any]:
        return (yield effect)

    async def later(effect: Effect) -> Any:
        async with AsyncClient("http://h") as client:
            return await client.run(steps(effect))

    def now(effect: Effect) -> Any:
        with Client("http://h") as client:
            return client.run(steps(effect))

    return now if request.param == "blocking" else lambda effect: asyncio.run(later(effect))


def test_bytes_and_files_go_out_and_come_in(carry_out: Any, url: str, tmp_path: Path) -> None:
    told = carry_out(Send("POST", f"{url}/x", {"a": "b"}, b"hello", 5.0))
    assert isinstance(told, Reply) and (told.status, told.content) == (200, b"hello")
    source, target = tmp_path / "from", tmp_path / "to"
    source.write_bytes(b"x" * 1_000_000)
    told = carry_out(Send("POST", f"{url}/x", {}, None, 5.0, upload=source, save_to=target))
    assert told.content == b"" and target.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "to"]


def test_a_refusal_is_not_saved(carry_out: Any, url: str, tmp_path: Path) -> None:
    told = carry_out(Send("POST", f"{url}/404", {}, b"why", 5.0, save_to=tmp_path / "to"))
    assert (told.status, told.content) == (404, b"why") and list(tmp_path.iterdir()) == []


def test_what_the_network_does_is_told_and_not_raised(carry_out: Any, tmp_path: Path) -> None:
    told = carry_out(Send("POST", "http://127.0.0.1:1/api/v1/x", {}, b"", 5.0))
    assert type(told) is Unavailable and "http://127.0.0.1:1" in told.message and "/api" not in told.message
    assert type(carry_out(Send("POST", "http://[/x", {}, b"", 5.0))) is Unavailable
    assert type(carry_out(Send("POST", "http://127.0.0.1:1/x", {}, None, 5.0, upload=tmp_path / "none"))) is NotFound
    assert carry_out(Pause(0.0)) is None


def test_an_answer_that_broke_off_is_not_called_none(carry_out: Any) -> None:
    """Whoever hears that nothing answers may ask a second time, and go back twice."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            line, _ = listener.accept()
            line.recv(65536)
            line.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        told = carry_out(Send("POST", f"http://127.0.0.1:{listener.getsockname()[1]}/", {}, b"", 5.0))
        thread.join()
    assert isinstance(told, Unavailable) and "may be done" in told.message


def test_a_server_that_does_not_answer_is_late(carry_out: Any) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert type(carry_out(Send("GET", f"http://127.0.0.1:{silent.getsockname()[1]}/x", {}, None, 0.1))) is DeadlineExceeded


def test_what_is_not_the_networks_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with Client("http://h") as client, pytest.raises(ZeroDivisionError):
        monkeypatch.setattr(client._http, "build_request", broken)
        client.status()


def test_the_blocking_face_sleeps_and_the_awaiting_one_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(faces, "sleep", slept.append)

    def steps() -> Steps[str]:
        yield Pause(0.05)
        return "done"

    with Client("http://h") as client:
        assert client.run(steps()) == "done" and slept == [0.05]

    async def both() -> list[str]:
        async with AsyncClient("http://h") as client:
            return await asyncio.gather(client.run(steps()), asyncio.sleep(0, "first"))

    assert asyncio.run(both()) == ["done", "first"]
    assert Conflict("x").current is None
