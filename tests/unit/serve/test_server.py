from __future__ import annotations

import asyncio
import gzip
import os
from typing import Any

import numpy as np
import pytest

from modelyard.config import Settings
from modelyard.errors import Unauthenticated
from modelyard.serve import server as under_test
from modelyard.serve.body import Incoming
from modelyard.serve.http import PIPELINED
from modelyard.serve.server import CLOSING, STRAIGHT_BYTES, Connection, Exchange, Server

GET = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"


class Transport:
    """Keeps what is written; knows whether it was closed and how."""

    def __init__(self) -> None:
        self.data = b""
        self.is_reading = True
        self.ended = ""
        self.unsent = 0
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        self.data += data

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = "eof"

    def close(self) -> None:
        self.ended = "close"

    def abort(self) -> None:
        self.ended = "abort"


class Bench:
    """A server whose requests wait in `asked` until the test answers them."""

    def __init__(self, **settings: Any) -> None:
        self.asked: list[Exchange] = []
        self.refused: list[int] = []
        self.server = Server(
            Settings(**settings),
            handle=self.asked.append,
            on_failed=lambda exchange, error: None,
            on_refused=lambda status, rule: self.refused.append(status),
        )

    def turn(self) -> None:
        """Let the event loop run what is due."""
        self.server.loop.run_until_complete(asyncio.sleep(0))

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self.server), Transport()
        connection.connection_made(transport)
        return connection, transport


def receive(connection: Connection, data: bytes) -> None:
    """Hand `data` over as an event loop does: to whoever has the transport, in its own buffer where it has one."""
    while isinstance(incoming := getattr(connection.transport, "protocol", None), asyncio.BufferedProtocol) and data:
        place: Any = incoming.get_buffer(-1)
        taken = min(len(place), len(data))
        place[:taken] = data[:taken]
        incoming.buffer_updated(taken)
        data = data[taken:]
    if data:
        connection.data_received(data)


@pytest.fixture
def bench() -> Any:
    loop = asyncio.new_event_loop()
    made: list[Bench] = []

    async def make() -> None:
        made.append(Bench(max_connections=3))

    loop.run_until_complete(make())
    yield made[0]
    made[0].server.close()
    loop.close()


def test_answers_leave_in_the_order_of_the_requests(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET + GET.replace(b"/v2", b"/ping"))
    first, second = bench.asked
    second.reply(200, b"", b"second")
    assert transport.data == b""
    first.reply(200, b"", b"first")
    assert transport.data.index(b"first") < transport.data.index(b"second")


def test_a_head_seen_before_is_the_same_object_and_a_changed_one_is_not(bench: Bench) -> None:
    connection, _ = bench.connect()
    for data in (GET, GET, GET.replace(b"/v2", b"/v3")):
        receive(connection, data)
        bench.asked[-1].reply(200, b"", b"")
    heads = [exchange.head for exchange in bench.asked]
    assert heads[0] is heads[1]
    assert heads[2].path == "/v3"


def test_a_known_head_with_another_length_of_body_goes_the_long_way(bench: Bench) -> None:
    connection, _ = bench.connect()
    post = b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
    receive(connection, post + b"abcd")
    receive(connection, post + b"ab")
    assert len(bench.asked) == 1
    receive(connection, b"cd" + GET)
    assert [bytes(exchange.body) for exchange in bench.asked] == [b"abcd", b"abcd", b""]


def test_the_head_of_a_body_in_parts_is_known_again_and_asked_for_each_time(bench: Bench) -> None:
    asked: list[Any] = []

    def admit(head: Any) -> bool:
        asked.append(head)
        if len(asked) == 4:
            raise Unauthenticated("no longer")
        return True

    bench.server.admit_large = admit
    bench.server.on_failed = lambda exchange, error: exchange.reply(401, b"", error.message.encode())
    connection, transport = bench.connect()
    sent = POST % (len(BODY), b"") + BODY
    for cut in (60_000, sent.index(b"\r\n\r\n") + 4, 90_000):
        receive(connection, sent[:cut])
        assert connection.phase == under_test.BODY
        receive(connection, sent[cut:])
        bench.asked[-1].reply(200, b"", b"")
    heads = [exchange.head for exchange in bench.asked]
    assert heads[0] is heads[1] is heads[2] and heads == asked
    assert all(exchange.body == BODY for exchange in bench.asked)
    receive(connection, sent[:60_000])
    assert b" 401 " in transport.data and connection.phase == CLOSING and len(bench.asked) == 3


def test_a_known_head_whose_body_does_not_come_is_refused_as_any(bench: Bench) -> None:
    connection, transport = bench.connect()
    sent = POST % (len(BODY), b"") + BODY
    receive(connection, sent[:60_000])
    receive(connection, sent[60_000:])
    bench.asked[-1].reply(200, b"", b"")
    receive(connection, sent[:60_000])
    connection.eof_received()
    assert b" 400 " in transport.data and len(bench.asked) == 1


@pytest.mark.parametrize("header", [b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n"])
def test_a_head_that_is_handled_apart_is_read_anew(bench: Bench, header: bytes) -> None:
    connection, _ = bench.connect()
    receive(connection, (POST % (len(BODY), header) + BODY)[:60_000])
    assert connection.phase == under_test.BODY and not bench.server.heads


def test_known_heads_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "KNOWN_HEADS", 3)
    connection, _ = bench.connect()
    for number in range(10):
        receive(connection, GET.replace(b"/v2", b"/%d" % number))
        bench.asked[-1].reply(200, b"", b"")
    assert len(bench.server.heads) <= 3


def test_many_unanswered_requests_stop_the_reading_until_they_are_answered(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET * 1000)
    assert not transport.is_reading
    assert PIPELINED <= len(bench.asked) < PIPELINED + 50  # what came with them is not even begun
    answered = 0
    while answered < 1000:
        for exchange in bench.asked[answered:]:
            exchange.reply(200, b"", b"")
            answered += 1
        bench.turn()
    assert transport.is_reading
    assert len(bench.asked) == 1000


def test_a_refusal_waits_for_the_answers_before_it_and_closes(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET)
    receive(connection, b"nonsense\r\n\r\n")
    assert transport.data == b""
    bench.asked[0].reply(200, b"", b"answer")
    assert transport.data.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" in transport.data
    assert transport.ended == "eof"
    receive(connection, GET)
    assert len(bench.asked) == 1
    assert bench.refused == [400]


def test_a_caller_who_sends_no_more_still_gets_its_answer(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET)
    assert connection.eof_received() is True
    bench.asked[0].reply(200, b"", b"answer")
    assert transport.data.endswith(b"answer")
    assert transport.ended == "eof"


def test_a_caller_who_sends_no_more_and_would_have_to_wait_is_taken_to_be_gone(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET)
    connection.eof_received()
    bench.turn()
    assert transport.ended == "close"
    assert not bench.asked[0].is_open
    assert bench.server.in_flight == 0
    bench.asked[0].reply(200, b"", b"answer")
    assert transport.data == b""
    connection.connection_lost(None)


@pytest.mark.parametrize("begun", [GET[:-2], b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc"])
def test_a_message_that_ends_too_early_is_told_so(bench: Bench, begun: bytes) -> None:
    connection, transport = bench.connect()
    receive(connection, begun)
    assert connection.eof_received() is False
    assert transport.data.startswith(b"HTTP/1.1 400")
    silent, transport = bench.connect()
    assert silent.eof_received() is False
    assert transport.data == b""


def test_nobody_is_left_to_answer(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET)
    connection.connection_lost(None)
    assert not bench.asked[0].is_open
    bench.asked[0].reply(200, b"", b"answer")
    assert transport.data == b""


def test_http_1_0_closes_unless_asked_to_stay(bench: Bench) -> None:
    for lines, said in ((b"", b"connection: close"), (b"Connection: keep-alive\r\n", b"connection: keep-alive")):
        connection, transport = bench.connect()
        receive(connection, b"GET /v2 HTTP/1.0\r\n" + lines + b"\r\n")
        bench.asked[-1].reply(200, b"", b"")
        assert said in transport.data


def test_a_draining_server_closes_behind_each_answer(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET)
    bench.server.is_draining = True
    bench.asked[0].reply(200, b"", b"")
    assert b"connection: close" in transport.data
    assert connection.phase == CLOSING


@pytest.mark.parametrize(
    ("sent", "is_asked_early"),
    [
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\nabc", True),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", True),
        (b"POST /v2 HTTP/1.0\r\nContent-Length: 65537\r\n\r\nabc", True),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\nabc", False),
    ],
)
def test_a_large_body_is_kept_only_for_who_may_ask(bench: Bench, sent: bytes, is_asked_early: bool) -> None:
    heads: list[Any] = []

    def deny(head: Any) -> bool:
        heads.append(head)
        raise Unauthenticated("no")

    bench.server.admit_large = deny
    bench.server.on_failed = lambda exchange, error: exchange.reply(401, b"", error.message.encode())
    connection, transport = bench.connect()
    receive(connection, GET + sent)  # behind a request whose answer is still due
    assert len(heads) == is_asked_early
    assert transport.data == b""
    bench.asked[0].reply(200, b"", b"first")
    assert (connection.phase == CLOSING) == is_asked_early
    first, _, second = transport.data.partition(b"first")
    assert b" 200 " in first
    if is_asked_early:
        assert b" 401 " in second and second.count(b"connection: close") == 1 and transport.ended == "eof"
        receive(connection, b"x" * 10_000)
        assert len(heads) == len(bench.asked) == 1 and not bench.refused
    else:
        assert second == b""


BODY = bytes(range(256)) * 400
POST = b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n"


@pytest.mark.parametrize("step", [1, 37, 4095, 4096, 60_000, 1 << 20])
def test_a_body_in_parts_is_whole_and_what_follows_is_the_next_message(bench: Bench, step: int) -> None:
    connection, transport = bench.connect()
    sent = POST % (len(BODY), b"") + BODY + POST % (len(BODY), b"") + BODY + GET
    for at in range(0, len(sent), step):
        receive(connection, sent[at : at + step])
    assert [exchange.body for exchange in bench.asked] == [BODY, BODY, b""]
    for number, exchange in enumerate(bench.asked):
        exchange.reply(200, b"", b"answer %d" % number)
    assert [transport.data.count(b"answer %d" % number) for number in range(3)] == [1, 1, 1]


def test_a_body_in_small_parts_takes_no_more_memory_than_its_bytes(bench: Bench) -> None:
    connection, _ = bench.connect()
    receive(connection, POST % (len(BODY), b""))
    few = len(BODY) // 4 - 1
    for at in range(few):
        receive(connection, BODY[at : at + 1])
    assert [len(part) for part in connection._parts] == [few] and not connection._body
    for at in range(few, len(BODY) - 1):
        receive(connection, BODY[at : at + 1])
    assert not bench.asked
    assert not connection._parts and len(connection._body) == len(BODY)


def test_a_body_of_which_enough_has_come_goes_straight_into_its_place_and_the_next_message_does_not(bench: Bench) -> None:
    connection, transport = bench.connect()
    begun = POST % (len(BODY), b"Inference-Header-Content-Length: 3\r\n")
    for size, is_straight in ((len(BODY) // 4 - 1, False), (len(BODY) // 4, True), (len(BODY) - STRAIGHT_BYTES + 1, False)):
        receive(connection, begun + BODY[:size])
        assert isinstance(transport.protocol, Incoming) == is_straight
        receive(connection, BODY[size:] + GET)
        assert transport.protocol in {None, connection}
    assert [exchange.body for exchange in bench.asked] == [BODY, b""] * 3
    straight = bench.asked[2].body
    assert np.frombuffer(memoryview(straight)[3:-5], np.float64).flags.aligned


def test_what_goes_wrong_with_a_body_that_goes_straight_is_answered_as_ever(bench: Bench) -> None:
    begun = POST % (len(BODY), b"") + BODY[: len(BODY) // 3]

    def ended(connection: Connection) -> None:
        connection.transport.protocol.eof_received()

    def slow(connection: Connection) -> None:
        connection.since_s -= 60
        connection.sweep(connection.since_s + 60)

    for break_off, status in ((ended, b"400"), (slow, b"")):
        connection, transport = bench.connect()
        receive(connection, begun)
        break_off(connection)
        assert transport.data[9:12] == status
    receive(connection, b"x")
    slow(connection)
    assert transport.data[9:12] == b"408"
    receive(connection, bytes(under_test.LINGER_BYTES))
    assert transport.ended == "eof"
    receive(connection, bytes(len(BODY)))
    assert transport.ended == "abort" and not bench.asked
    transport.protocol.connection_lost(None)
    assert connection.transport is None and connection not in bench.server.connections
    transport.protocol.buffer_updated(1)


def test_inside_tls_no_body_goes_straight(bench: Bench) -> None:
    connection, transport = bench.connect()
    bench.server.tls = object()  # type: ignore[assignment]
    receive(connection, POST % (len(BODY), b"") + BODY[: len(BODY) // 3])
    assert transport.protocol is None
    receive(connection, BODY[len(BODY) // 3 :])
    assert [exchange.body for exchange in bench.asked] == [BODY]


def test_a_coded_body_that_goes_straight_is_read_or_refused(bench: Bench) -> None:
    packed = gzip.compress(os.urandom(200_000))
    for sent, status in ((packed, b""), (packed[:-1] + b"!", b"400")):
        connection, transport = bench.connect()
        receive(connection, POST % (len(sent), b"Content-Encoding: gzip\r\n") + sent[:100_000])
        assert isinstance(transport.protocol, Incoming)
        receive(connection, sent[100_000:])
        assert transport.data[9:12] == status
    assert [len(exchange.body) for exchange in bench.asked] == [200_000]


def test_writing_that_stalls_holds_up_reading_while_a_body_goes_straight(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, POST % (len(BODY), b"") + BODY[: len(BODY) // 3])
    transport.protocol.pause_writing()
    assert not transport.is_reading
    transport.protocol.resume_writing()
    assert transport.is_reading


def test_a_coded_body_in_parts_is_read_or_refused(bench: Bench) -> None:
    packed = gzip.compress(os.urandom(100_000))
    for sent, status in ((packed, b""), (packed[:-1] + b"!", b"400")):
        connection, transport = bench.connect()
        receive(connection, POST % (len(sent), b"Content-Encoding: gzip\r\n") + sent[:50_000])
        receive(connection, sent[50_000:])
        assert transport.data[9:12] == status
    assert [len(exchange.body) for exchange in bench.asked] == [100_000]


def test_nothing_is_read_behind_the_body_of_a_last_message(bench: Bench) -> None:
    connection, _ = bench.connect()
    receive(connection, POST % (len(BODY), b"Connection: close\r\n") + BODY[:50_000])
    receive(connection, BODY[50_000:] + GET)
    assert [exchange.body for exchange in bench.asked] == [BODY]


def test_a_body_of_known_length_that_comes_slowly_is_refused_and_one_that_comes_is_not(bench: Bench) -> None:
    for part, is_refused in ((b"x", True), (bytes(400_000), False)):
        connection, _ = bench.connect()
        receive(connection, POST % (1 << 20, b"") + part)
        connection.since_s -= 60
        connection.sweep(connection.since_s + 60)
        assert (connection.phase == CLOSING) == is_refused


@pytest.mark.parametrize("framing", [b"Content-Length: 70000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % 70_000])
def test_where_anybody_may_ask_a_body_is_small(bench: Bench, framing: bytes) -> None:
    bench.server.admit_large = lambda head: head.path != "/ping"
    for path, status in ((b"/ping", b"413"), (b"/v2", b"")):
        connection, transport = bench.connect()
        receive(connection, b"POST %b HTTP/1.1\r\nHost: x\r\n%b" % (path, framing))
        receive(connection, b"x" * 69_000)
        assert transport.data[9:12] == status


def test_one_connection_too_many_is_told_so(bench: Bench) -> None:
    for _ in range(3):
        bench.connect()
    _, transport = bench.connect()
    assert transport.data.startswith(b"HTTP/1.1 503")
    assert transport.ended == "close"


@pytest.mark.parametrize(
    ("sent", "age_s", "status"),
    [
        (b"", 9, None),
        (b"GET /v2 HTTP/1.1\r\nX: ", 11, b"408"),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc", 9, None),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc", 11, b"408"),
    ],
)
def test_who_overstays_is_told_so_and_let_go(bench: Bench, sent: bytes, age_s: float, status: bytes | None) -> None:
    connection, transport = bench.connect()
    if sent:
        receive(connection, sent)
    connection.sweep(connection.since_s + age_s)
    assert (transport.data.split(b" ")[1] if transport.data else None) == status
    if status:
        connection.sweep(connection.since_s + 3)
        assert transport.ended == "abort"


def test_who_asked_nothing_is_let_go_without_a_word(bench: Bench) -> None:
    """It may be about to ask, and would take the word for its answer."""
    connection, transport = bench.connect()
    connection.sweep(connection.since_s + 9)
    assert transport.ended == ""
    connection.sweep(connection.since_s + 11)
    assert (transport.data, transport.ended) == (b"", "eof")
    connection.sweep(connection.since_s + 3)
    assert transport.ended == "abort"


def test_a_connection_at_rest_is_closed_after_its_time_and_not_before(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET)
    bench.asked[0].reply(200, b"", b"")
    connection.sweep(connection.since_s + 74)
    assert transport.ended == ""
    connection.sweep(connection.since_s + 76)
    assert transport.ended == "eof"


def test_who_does_not_read_is_not_read_from_and_let_go(bench: Bench) -> None:
    connection, transport = bench.connect()
    connection.pause_writing()
    assert not transport.is_reading
    connection.resume_writing()
    assert transport.is_reading
    connection.pause_writing()
    connection.sweep(connection.since_s + 31)
    assert transport.ended == "abort"


def test_who_reads_slowly_gets_the_whole_of_its_last_answer(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    bench.asked[0].reply(200, b"", b"")
    assert transport.ended == "eof"
    for transport.unsent in (200_000, 150_000, 100_000, 50_000):
        connection.sweep(connection.since_s + 29)
        assert connection.is_sending and bench.server.is_asked
        assert transport.ended == "eof"
    transport.unsent = 0
    connection.sweep(connection.since_s + 29)
    assert transport.ended == "eof"  # the other side has its moment, from the last byte on
    assert not bench.server.is_asked
    connection.sweep(connection.since_s + 3)
    assert transport.ended == "abort"


@pytest.mark.parametrize("is_last", [True, False])
def test_who_reads_next_to_nothing_is_let_go(bench: Bench, is_last: bool) -> None:
    connection, transport = bench.connect()
    if is_last:
        receive(connection, b"GET /v2 HTTP/1.0\r\n\r\n")
        bench.asked[0].reply(200, b"", b"")
    else:
        connection.pause_writing()
    transport.unsent = 200_000
    connection.sweep(connection.since_s + 1)
    begun_s = connection.since_s
    for second in range(2, 31, 4):
        transport.unsent -= 1000
        connection.sweep(begun_s + second)
    assert transport.ended != "abort"
    connection.sweep(begun_s + 31)
    assert transport.ended == "abort"


def test_who_sends_no_more_and_does_not_read_is_let_go_in_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.serve.server.STALLED_WRITE_S", 0.05)
    connection, transport = bench.connect()
    receive(connection, GET)
    transport.unsent = 1000
    connection.eof_received()
    bench.turn()
    assert transport.ended == "close"
    bench.server.loop.run_until_complete(asyncio.sleep(0.1))
    assert transport.ended == "abort"


def test_what_a_caller_asks_who_does_not_read_waits_until_it_reads(bench: Bench) -> None:
    connection, _ = bench.connect()
    paused = bench.server.handle

    def handle(exchange: Exchange) -> None:
        paused(exchange)
        exchange.reply(200, b"", b"answer")
        connection.pause_writing()  # the answer fills what may wait to be taken

    bench.server.handle = handle
    receive(connection, GET * 10)
    assert len(bench.asked) == 1
    for turn in range(2, 11):
        connection.resume_writing()
        assert len(bench.asked) == turn
    connection.resume_writing()
    assert bench.server.in_flight == 0 and connection.is_reading


def test_a_body_is_held_to_its_rate_all_the_way(bench: Bench) -> None:
    connection, transport = bench.connect()
    receive(connection, b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b" " * 2_000_000)
    for _ in range(3):
        connection.sweep(connection.since_s + 10.5)
        if transport.data:
            break
        receive(connection, b" " * 100)
    assert transport.data.startswith(b"HTTP/1.1 408")
    connection, transport = bench.connect()
    receive(connection, b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n")
    for _ in range(20):
        receive(connection, b" " * 11_000)
        connection.sweep(connection.since_s + 10.5)
    assert transport.data == b""
