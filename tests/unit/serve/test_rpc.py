"""Calls out of streams: messages put together, bounded, refused early, and answered in order."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

import pytest
from h2 import fields, message
from h2_server import Route, served

from modelyard.errors import DeadlineExceeded, InvalidInput, MalformedPayload, ModelyardError, Overloaded, PayloadTooLarge, Unauthenticated
from modelyard.serve import http2, rpc, streams


def looped(test: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        async def inside() -> None:
            test()

        asyncio.run(inside())

    run.__name__ = test.__name__
    return run


@looped
def test_a_message_in_many_frames_is_one() -> None:
    with served() as it:
        data = bytes(range(256)) * 1000
        number = it.caller.begin(fields("/u"))
        framed = message(data)
        it.caller.data(number, framed[:3], ends=False)
        it.caller.data(number, framed[3:100_000], ends=False)
        updates = [each for each in it.frames() if each.kind == http2.WINDOW_UPDATE and each.stream == number]
        assert sum(http2.number(each.payload) for each in updates) == len(framed) - http2.STREAM_WINDOW  # what is missing, and no more
        it.caller.data(number, framed[100_000:])
        assert it.calls[0].body == data
        assert it.connection.reserved == 0


@looped
def test_a_message_above_the_limit_is_refused_by_its_length_alone() -> None:
    with served(max_message_bytes=1000) as it:
        number = it.caller.begin(fields("/u"))
        it.caller.data(number, message(bytes(1001))[:50], ends=False)
        assert isinstance(it.failures[0], PayloadTooLarge)
        assert it.status(number) == "8"
        assert not it.connection.streams
        small = it.caller.call(bytes(1001), fields("/u"))
        assert it.status(small) == "8"
        it.caller.call(bytes(1000), fields("/u"))
        assert len(it.calls) == 1


@looped
def test_large_messages_at_once_share_the_room() -> None:
    with served() as it:
        size = 4 << 20
        ids = [it.caller.begin(fields("/u")) for _ in range(3)]
        for number in ids:
            it.caller.data(number, message(bytes(10))[:1] + size.to_bytes(4, "big") + bytes(100), ends=False)
        held = it.connection.reserved
        assert held <= streams.MESSAGES_BYTES
        granted = {each.stream for each in it.frames() if each.kind == http2.WINDOW_UPDATE and each.stream}
        assert granted == set(ids[:2])
        it.caller.send(http2.reset(ids[0], http2.CANCEL))
        granted = {each.stream for each in it.frames() if each.kind == http2.WINDOW_UPDATE and each.stream}
        assert granted == set(ids)


@looped
def test_compressed_messages_are_read_and_bounded() -> None:
    with served(max_message_bytes=1000) as it:
        head = fields("/u", grpc_encoding="gzip")
        for data in (gzip.compress(bytes(900)), gzip.compress(bytes(1 << 20))):
            number = it.caller.begin(head)
            it.caller.data(number, message(data, 1))
        assert [call.body for call in it.calls] == [bytes(900)]
        assert isinstance(it.failures[0], PayloadTooLarge)


@pytest.mark.parametrize("data", [b"", b"\0\0\0", message(b"x") * 2, message(b"x") + b"\0", b"\2" + message(b"x")[1:]])
def test_a_unary_call_has_one_whole_message(data: bytes) -> None:
    async def run() -> None:
        with served() as it:
            number = it.caller.begin(fields("/u"))
            it.caller.data(number, data)
            assert isinstance(it.failures[0], MalformedPayload)
            assert it.status(number) == "3"
            assert not it.calls

    asyncio.run(run())


@looped
def test_who_is_not_admitted_is_refused_before_a_message_is_kept() -> None:
    with served() as it:
        for path, status in (("/denied", "16"), ("/lost", "5"), ("/nowhere", "12")):
            number = it.caller.begin(fields(path))
            assert it.status(number) == status
            it.caller.data(number, message(bytes(100)))
        assert not it.calls and not it.connection.streams
        assert it.caller.goaway is None


@looped
def test_while_a_refusal_is_held_back_nothing_of_its_stream_is_worked_on() -> None:
    """Wrong keys above a rate are told so a little later; until then the stream is open."""
    with served() as it:
        it.server.on_failed = lambda call, error: held.append((call, error))
        held: list[tuple[rpc.Call, ModelyardError]] = []
        for path in ("/denied", "/denied/talk"):
            number = it.caller.begin(fields(path))
            it.caller.data(number, message(b"x"), ends=False)
            it.caller.data(number, message(b"x"))
            assert it.status(number) is None
        ended = it.caller.begin(fields("/denied"), ends=True)
        assert not it.calls
        assert len(held) == 3  # and refused once each, whatever came
        for call, error in held:
            call.refuse(error)
        assert [it.status(number) for number in (number, ended)] == ["16", "16"]
        assert not it.connection.streams
        it.caller.call(b"x", fields("/u"))
        assert len(it.calls) == 1


@looped
def test_what_waits_its_turn_in_a_refused_stream_is_not_worked_on() -> None:
    with served() as it:
        number = it.caller.begin(fields("/t"))
        for _ in range(rpc.IN_WORK + 2):
            it.caller.data(number, message(b"x"), ends=False)
        assert len(it.calls) == rpc.IN_WORK
        it.server.on_failed = lambda call, error: None
        it.calls[0].stream.fail(Unauthenticated("no"))
        it.calls[0].reply(b"y")
        assert len(it.calls) == rpc.IN_WORK
        it.frames()
        assert it.caller.body(number) == message(b"y")  # what was asked before is still answered


@looped
def test_what_is_no_grpc_is_told_so_in_http() -> None:
    with served() as it:
        number = it.caller.begin([*fields("/u")[:4], ("content-type", "application/json")])
        it.frames()
        assert it.caller.headers()[number][":status"] == "415"


@looped
def test_too_much_metadata_is_refused_on_its_stream_alone() -> None:
    with served() as it:
        many = {f"x-{at}": "y" * 1000 for at in range(17)}
        number = it.caller.begin(fields("/u", **many))
        assert isinstance(it.failures[0], Overloaded)
        assert it.status(number) == "8"
        it.caller.call(b"", fields("/u"))
        assert len(it.calls) == 1


@looped
def test_a_bad_timeout_is_refused() -> None:
    with served() as it:
        it.caller.begin(fields("/u", grpc_timeout="soon"))
        assert isinstance(it.failures[0], InvalidInput)


@looped
def test_a_talk_is_answered_in_the_order_of_its_messages() -> None:
    with served() as it:
        number = it.caller.begin(fields("/t"))
        it.caller.data(number, message(b"a") + message(b"b") + message(b"c"), ends=False)
        first, second, third = it.calls
        third.reply(b"C")
        second.reply(b"B")
        it.frames()
        assert it.caller.body(number) == b""
        first.reply(b"A")
        it.frames()
        assert it.caller.body(number) == message(b"A") + message(b"B") + message(b"C")
        assert it.connection.streams
        it.caller.data(number, b"")
        assert it.status(number) == "0"


@looped
def test_messages_that_come_together_wait_their_turn() -> None:
    with served() as it:
        number = it.caller.begin(fields("/t"))
        it.caller.data(number, b"".join(message(b"%d" % at) for at in range(3 * rpc.IN_WORK)), ends=False)
        assert len(it.calls) == rpc.IN_WORK
        it.server.handle = lambda call: call.reply(call.body)  # from now on each is answered at once
        for call in it.calls:
            call.reply(call.body)
        it.frames()
        assert it.caller.body(number) == b"".join(message(b"%d" % at) for at in range(3 * rpc.IN_WORK))


@looped
def test_a_talk_gives_back_what_was_answered_and_no_more() -> None:
    with served() as it:
        number = it.caller.begin(fields("/t"))
        piece = message(bytes(16_000))
        for _ in range(3):
            it.caller.data(number, piece, ends=False)
        stream = it.connection.streams[number]
        assert stream.room == http2.STREAM_WINDOW - 3 * len(piece)
        for call in it.calls:
            call.reply(b"")
        assert stream.room == http2.STREAM_WINDOW


@looped
def test_a_refusal_within_a_talk_is_a_message_where_the_method_says_so() -> None:
    with served() as it:
        it.routes["/t"] = Route(is_talk=True, in_band=lambda error: error.message.encode())
        number = it.caller.begin(fields("/t"))
        it.caller.data(number, message(b"a") + message(b"b"), ends=False)
        first, second = it.calls
        it.fail(second, MalformedPayload("bad"))
        first.reply(b"A")
        it.frames()
        assert it.caller.body(number) == message(b"A") + message(b"bad")
        assert it.status(number) is None
        it.caller.data(number, b"\1\0\0\0\0", ends=False)  # no coding was named: that is no message's fault
        assert it.status(number) == "3"


@looped
def test_time_that_passes_ends_a_call_that_has_not_begun_and_a_talk() -> None:
    with served() as it:
        unary = it.caller.begin(fields("/u", grpc_timeout="1S"))
        talk = it.caller.begin(fields("/t", grpc_timeout="1S"))
        it.connection.sweep(it.connection.heard_s + 0.5)
        assert not it.failures
        it.connection.sweep(it.connection.heard_s + 2)
        assert [type(error) for error in it.failures] == [DeadlineExceeded] * 2
        assert it.status(unary) == it.status(talk) == "4"


@looped
def test_an_endless_talk_stays_until_the_server_ends() -> None:
    with served() as it:
        number = it.caller.begin(fields("/w"))
        talk = it.connection.streams[number]
        talk.memory = "kept"  # type: ignore[attr-defined]
        it.caller.data(number, message(b"watch"))
        it.calls[0].reply(b"1")
        assert it.status(number) is None and not talk.is_busy
        it.connection.sweep(it.connection.heard_s + 1)
        assert it.ticks
        it.server.stop_listening()
        assert it.status(number) == "14"
