"""The messages live in a pool of their own, and what is no message is malformed."""

from __future__ import annotations

import pytest

from modelyard.errors import MalformedPayload
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
