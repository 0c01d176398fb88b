"""Callers who hold a connection by sending slowly or not at all: all are let go in time, while others are answered."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from serving import home_with, line_row, running

pytestmark = pytest.mark.system
HEADER_S, BODY_S = 11.5, 30.0


def test_silent_and_trickling_callers_are_closed_in_time_and_hold_nobody_up(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line")) as server:
        began = time.monotonic()
        silent = [server.connect() for _ in range(40)]
        trickling = [server.connect() for _ in range(40)]
        bodies = [server.connect() for _ in range(20)]
        for connection in bodies:
            connection.sendall(b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        idle = server.connect()
        idle.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        kinds = {"silent": silent, "trickling": trickling, "bodies": bodies}
        closed: dict[str, float] = {}
        text = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1000
        turn = 0
        while len(closed) < 3 and time.monotonic() - began < BODY_S:
            for connection in trickling:
                _trickle(connection, text[turn : turn + 1])
            for connection in bodies:
                _trickle(connection, b" ")
            assert server.infer("line", line_row()).status == 200
            for kind, connections in kinds.items():
                if kind not in closed and all(map(_is_closed, connections)):
                    closed[kind] = time.monotonic() - began
            turn += 1
            time.sleep(0.25)
        assert set(closed) == {"silent", "trickling", "bodies"}, closed
        assert not _is_closed(idle)  # between requests a connection may rest longer
        for connection in (*silent, *trickling, *bodies, idle):
            connection.close()


def test_callers_who_read_slowly_cost_little_and_hold_nobody_up(tmp_path: Path) -> None:
    """A hundred that ask for much and take one byte a second: at most 1 MB each."""
    with running(home_with(tmp_path / "h", "line")) as server:
        (pid,) = server.workers()
        assert len(server.ask("GET", "/openapi.json").body) > 5000
        before = _resident(pid)
        slow = []
        for _ in range(100):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.setblocking(False)
            slow.append(connection)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
        for _ in range(4):
            for connection in slow:
                with suppress(BlockingIOError):
                    connection.send(request)
                with suppress(BlockingIOError):
                    connection.recv(1)
            for _ in range(10):
                assert server.infer("line", line_row()).status == 200
            time.sleep(0.5)
        assert _resident(pid) - before < len(slow) << 20
        for connection in slow:
            connection.close()
        assert server.workers() == [pid]


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def _trickle(connection: socket.socket, data: bytes) -> None:
    try:
        connection.send(data)
    except OSError:
        return


def _is_closed(connection: socket.socket) -> bool:
    """Whether the server has said its last word on `connection`; what it said is read and dropped."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            continue
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
