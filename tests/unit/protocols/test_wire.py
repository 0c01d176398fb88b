"""Protobuf's wire form by hand, against protobuf itself."""

from __future__ import annotations

import pytest

from modelyard.errors import MalformedPayload, PayloadTooLarge
from modelyard.protocols import wire
from modelyard.protocols.messages import kind


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**63)])
def test_a_number_is_written_as_protobuf_reads_it(value: int) -> None:
    contents = kind("inference.InferTensorContents")
    assert list(contents.FromString(wire.tagged(3, wire.varint(value))).int64_contents) == [value]
    assert kind("inference.InferParameter").FromString(wire.integer(2, value)).int64_param == value


def test_fields_are_found_where_they_lie() -> None:
    data = kind("inference.ModelInferRequest")(model_name="m", id="i", raw_input_contents=[b"abc", b""]).SerializeToString()
    found = [(number, sort, data[begin:end]) for number, sort, _, begin, end in wire.fields(data, 0, len(data))]
    assert found == [(1, 2, b"m"), (3, 2, b"i"), (7, 2, b"abc"), (7, 2, b"")]
    assert [(sort, end - begin) for _, sort, _, begin, end in wire.fields(b"\x0d1234\x09123456789"[:14], 0, 14)] == [(5, 4), (1, 8)]


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x0a", b"\x0b", b"\xff" * 11, b"\x0d12", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x08"])
def test_what_ends_too_early_or_is_no_field_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPayload):
        list(wire.fields(data, 0, len(data)))


def test_fields_are_listed_as_far_as_they_are_few() -> None:
    assert wire.listed(b"\x08\x01" * wire.FIELDS, 0, 2 * wire.FIELDS) == list(wire.fields(b"\x08\x01" * wire.FIELDS, 0, 2 * wire.FIELDS))
    with pytest.raises(PayloadTooLarge) as caught:
        wire.listed(b"\x08\x01" * wire.FIELDS + b"\x08\x01\xff", 0, 2 * wire.FIELDS + 3)  # what stands behind is not looked at
    assert caught.value.rule == "fields"
