"""The messages live in a pool of their own, and what is no message is malformed."""

from __future__ import annotations

import pytest

from modelyard.errors import MalformedPayload, PayloadTooLarge
from modelyard.protocols import messages
from modelyard.protocols.messages import kind, parse


def test_another_packages_copy_of_the_same_protos_meets_none_of_ours() -> None:
    from grpc_health.v1 import health_pb2

    assert kind("grpc.health.v1.HealthCheckRequest") is not health_pb2.HealthCheckRequest
    assert (
        kind("grpc.health.v1.HealthCheckRequest")(service="s").SerializeToString() == health_pb2.HealthCheckRequest(service="s").SerializeToString()
    )


def test_a_kind_is_made_once() -> None:
    assert kind("inference.ModelInferRequest") is kind("inference.ModelInferRequest")


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05a", b"\x0a\x02\xff\xfe"])
def test_what_is_no_message_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse(kind("inference.ModelInferRequest"), data)


def test_every_file_can_be_told() -> None:
    assert b"GRPCInferenceService" in messages.file_bytes("inference.proto")
    assert messages.pool().FindFileContainingSymbol("inference.GRPCInferenceService").name == "inference.proto"
    with pytest.raises(KeyError):
        messages.file_bytes("other.proto")


def many(count: int) -> bytes:
    """A request of so many integers, of a byte each."""
    message = kind("inference.ModelInferRequest")(model_name="m")
    message.inputs.add(name="x", datatype="INT64", shape=[count, 1]).contents.int64_contents.extend([1] * count)
    return bytes(message.SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        many(1_000_000),
        b"\x0a\x01m" + b"\x2a\x00" * 200_000,  # empty inputs
        b"\x0a\x01m" + b"\x0a\x01m" * 200_000,  # the name again and again
    ],
    ids=["integers", "messages", "fields"],
)
def test_a_message_that_would_grow_is_refused_before_it_is_made(data: bytes) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        parse(kind("inference.ModelInferRequest"), data)
    assert (caught.value.field, caught.value.rule) == ("message", "growth")


def test_a_large_message_of_few_parts_is_read() -> None:
    message = kind("inference.ModelInferRequest")(model_name="m", raw_input_contents=[bytes(8 << 20)])
    message.inputs.add(name="x").contents.fp32_contents.extend([1.0] * 1_000_000)
    assert parse(kind("inference.ModelInferRequest"), message.SerializeToString()) == message
    assert len(parse(kind("inference.ModelInferRequest"), many(200_000)).inputs[0].contents.int64_contents) == 200_000


def test_a_large_message_that_is_none_is_malformed() -> None:
    for data in (b"\xff" * 100_000, b"\x0a\xff\xff\xff\x7f" + bytes(100_000)):
        with pytest.raises(MalformedPayload):
            parse(kind("inference.ModelInferRequest"), data)
