"""Bytes that are no good HTTP: 4xx and close, or one reading; the server answers the next caller all the same."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator

import pytest

from serving import Answer, Running, home_with, line_row, read_answer, running

pytestmark = pytest.mark.system
INFER = b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n"
BODY = json.dumps({"inputs": line_row()}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line")) as server:
        yield server


@pytest.fixture(autouse=True)
def still_well(server: Running) -> Iterator[None]:
    before = server.workers()
    yield
    assert server.is_well()
    assert server.workers() == before


def refused(answers: list[Answer], *statuses: int) -> None:
    """One refusal, after which the connection was closed."""
    assert len(answers) == 1, answers
    assert answers[0].status in statuses, answers
    assert answers[0].headers["connection"] == "close"
    assert answers[0].json()["error"]


SECOND = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMUGGLED = {
    "length and coding": INFER + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": INFER + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": INFER + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "two equal lengths": INFER + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": INFER + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": INFER + b"Content-Length: +4\r\n\r\nabcd",
    "a negative length": INFER + b"Content-Length: -4\r\n\r\nabcd",
    "a hexadecimal length": INFER + b"Content-Length: 0x4\r\n\r\nabcd",
    "an empty length": INFER + b"Content-Length: \r\n\r\nabcd",
    "an endless length": INFER + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nabcd",
    "a length in disguise": INFER + b"Content_Length: 4\r\n\r\nabcd",
    "a coding in disguise": INFER + b"Transfer_Encoding: chunked\r\nContent-Length: 4\r\n\r\nabcd",
    "a space before the colon": INFER + b"Content-Length : 4\r\n\r\nabcd",
    "a folded header": INFER + b"Content-Length: 4\r\n X: y\r\n\r\nabcd",
    "a bare line feed": b"GET /v2 HTTP/1.1\nHost: localhost\n\n",
    "a bare carriage return": b"GET /v2 HTTP/1.1\rHost: localhost\r\r",
    "a NUL in a value": GET + b"X: a\x00b\r\n\r\n",
    "coding twice": INFER + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding not last": INFER + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a further coding": INFER + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": INFER + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"POST /v2/models/line/infer HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk size": INFER + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a signed chunk size": INFER + b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "an overflowing chunk size": INFER + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\na\r\n0\r\n\r\n",
    "a chunk longer than its size": INFER + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "a length in a trailer": INFER + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 4\r\n\r\n",
    "a coding in a trailer": INFER + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no host": b"GET /v2 HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n",
    "HTTP/0.9": b"GET /v2\r\n\r\n",
    "HTTP/2.0": b"GET /v2 HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "HTTP/1.9": b"GET /v2 HTTP/1.9\r\nHost: localhost\r\n\r\n",
    "half the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "leading lines": b"\r\n" * 1000 + GET + b"\r\n",
    "a method of its own": b"BREW /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method in small letters": b"get /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an asterisk": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another protocol": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a header without a name": GET + b": x\r\n\r\n",
    "a header without a colon": GET + b"nonsense\r\n\r\n",
    "a fragment": b"GET /v2#x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target that is no path": b"GET v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an odd expectation": INFER + b"Content-Length: 4\r\nExpect: 200-ok\r\n\r\n",
    "an odd timeout": GET + b"X-Request-Timeout: soon\r\n\r\n",
    "an odd priority": GET + b"X-Priority: mine\r\n\r\n",
    "an odd JSON length": INFER + b"Inference-Header-Content-Length: -1\r\nContent-Length: 4\r\n\r\nabcd",
}


@pytest.mark.parametrize("data", SMUGGLED.values(), ids=SMUGGLED)
def test_what_two_parsers_could_read_in_two_ways_is_refused_and_what_follows_is_never_answered(server: Running, data: bytes) -> None:
    refused(server.send(data + SECOND), 400, 417, 501, 505)


@pytest.mark.parametrize(
    "data", [GET + b"X-Odd: \xff\xfe\r\n", GET + b"x_underscore: 1\r\n", b"GET http://elsewhere/v2 HTTP/1.1\r\nHost: localhost\r\n"]
)
def test_what_is_odd_but_has_one_reading_is_answered(server: Running, data: bytes) -> None:
    (answer,) = server.send(data + b"Connection: close\r\n\r\n")
    assert answer.status == 200


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("split", [37, 150, 10_000])
def test_an_offer_of_http_2_is_ignored_and_what_is_behind_it_has_one_reading(server: Running, split: int) -> None:
    """Java's own client makes one with every request over a plain connection; a body behind it is the request's."""
    given = b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\n" + OFFER
    data = (given + b"Content-Length: 14\r\n\r\n" + b'{"ready":true}') * 2
    data += given + b"Transfer-Encoding: chunked\r\n\r\ne\r\n" + b'{"ready":true}' + b"\r\n0\r\n\r\n"
    data += given.replace(b"Upgrade, ", b"close, Upgrade, ") + b"Content-Length: 3\r\n\r\n[1]" + GET + b"\r\n"
    with server.connect() as connection, connection.makefile("rb") as stream:
        for at in range(0, len(data), split):
            connection.sendall(data[at : at + split])
            time.sleep(0.005)
        answers = [read_answer(stream) for _ in range(4)]
        assert read_answer(stream) is None
    assert [answer.status for answer in answers] == [200, 200, 200, 400]
    assert "got `array`" in answers[-1].json()["error"]


@pytest.mark.parametrize("length", [b"Content-Length: 4\r\nContent-Length: 5\r\n", b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"])
def test_an_offer_of_http_2_hides_nothing_from_the_rules(server: Running, length: bytes) -> None:
    refused(server.send(INFER + OFFER + length + b"\r\nabcd" + SECOND), 400)


CHUNKED = b"POST /ping HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"0" * 40 + b"4\r\nabcd\r\n" + b"0" * 40 + b"\r\n\r\n",
        CHUNKED + b'4;a=b;c="d"\r\nabcd\r\n0\r\n\r\n',
        CHUNKED + b"4\r\nabcd\r\n0\r\nHost: y\r\nExpect: x\r\nX-Priority: x\r\nAuthorization: Bearer x\r\n\r\n",
        CHUNKED + b"0\r\n\r\n",
    ],
    ids=["leading zeros", "chunk extensions", "trailers that would mean much in a header", "no chunk"],
)
def test_a_chunked_body_has_one_end_whatever_its_frame_holds(server: Running, data: bytes) -> None:
    """The request behind it is read as one: nothing of the frame leaked into it, and nothing of it was eaten."""
    answers = server.send(data + b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[1].json() == {"live": True}


def test_endless_trailers_are_cut_off(server: Running) -> None:
    refused(server.send(CHUNKED + b"0\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"\r\n"), 431)
    refused(server.send(CHUNKED + b"0\r\nX: " + b"a" * (1 << 20)), 431)
    refused(server.send(CHUNKED + b"4;x=" + b"a" * (1 << 20)), 431)


def test_a_body_that_ends_early_or_late_is_no_other_request(server: Running) -> None:
    """What is behind a last message is not read; what is missing of a body is not taken from elsewhere."""
    last = b"POST /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd"
    assert [answer.status for answer in server.send(last + SECOND)] == [200]
    with server.connect() as connection:
        connection.sendall(b"POST /ping HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400\r\n\r\nabcd")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1") == 1


def test_a_known_head_is_not_taken_for_one_inside_another_message(server: Running) -> None:
    """The short way for heads seen before must not be open while a header or body is half read."""
    known = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with server.connect() as connection, connection.makefile("rb") as stream:
        for _ in range(3):
            connection.sendall(known)
            assert b"200" in stream.readline()
            while stream.readline() != b"\r\n":
                pass
            stream.read(13)
        connection.sendall(b"POST /ping HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(known))
        time.sleep(0.1)
        connection.sendall(known)  # the body, though it looks like a request
        assert connection.recv(4096).count(b"HTTP/1.1") == 1
    with server.connect() as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nX-Part: ")
        time.sleep(0.1)
        connection.sendall(known)  # the rest of a header value; this message has its Host all the same
        assert b'"name":"modelyard"' in connection.recv(4096)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GET + b"X: " + b"a" * (17 << 10) + b"\r\n\r\n", 431),
        (GET + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"\r\n", 431),
        (GET + b"X: " + b"a" * (1 << 20), 431),
        (b"GET /" + b"a" * (200 << 10) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (INFER + b"Content-Length: 5000000\r\n\r\n", 413),
        (INFER + b"Inference-Header-Content-Length: 10\r\nContent-Length: 20000000\r\n\r\n", 413),
        (INFER + b"Inference-Header-Content-Length: 5000000\r\nContent-Length: 6000000\r\n\r\n", 413),
        (INFER + b"Content-Type: application/octet-stream\r\nContent-Length: 5000000\r\n\r\n", 413),
        (INFER + b"Content-Type: application/jsonlines\r\nContent-Length: 5000000\r\n\r\n", 413),
        (INFER + b"Transfer-Encoding: chunked\r\n\r\n" + (b"%x\r\n" % (1 << 20) + b" " * (1 << 20) + b"\r\n") * 5, 413),
        (INFER + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 70_000, 413),
    ],
    ids=[
        "long value",
        "many fields",
        "endless value",
        "long target",
        "long body",
        "long binary body",
        "long JSON before binary",
        "JSON as bytes",
        "JSON lines",
        "long chunks",
        "many chunks",
    ],
)
def test_sizes_above_their_limits_are_refused_before_they_are_held(server: Running, data: bytes, status: int) -> None:
    refused(server.send(data), status)


def test_the_refusal_of_a_long_body_names_the_forms_that_carry_more(server: Running) -> None:
    (answer,) = server.send(INFER + b"Content-Length: 5000000\r\n\r\n")
    assert "binary" in answer.json()["error"]
    assert "Arrow" in answer.json()["error"]


def test_sizes_at_their_limits_pass(server: Running) -> None:
    value = b"a" * (15 << 10)
    assert server.send(GET + b"Connection: close\r\nX: " + value + b"\r\n\r\n")[0].status == 200
    body = b" " * ((4 << 20) - len(BODY)) + BODY
    assert server.send(INFER + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)[0].status == 200


def test_a_compressed_body_is_limited_by_what_it_becomes(server: Running) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    assert len(bomb) < 100_000
    refused(server.send(INFER + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb), 413)


@pytest.mark.parametrize("coding", [b"br", b"gzip, gzip", b"x-gzip-not"])
def test_other_codings_are_refused(server: Running, coding: bytes) -> None:
    refused(server.send(INFER + b"Content-Encoding: %b\r\nContent-Length: 3\r\n\r\nabc" % coding), 415)


def test_a_broken_or_doubled_gzip_stream_is_refused(server: Running) -> None:
    for body in (b"not gzip at all", gzip.compress(BODY)[:-4], gzip.compress(BODY) * 2):
        refused(server.send(INFER + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body), 400)


def test_an_endless_header_is_cut_off_and_not_kept(server: Running) -> None:
    (pid,) = server.workers()
    before = _resident(pid)
    sent = 0
    with server.connect() as connection:
        try:
            connection.sendall(GET + b"X: ")
            for _ in range(200):
                connection.sendall(b"a" * (1 << 20))
                sent += 1
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 200
    assert _resident(pid) - before < 5 << 20


@pytest.mark.parametrize("begun", [b"1;x=", b"0\r\nX: "], ids=["a chunk's extension", "a trailer"])
def test_what_is_no_body_is_limited_as_a_header_is(server: Running, begun: bytes) -> None:
    refused(server.send(INFER + b"Transfer-Encoding: chunked\r\n\r\n" + begun + b"a" * 60_000), 431)
    small = INFER + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(BODY), BODY)
    assert server.send(small + b"0;x=%b\r\nX: %b\r\n\r\n" % (b"a" * 4000, b"b" * 4000))[0].status == 200


def test_a_body_sent_by_single_bytes_costs_what_it_holds(server: Running) -> None:
    (pid,) = server.workers()
    before = _resident(pid)
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(INFER + b"Content-Length: 4000000\r\n\r\n")
        for _ in range(20_000):
            connection.send(b" ")
        assert _resident(pid) - before < 4 << 20


def test_ids_from_outside_cannot_break_out_of_a_header(server: Running) -> None:
    answer = server.infer("line", line_row(), id="a\r\nX-Injected: 1")
    assert answer.status == 200
    assert "x-injected" not in answer.headers
    assert answer.json()["id"] == "a\r\nX-Injected: 1"
    assert server.infer("line", line_row(), id="é" * 200).status == 200
    assert server.infer("line", line_row(), id="a" * 300).status == 400


@pytest.mark.parametrize(
    "path", ["/v2/models/../../etc/passwd", "/v2/models/%2e%2e%2f%2e%2e", "/v2/models/line%00", "/v2//models", "/%ff", "/v2/models/line/versions/1e9"]
)
def test_odd_paths_are_unknown_routes(server: Running, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status == 404
    assert "etc" not in answer.json()["error"]


def test_a_wrong_method_names_the_right_one(server: Running) -> None:
    answer = server.ask("DELETE", "/v2/models/line")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_a_caller_who_leaves_takes_nothing_with_it(server: Running) -> None:
    for _ in range(50):
        with server.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(INFER + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)


def test_answers_that_nobody_reads_are_not_heaped_up(server: Running) -> None:
    (pid,) = server.workers()
    before = _resident(pid)
    with server.connect() as connection:
        connection.setblocking(False)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        sent = 0
        until = time.monotonic() + 3
        while time.monotonic() < until:
            try:
                sent += connection.send(request)
            except BlockingIOError:
                time.sleep(0.05)
        assert _resident(pid) - before < 4 << 20


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096
