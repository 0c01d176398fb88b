"""POST within bounds, against a real server: what it says becomes one of two errors, and it leads nowhere else."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from certificates import Authority
from receivers import Receiver, receiver

from modelyard.errors import DeadlineExceeded, InvalidConfig, Unavailable
from modelyard.monitor.alerts.post import ANSWER_BYTES, post, require_url, shown


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def test_it_sends_and_says_what_came_back(server: Receiver) -> None:
    answer = post(f"{server.url}/hook?a=b", b"{}", headers={"x-a": "1"})
    assert (answer.status, answer.body) == (200, b"ok")
    (asked,) = server.asked
    assert (asked.path, asked.body, asked.headers["x-a"], asked.headers["content-type"]) == ("/hook?a=b", b"{}", "1", "application/json")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_what_may_go_well_later_is_unavailable(server: Receiver, status: int) -> None:
    server.answer = status
    with pytest.raises(Unavailable, match=str(status)):
        post(server.url, b"", headers={})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413])
def test_what_is_refused_is_the_settings(server: Receiver, status: int) -> None:
    server.answer = status
    with pytest.raises(InvalidConfig, match=str(status)):
        post(server.url, b"", headers={})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server: Receiver, status: int) -> None:
    server.answer = status
    with pytest.raises(InvalidConfig, match="redirect"):
        post(server.url, b"", headers={})
    assert [asked.path for asked in server.asked] == ["/"]


def test_no_proxy_of_the_environment_is_used(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(server.url, b"", headers={}).status == 200


def test_an_answer_is_read_up_to_a_limit(server: Receiver) -> None:
    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"x" * (4 * ANSWER_BYTES))

    server.answer = flood
    assert len(post(server.url, b"", headers={}).body) == ANSWER_BYTES


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
    try:
        while True:
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass


def test_who_trickles_does_not_hold_it_for_ever(server: Receiver) -> None:
    server.answer = trickle
    with pytest.raises(DeadlineExceeded):
        post(server.url, b"", headers={}, timeout_s=0.3)


def test_who_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeadlineExceeded):
        post(f"http://127.0.0.1:{silent.getsockname()[1]}", b"", headers={}, timeout_s=0.2)


def test_who_is_not_there_or_talks_nonsense_is_unavailable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="reached"):
            post(f"http://127.0.0.1:{bound.getsockname()[1]}", b"", headers={})
    with socket.create_server(("127.0.0.1", 0)) as other:

        def nonsense() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=nonsense)
        thread.start()
        with pytest.raises(Unavailable):
            post(f"http://127.0.0.1:{other.getsockname()[1]}", b"", headers={})
        thread.join()


def test_a_certificate_is_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.server("server", names=("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with receiver(context) as server:
        url = f"https://localhost:{server.port}/"
        with pytest.raises(Unavailable, match="trusted"):
            post(url, b"", headers={})
        assert post(url, b"", headers={}, ca_file=str(authority.path)).status == 200
        with pytest.raises(Unavailable, match="trusted"):
            post(f"https://127.0.0.1:{server.port}/", b"", headers={}, ca_file=str(authority.path))
        with pytest.raises(InvalidConfig, match="holds no certificates"):
            post(url, b"", headers={}, ca_file=str(tmp_path / "none"))


@pytest.mark.parametrize(
    "url", ["", "ftp://h/", "file:///etc/passwd", "http:///x", "//h/x", "http://h:99999/", "http://h:0/", "http://u:p@h/", "http://u@h/"]
)
def test_a_url_is_http_with_a_host_and_without_a_password(url: str) -> None:
    with pytest.raises(InvalidConfig):
        require_url(url)


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert shown("https://hooks.example/services/T0/B0/XXX?token=y") == "https://hooks.example/…"
    assert shown("http://[::1]:9093") == "http://[::1]:9093/…"


def test_no_message_holds_the_url(server: Receiver) -> None:
    server.answer = 500
    with pytest.raises(Unavailable) as caught:
        post(f"{server.url}/services/SECRET", b"", headers={})
    assert "SECRET" not in caught.value.message
