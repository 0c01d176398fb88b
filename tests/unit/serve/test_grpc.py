"""A call's head, its messages' coding, and the blocks of an answer."""

from __future__ import annotations

import gzip
from urllib.parse import unquote

import pytest
from hpack import Decoder

from modelyard.errors import (
    DeadlineExceeded,
    InvalidInput,
    MalformedPayload,
    Overloaded,
    PayloadTooLarge,
    SchemaMismatch,
    UnsupportedMedia,
)
from modelyard.serve import grpc
from modelyard.serve.admission import LOW
from modelyard.serve.grpc import Asked, Head

BASE = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C")]
GRPC = (b"content-type", b"application/grpc")


def head(*more: tuple[bytes, bytes], base: list[tuple[bytes, bytes]] | None = None) -> Head:
    return Head([*(base or BASE), GRPC, *more])


@pytest.mark.parametrize(("text", "seconds"), [(b"5S", 5), (b"250m", 0.25), (b"2M", 120), (b"7u", 7e-6), (b"1n", 1e-9), (b"99999999H", 3600)])
def test_a_timeout_is_read(text: bytes, seconds: float) -> None:
    assert head((b"grpc-timeout", text)).timeout_s == seconds


@pytest.mark.parametrize("text", [b"", b"5", b"S", b"-1S", b"123456789S", b"1s", b"1.5S"])
def test_a_timeout_of_another_form_is_refused(text: bytes) -> None:
    assert isinstance(head((b"grpc-timeout", text)).refusal, InvalidInput)


def test_other_fields() -> None:
    made = head((b"authorization", b"Bearer k"), (b"traceparent", b"00-1"), (b"x-priority", b"low"))
    assert (made.path, made.authorization, made.traceparent, made.priority) == ("/a.B/C", b"Bearer k", b"00-1", LOW)
    assert not made.is_cacheable
    assert head((b"grpc-encoding", b"gzip")).refusal is None
    assert isinstance(head((b"grpc-encoding", b"snappy")).refusal, UnsupportedMedia)
    assert isinstance(head((b"x-priority", b"most")).refusal, InvalidInput)
    assert isinstance(head(*[(b"x", b"y" * 1000)] * 17).refusal, Overloaded)


@pytest.mark.parametrize(
    ("media", "status"),
    [(b"application/grpc+proto", 0), (b"application/grpc;x=1", 0), (b"application/json", 415), (b"application/grpc+json", 415), (b"", 415)],
)
def test_what_is_no_grpc_gets_an_http_status(media: bytes, status: int) -> None:
    assert Head([*BASE, (b"content-type", media)]).http_status == status


def test_another_method_gets_an_http_status() -> None:
    assert head(base=[(b":method", b"GET"), *BASE[1:]]).http_status == 405


def test_a_message_without_its_coding() -> None:
    packed = gzip.compress(b"hello")
    assert grpc.plain(b"hello", 0, "identity", 10) == b"hello"
    assert grpc.plain(packed, 1, "gzip", 10) == b"hello"
    with pytest.raises(PayloadTooLarge):
        grpc.plain(gzip.compress(bytes(1 << 20)), 1, "gzip", 1000)
    for data, flag, coding in (
        (packed, 1, "identity"),
        (b"no", 1, "gzip"),
        (packed[:-4], 1, "gzip"),
        (packed + b"x", 1, "gzip"),
        (packed, 2, "gzip"),
    ):
        with pytest.raises(MalformedPayload):
            grpc.plain(data, flag, coding, 10)


def read(block: bytes) -> dict[str, str]:
    return {str(name): str(value) for name, value in Decoder().decode(block)}


def test_the_blocks_of_an_answer_are_read_by_any_decoder() -> None:
    long = "p" * 300
    assert read(grpc.HEAD + grpc.field(b"x-prediction-id", long.encode())) == {
        ":status": "200", "content-type": "application/grpc", "x-prediction-id": long,
    }  # fmt: skip
    assert read(grpc.OK) == {"grpc-status": "0"}
    assert read(grpc.not_grpc(415)) == {":status": "415"}


def test_a_refusal_tells_status_message_code_field_and_rule() -> None:
    told = read(grpc.refusal(SchemaMismatch("input 'größe' is missing\n100%", field="größe", rule="required")))
    assert told["grpc-status"] == "3"
    assert unquote(told["grpc-message"]) == "input 'größe' is missing\n100%"
    assert told["grpc-message"].isascii()
    assert (told["x-error-code"], unquote(told["x-error-field"]), told["x-error-rule"]) == ("schema_mismatch", "größe", "required")
    assert read(grpc.refusal(Overloaded("try again", retry_after_s=0.25)))["grpc-retry-pushback-ms"] == "250"
    assert read(grpc.refusal(DeadlineExceeded("late")))["grpc-status"] == "4"
    assert read(grpc.refusal(UnsupportedMedia("no")))["grpc-accept-encoding"] == "identity,gzip"


def test_a_trace_names_the_method_and_not_what_is_none() -> None:
    found = head((b"traceparent", b"x"), (b"tracestate", b"a=1"), (b"tracestate", b"b=2"))
    assert Asked(found).name == "grpc" and "rpc.method" not in Asked(found).attributes
    found.route = object()
    asked = Asked(found)
    assert (asked.name, asked.tracestate) == ("a.B/C", b"a=1,b=2")
    assert (asked.attributes["rpc.system"], asked.attributes["rpc.service"], asked.attributes["rpc.method"]) == ("grpc", "a.B", "C")
    assert head((b"tracestate", b"a=" + b"x" * 600)).tracestate == b""
