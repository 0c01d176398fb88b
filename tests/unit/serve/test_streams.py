"""Connections and streams against the rules of RFC 9113, frame by frame and without a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from h2 import fields, message
from h2_server import Served, served

from modelyard.serve import http2, streams
from modelyard.serve.http2 import frame


def looped(test: Callable[[], None]) -> Callable[[], None]:
    """Run `test` where there is an event loop."""

    def run() -> None:
        async def inside() -> None:
            test()

        asyncio.run(inside())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def goaway(it: Served) -> int | None:
    it.frames()
    return None if it.caller.goaway is None else it.caller.goaway.code


def resets(it: Served, number: int) -> list[int]:
    return [each.code for each in it.frames() if each.kind == http2.RST_STREAM and each.stream == number]


@looped
def test_it_says_its_limits_first_and_acknowledges() -> None:
    with served() as it:
        first, second, third, *_ = it.frames()
        assert first.kind == http2.SETTINGS and not first.flags
        said = dict(http2.read_settings(first.payload))
        assert said[http2.MAX_CONCURRENT_STREAMS] == streams.http2.STREAMS
        assert second.kind == http2.WINDOW_UPDATE
        assert third == (http2.SETTINGS, http2.ACK, 0, b"")


@looped
def test_a_call_is_answered_in_one_write() -> None:
    with served() as it:
        number = it.caller.call(b"hello", fields("/u"))
        (call,) = it.calls
        assert call.body == b"hello"
        before = len(it.wire.sent)
        call.reply(b"world")
        it.frames()
        assert it.caller.body(number) == message(b"world")
        assert it.status(number) == "0"
        assert len(it.wire.sent) > before
        assert not it.connection.streams


@looped
def test_bytes_may_come_one_by_one() -> None:
    it = Served()
    sent: list[bytes] = []
    it.caller.send = sent.append
    it.caller.greet()
    it.caller.call(b"hello", fields("/u"))
    for byte in b"".join(sent):
        it.connection.data_received(bytes((byte,)))
    assert [call.body for call in it.calls] == [b"hello"]
    it.server.close()


def breaches() -> dict[str, tuple[Callable[[Any], Any], int]]:
    """Ways of breaking the protocol that end the connection, and the code that they get."""
    send = {
        "data on no stream": (frame(http2.DATA, 0, 0, b"x"), http2.PROTOCOL_ERROR),
        "data on a stream not opened": (frame(http2.DATA, 0, 9, b"x"), http2.PROTOCOL_ERROR),
        "an even stream": (frame(http2.HEADERS, http2.END_HEADERS, 2, b"\x82"), http2.PROTOCOL_ERROR),
        "a stream without a number": (frame(http2.HEADERS, http2.END_HEADERS, 0, b"\x82"), http2.PROTOCOL_ERROR),
        "a continuation of nothing": (frame(http2.CONTINUATION, http2.END_HEADERS, 1, b""), http2.PROTOCOL_ERROR),
        "a frame inside a header block": (frame(http2.HEADERS, 0, 1, b"\x82") + frame(http2.PING, 0, 0, bytes(8)), http2.PROTOCOL_ERROR),
        "a block that cannot be decoded": (frame(http2.HEADERS, http2.END_HEADERS, 1, b"\xbe"), http2.COMPRESSION_ERROR),
        "more padding than frame": (frame(http2.HEADERS, http2.END_HEADERS | http2.PADDED, 1, b"\x09a"), http2.PROTOCOL_ERROR),
        "a promise": (frame(http2.PUSH_PROMISE, http2.END_HEADERS, 1, bytes(4)), http2.PROTOCOL_ERROR),
        "a short ping": (frame(http2.PING, 0, 0, b"x"), http2.FRAME_SIZE_ERROR),
        "a ping on a stream": (frame(http2.PING, 0, 1, bytes(8)), http2.PROTOCOL_ERROR),
        "settings on a stream": (frame(http2.SETTINGS, 0, 1, b""), http2.PROTOCOL_ERROR),
        "an acknowledgement with content": (frame(http2.SETTINGS, http2.ACK, 0, bytes(6)), http2.FRAME_SIZE_ERROR),
        "a window that does not grow": (http2.window_update(0, 0), http2.PROTOCOL_ERROR),
        "a window that overflows": (http2.window_update(0, http2.WINDOW_LIMIT), http2.FLOW_CONTROL_ERROR),
        "a window of three bytes": (frame(http2.WINDOW_UPDATE, 0, 0, b"abc"), http2.FRAME_SIZE_ERROR),
        "a reset of a stream not opened": (http2.reset(9, 0), http2.PROTOCOL_ERROR),
        "a short goaway": (frame(http2.GOAWAY, 0, 0, b""), http2.FRAME_SIZE_ERROR),
        "a goaway on a stream": (frame(http2.GOAWAY, 0, 1, bytes(8)), http2.PROTOCOL_ERROR),
        "a priority of no stream": (frame(http2.PRIORITY, 0, 0, bytes(5)), http2.PROTOCOL_ERROR),
        "a frame above the limit": (frame(http2.DATA, 0, 1, bytes(http2.FRAME_BYTES + 1)), http2.FRAME_SIZE_ERROR),
    }
    return {name: (lambda it, data=data: it.caller.send(data), code) for name, (data, code) in send.items()}


@pytest.mark.parametrize("name", breaches())
def test_a_breach_ends_the_connection_and_says_why(name: str) -> None:
    breach, code = breaches()[name]

    async def run() -> None:
        with served() as it:
            breach(it)
            assert goaway(it) == code
            assert it.wire.is_closed
            assert it.refusals

    asyncio.run(run())


@looped
def test_a_first_frame_that_is_not_settings_ends_the_connection() -> None:
    it = Served()
    it.caller.send(http2.PREFACE + frame(http2.PING, 0, 0, bytes(8)))
    assert goaway(it) == http2.PROTOCOL_ERROR
    other = Served()
    other.caller.send(b"GET / HTTP/1.1\r\n\r\n")
    assert goaway(other) == http2.PROTOCOL_ERROR
    for each in (it, other):
        each.server.close()


@looped
def test_frames_without_meaning_here_are_ignored() -> None:
    with served() as it:
        it.caller.send(frame(77, 255, 5, b"whatever") + frame(http2.PRIORITY, 0, 3, bytes(5)) + frame(http2.GOAWAY, 0, 0, bytes(8))[:0])
        number = it.caller.call(b"", fields("/u"))
        it.calls[0].reply(b"")
        assert it.status(number) == "0"


@looped
def test_padding_counts_and_is_given_back() -> None:
    with served() as it:
        number = it.caller.begin(fields("/u"))
        padded = bytes((200,)) + message(b"hello") + bytes(200)
        it.caller.send(frame(http2.DATA, http2.PADDED, number, padded))
        stream = it.connection.streams[number]
        assert stream.room == http2.STREAM_WINDOW - len(message(b"hello"))
        it.caller.send(frame(http2.DATA, http2.END_STREAM, number))
        assert it.calls[0].body == b"hello"


@looped
def test_a_stream_that_sends_more_than_its_window_is_broken_off() -> None:
    with served() as it:
        other = it.caller.begin(fields("/u"))
        it.connection.streams[other].room = 3
        it.caller.data(other, b"12345", ends=False)
        assert resets(it, other) == [http2.FLOW_CONTROL_ERROR]
        assert goaway(it) is None


@looped
def test_answers_wait_for_the_windows_and_take_turns() -> None:
    with served() as it:
        it.caller.send(http2.settings({http2.INITIAL_WINDOW_SIZE: 10}))
        ids = [it.caller.call(b"", fields("/u")) for _ in range(2)]
        for call in it.calls:
            call.reply(b"x" * 25)
        it.frames()
        assert [len(it.caller.body(number)) for number in ids] == [10, 10]
        assert it.connection.queued_bytes == 40
        it.caller.send(http2.window_update(ids[0], 12))
        it.frames()
        assert [len(it.caller.body(number)) for number in ids] == [22, 10]
        it.caller.send(http2.settings({http2.INITIAL_WINDOW_SIZE: 40}))
        it.frames()
        assert [it.caller.body(number) for number in ids] == [message(b"x" * 25)] * 2
        assert it.status(ids[1]) == "0"
        assert it.connection.queued_bytes == 0 and not it.connection.streams


@looped
def test_of_a_setting_said_twice_in_a_frame_the_last_counts() -> None:
    """Applying each of the 10,000 pairs that a frame may hold to each of 256 streams would keep the loop for a quarter of a second."""
    with served() as it:
        number = it.caller.begin(fields("/u"))
        it.caller.send(http2.window_update(number, 100))
        pairs = [(http2.INITIAL_WINDOW_SIZE, http2.WINDOW_LIMIT), (http2.INITIAL_WINDOW_SIZE, 40)]
        it.caller.send(frame(http2.SETTINGS, 0, 0, b"".join(http2.settings({name: value})[9:] for name, value in pairs)))
        it.frames()
        assert it.caller.goaway is None
        assert it.connection.streams[number].window == 140


@looped
def test_a_window_that_shrinks_below_zero_holds_up() -> None:
    with served() as it:
        number = it.caller.call(b"", fields("/u"))
        it.caller.send(http2.settings({http2.INITIAL_WINDOW_SIZE: 0}))
        it.calls[0].reply(b"abc")
        it.frames()
        assert it.caller.body(number) == b""
        it.caller.send(http2.window_update(number, 100))
        it.frames()
        assert it.caller.body(number) == message(b"abc")


@looped
def test_requests_wait_while_answers_cannot_leave() -> None:
    with served() as it:
        it.caller.send(http2.settings({http2.INITIAL_WINDOW_SIZE: 0}))
        first = it.caller.call(b"", fields("/u"))
        it.calls[0].reply(bytes(streams.OUT_BYTES + 1))
        it.caller.call(b"", fields("/u"))
        assert len(it.calls) == 1
        it.caller.send(http2.window_update(0, 1 << 24) + http2.window_update(first, 1 << 24))
        assert len(it.calls) == 2


@looped
def test_requests_wait_where_the_answers_of_those_in_work_would_be_too_much() -> None:
    with served() as it:
        it.caller.send(http2.settings({http2.INITIAL_WINDOW_SIZE: http2.WINDOW_LIMIT}) + http2.window_update(0, 1 << 30))
        size = 100 << 10
        it.caller.call(b"", fields("/u"))
        it.calls.pop().reply(bytes(size))
        numbers = [it.caller.call(b"%d" % at, fields("/u")) for at in range(10)]
        assert len(it.calls) == 3  # one more would be above the limit before any is answered
        it.caller.send(http2.reset(numbers[0], http2.CANCEL))
        assert len(it.calls) == 4
        done = 0
        while done < len(it.calls):
            if it.calls[done].is_open:
                it.calls[done].reply(bytes(size))
            done += 1
        assert [call.body for call in it.calls] == [b"%d" % at for at in range(10)]
        assert it.connection.in_work == 0 and not it.connection.streams
        for _ in range(100):  # small answers are soon expected again
            it.caller.call(b"", fields("/u"))
            it.calls.pop().reply(b"")
        many = [it.caller.call(b"", fields("/u")) for _ in range(200)]
        assert len(it.calls) == 10 + len(many)


@looped
def test_too_many_streams_are_refused_for_another_try() -> None:
    with served() as it:
        ids = [it.caller.call(b"", fields("/u")) for _ in range(http2.STREAMS + 1)]
        assert resets(it, ids[-1]) == [http2.REFUSED_STREAM]
        it.calls[0].reply(b"")
        it.caller.call(b"", fields("/u"))
        assert len(it.calls) == http2.STREAMS + 1


@looped
def test_a_stream_that_the_caller_breaks_off_is_not_answered() -> None:
    with served() as it:
        number = it.caller.call(b"", fields("/u"))
        it.caller.send(http2.reset(number, http2.CANCEL))
        (call,) = it.calls
        assert not call.is_open
        call.reply(b"late")
        it.frames()
        assert it.caller.of(number) == []


@looped
def test_rapid_resets_end_the_connection() -> None:
    with served() as it:
        for _ in range(streams.RESETS + 50):
            it.caller.send(http2.reset(it.caller.call(b"", fields("/u")), http2.CANCEL))
        assert goaway(it) == http2.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "data",
    [frame(http2.PING, 0, 0, bytes(8)), http2.settings({}), frame(99, 0, 0), frame(http2.PRIORITY, 0, 1, bytes(5)), http2.window_update(0, 1)],
    ids=["ping", "settings", "unknown", "priority", "small window"],
)
def test_a_flood_of_frames_without_use_ends_the_connection(data: bytes) -> None:
    async def run() -> None:
        with served() as it:
            it.caller.send(data * (streams.IDLE_FRAMES // 2))
            assert goaway(it) is None
            it.caller.send(data * streams.IDLE_FRAMES)
            assert goaway(it) == http2.ENHANCE_YOUR_CALM

    asyncio.run(run())


@looped
def test_pings_beside_calls_are_welcome() -> None:
    with served() as it:
        for _ in range(streams.IDLE_FRAMES):
            it.caller.send(frame(http2.PING, 0, 0, bytes(8)) * 4)
            it.caller.call(b"", fields("/u"))
            it.calls.pop().reply(b"")
        assert goaway(it) is None


@looped
def test_a_header_block_in_parts_is_bounded() -> None:
    with served() as it:
        it.caller.send(frame(http2.HEADERS, 0, 1, it.caller.encoder.encode(fields("/u"))) + frame(http2.CONTINUATION, http2.END_HEADERS, 1))
        it.caller.data(1, message(b"x"))
        assert len(it.calls) == 1
        it.caller.send(frame(http2.HEADERS, 0, 3, b"\0\1a\1b"))
        it.caller.send(frame(http2.CONTINUATION, 0, 3, b"\0\1a\1b") * (http2.CONTINUATIONS + 1))
        assert goaway(it) == http2.ENHANCE_YOUR_CALM


@looped
def test_trailers_end_a_request_and_nothing_else_may() -> None:
    with served() as it:
        number = it.caller.begin(fields("/u"))
        it.caller.data(number, message(b"x"), ends=False)
        it.caller.send(frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, number, it.caller.encoder.encode([("checksum", "1")])))
        assert it.calls[0].body == b"x"
        other = it.caller.begin(fields("/u"))
        it.caller.send(frame(http2.HEADERS, http2.END_HEADERS, other, it.caller.encoder.encode([("checksum", "1")])))
        assert resets(it, other) == [http2.PROTOCOL_ERROR]


@looped
def test_data_behind_the_end_breaks_the_stream_and_old_numbers_the_connection() -> None:
    with served() as it:
        number = it.caller.call(b"", fields("/u"))
        it.caller.data(number, b"more")
        assert resets(it, number) == [http2.STREAM_CLOSED]
        it.caller.data(number, b"more")  # sent before it could know
        assert goaway(it) is None
        done = it.caller.call(b"", fields("/u"))
        it.calls[-1].reply(b"")
        it.caller.send(frame(http2.HEADERS, http2.END_HEADERS, done, it.caller.encoder.encode(fields("/u"))))
        assert goaway(it) == http2.STREAM_CLOSED


@looped
def test_a_drain_lets_what_was_asked_finish() -> None:
    with served() as it:
        number = it.caller.call(b"", fields("/u"))
        it.server.stop_listening()
        last = [each for each in it.frames() if each.kind == http2.GOAWAY]
        assert [each.payload[:4] for each in last] == [(http2.STREAM_ID_LIMIT).to_bytes(4, "big")]
        ping = next(each for each in it.caller.frames if each.kind == http2.PING)
        on_the_way = it.caller.call(b"", fields("/u"))
        it.caller.send(frame(http2.PING, http2.ACK, 0, ping.payload))
        it.caller.call(b"", fields("/u"))  # too late: not worked on
        assert len(it.calls) == 2
        for call in it.calls:
            call.reply(b"")
        assert it.status(on_the_way) == "0" and it.status(number) == "0"
        assert it.caller.goaway is not None and int.from_bytes(it.caller.goaway.payload[:4], "big") == on_the_way
        assert it.wire.is_closed


@looped
def test_a_full_server_says_so() -> None:
    it = Served(max_connections=1)
    other = Served(max_connections=1)
    other.server.connections.add(it.connection)
    late = Served(max_connections=1)
    late.server.connections.add(it.connection)
    late.connection.connection_made(late.wire)
    assert late.wire.is_closed
    for each in (it, other, late):
        each.server.close()


def test_what_overstays_is_ended() -> None:
    async def run() -> None:
        silent = Served()
        now = silent.connection.heard_s
        silent.connection.sweep(now + 9)
        assert not silent.wire.is_closed
        silent.connection.sweep(now + 11)
        assert silent.wire.is_closed
        with served() as half:
            half.caller.send(b"\0\0\5\1\4\0\0")
            half.connection.sweep(half.connection.heard_s + 11)
            assert half.wire.is_closed
        with served() as slow:
            number = slow.caller.begin(fields("/u"))
            slow.caller.data(number, message(bytes(1000))[:50], ends=False)
            slow.connection.sweep(slow.connection.heard_s + 9)
            assert slow.connection.streams
            slow.connection.sweep(slow.connection.heard_s + 11)
            assert slow.status(number) == "4"
        with served() as idle:
            idle.connection.sweep(idle.connection.heard_s + streams.IDLE_S - 1)
            assert not idle.wire.is_closed
            idle.connection.sweep(idle.connection.heard_s + streams.IDLE_S + 1)
            assert idle.wire.is_closed
        with served() as gone:
            gone.caller.call(b"", fields("/u"))
            gone.connection.sweep(gone.connection.heard_s + streams.SILENT_S + 1)
            assert any(each.kind == http2.PING for each in gone.frames())
            gone.connection.sweep(gone.connection.heard_s + streams.SILENT_S + streams.PONG_S + 2)
            assert gone.wire.is_aborted
        with served() as reader:
            reader.caller.call(b"", fields("/u"))
            reader.caller.send(http2.goaway(0, http2.NO_ERROR))
            reader.wire.unsent = 1000
            reader.calls[0].reply(b"")
            assert reader.server.is_asked and reader.wire.is_closed
            now = time.monotonic()
            reader.connection.sweep(now + 3)
            assert not reader.wire.is_aborted  # it has not taken all of its last answer
            reader.connection.sweep(now + 31)
            assert reader.wire.is_aborted
        with served() as stuck:
            stuck.connection.pause_writing()
            assert stuck.wire.is_reading_paused
            stuck.connection.sweep(stuck.connection.heard_s + 31)
            assert stuck.wire.is_aborted

    asyncio.run(run())


def test_without_its_allowances_a_connection_bears_any_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the floods above and of tests/hostile."""
    flood = frame(http2.PING, 0, 0, bytes(8)) * (2 * streams.IDLE_FRAMES)
    resets = streams.RESETS + 50
    monkeypatch.setattr(streams, "RESETS", 10**9)
    monkeypatch.setattr(streams, "IDLE_FRAMES", 10**9)

    async def run() -> None:
        with served() as it:
            it.caller.send(flood)
            for _ in range(resets):
                it.caller.send(http2.reset(it.caller.call(b"", fields("/u")), http2.CANCEL))
            assert goaway(it) is None

    asyncio.run(run())
