"""Frames, settings and header blocks: what is read, what is refused, and what is remembered."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Encoder

from modelyard.serve import http2
from modelyard.serve.http2 import Allowance, Blocks, ConnectionFailed, Fields, StreamFailed


class Head:
    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.is_cacheable = (b"x-request-id", b"1") not in fields


HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/a"), ("grpc-timeout", "5S")]


def test_the_same_block_means_the_same_while_the_table_is_the_same() -> None:
    blocks, encoder = Blocks(Head), Encoder()
    first = blocks.head(encoder.encode(HEAD))
    block = encoder.encode(HEAD)  # all indexed now
    again = blocks.head(block)
    assert again is not first
    assert blocks.head(block) is again
    blocks.head(encoder.encode([*HEAD, ("x-other", "2")]))  # two inserts: every index has moved
    assert blocks.head(block) is not again


def test_what_moved_is_read_anew_and_not_as_it_was() -> None:
    blocks, encoder = Blocks(Head), Encoder()
    blocks.head(encoder.encode(HEAD))
    old = encoder.encode(HEAD)
    assert (b":path", b"/a") in blocks.head(old).fields
    blocks.head(encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", "/b"), ("grpc-timeout", "5S")]))
    assert blocks.head(old).fields != blocks.head(encoder.encode(HEAD)).fields


def test_a_table_that_is_resized_forgets() -> None:
    blocks, encoder = Blocks(Head), Encoder()
    blocks.head(encoder.encode(HEAD))
    block = encoder.encode(HEAD)
    kept = blocks.head(block)
    encoder.header_table_size = 1024
    assert blocks.head(encoder.encode(HEAD)).fields == kept.fields
    assert blocks.head(block) is not kept


def test_a_head_with_something_of_its_own_is_not_kept() -> None:
    blocks, encoder = Blocks(Head), Encoder()
    blocks.head(encoder.encode([*HEAD, ("x-request-id", "1")]))
    block = encoder.encode([*HEAD, ("x-request-id", "1")])
    assert blocks.head(block) is not blocks.head(block)


@pytest.mark.parametrize("block", [b"\xff\xff\xff\xff\xff\xff", b"\xbe", b"\x00\x05ab", b"\x80", b"\x3f\xe1\xff\x03"])
def test_a_block_that_cannot_be_decoded_ends_the_connection(block: bytes) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        Blocks(Head).head(block)
    assert caught.value.code == http2.COMPRESSION_ERROR


def test_a_small_block_that_says_much_ends_the_connection() -> None:
    blocks = Blocks(Head)
    blocks.fields(Encoder().encode([("x", "y" * 3000)]))
    with pytest.raises(ConnectionFailed) as caught:
        blocks.fields(b"\xbe" * 1000)
    assert caught.value.code == http2.ENHANCE_YOUR_CALM


GOOD: Fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b"te", b"trailers")]


@pytest.mark.parametrize(
    "fields",
    [
        GOOD[1:],
        [*GOOD, (b":authority", b"late")],
        [GOOD[0], *GOOD],
        [(b":status", b"200"), *GOOD],
        [*GOOD, (b"Upper", b"1")],
        [*GOOD, (b"a b", b"1")],
        [*GOOD, (b"", b"1")],
        [*GOOD, (b"a", b"1\r\nb: 2")],
        [*GOOD, (b"a", b"\0")],
        [*GOOD, (b"a", b" 1")],
        [*GOOD, (b"connection", b"close")],
        [*GOOD, (b"transfer-encoding", b"chunked")],
        [*GOOD[:3], (b"te", b"gzip")],
    ],
)
def test_a_malformed_head_breaks_the_stream(fields: Fields) -> None:
    with pytest.raises(StreamFailed):
        http2.check_fields(fields)
    http2.check_fields(GOOD)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({http2.ENABLE_PUSH: 2}, http2.PROTOCOL_ERROR),
        ({http2.INITIAL_WINDOW_SIZE: 1 << 31}, http2.FLOW_CONTROL_ERROR),
        ({http2.MAX_FRAME_SIZE: 100}, http2.PROTOCOL_ERROR),
        ({http2.MAX_FRAME_SIZE: 1 << 24}, http2.PROTOCOL_ERROR),
    ],
)
def test_settings_out_of_bounds_are_refused(values: dict[int, int], code: int) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        http2.read_settings(http2.settings(values)[9:])
    assert caught.value.code == code


def test_settings_are_pairs() -> None:
    assert http2.read_settings(http2.settings({5: 16384, 77: 3})[9:]) == [(5, 16384), (77, 3)]
    with pytest.raises(ConnectionFailed):
        http2.read_settings(b"12345")


def test_padding_and_priority_are_taken_off() -> None:
    data = b"\x02" + b"prior" + b"content" + b"\0\0"
    begin, end = http2.unpadded(data, 0, len(data), http2.PADDED | http2.PRIORITISED, prioritised=True)
    assert data[begin:end] == b"content"
    for bad, flags in ((b"", http2.PADDED), (b"\x09abc", http2.PADDED), (b"abc", http2.PRIORITISED)):
        with pytest.raises(ConnectionFailed):
            http2.unpadded(bad, 0, len(bad), flags, prioritised=True)


def test_an_allowance_is_used_up_earned_and_refilled() -> None:
    allowance = Allowance(3, 1.0, 0.0)
    assert [allowance.spend(0.0) for _ in range(4)] == [True, True, True, False]
    allowance.earn(2)
    assert allowance.spend(0.0)
    assert not allowance.spend(0.5)
    assert allowance.spend(5.0)
    allowance.earn(1000)
    assert [allowance.spend(5.0) for _ in range(4)] == [True, True, True, False]


def test_the_list_is_counted_as_the_rfc_counts() -> None:
    assert http2.list_bytes([(b"ab", b"c")]) == 35


def test_frames() -> None:
    frames: dict[str, Any] = {"reset": http2.reset(3, 8), "goaway": http2.goaway(5, 11, "calm"), "window": http2.window_update(0, 7)}
    assert frames["reset"] == b"\0\0\4\3\0\0\0\0\3\0\0\0\x08"
    assert frames["goaway"][9:] == b"\0\0\0\5\0\0\0\x0bcalm"
    assert http2.number(frames["window"][9:]) == 7
    with pytest.raises(ConnectionFailed):
        http2.number(b"abc")
