from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from modelyard.errors import MalformedPayload, PayloadTooLarge, SchemaMismatch, UnsupportedMedia
from modelyard.protocols import bind
from modelyard.protocols.base import SMALL_BYTES, Joint, accept_media, no_binary, read_json, read_lines, refusal
from modelyard.types import Digest, InferenceResponse
from serving import LINE


def test_refusal_names_what_is_known() -> None:
    assert json.loads(refusal(SchemaMismatch("m", field="f", rule="r"))[1]) == {"error": "m", "code": "schema_mismatch", "field": "f", "rule": "r"}
    assert json.loads(refusal(SchemaMismatch("m"))[1]) == {"error": "m", "code": "schema_mismatch"}


def test_media() -> None:
    accept_media("", "text/csv")
    accept_media("text/csv", "text/csv")
    with pytest.raises(UnsupportedMedia, match="text/csv, text/plain"):
        accept_media("text/html", "text/csv", beside="text/plain")


def test_a_joint_codec_reads_answers_and_refuses_as_three_do() -> None:
    wire, reader, writer = (bind("line", LINE)[name] for name in ("mlflow", "csv", "json_lines"))
    joint = Joint(wire, reader, writer)
    request = joint.decode(b"a,b,c\n1,2,3", "text/csv")
    response = InferenceResponse({"prediction": np.array([1.5])}, 1, name="line", version=1, digest=Digest("sha256:0"), id="i")
    assert joint.encode(request, response)[1] == b'{"prediction":1.5}\n'
    assert b"error_code" in joint.refuse(SchemaMismatch("m"))[1]


def test_parts_behind_a_body_without_any_are_refused() -> None:
    no_binary(None)
    with pytest.raises(MalformedPayload):
        no_binary(0)


@pytest.mark.parametrize(("body", "rule"), [(b"{", "json"), (b'{"a": "x"}', "form"), (b'{"a": "\xff"}', "utf8"), (b'{"b":' + b"[" * 99999, "depth")])
def test_read_json_says_what_is_wrong(body: bytes, rule: str) -> None:
    with pytest.raises(MalformedPayload) as caught:
        read_json(msgspec.json.Decoder(dict[str, int] if rule == "form" else object), body)
    assert caught.value.rule == rule
    with pytest.raises(MalformedPayload) as caught:
        read_lines(msgspec.json.Decoder(dict[str, int] if rule == "form" else object), b"{}\n" + body)
    assert caught.value.rule == rule


def test_a_large_body_of_tiny_values_is_too_large() -> None:
    decoder = msgspec.json.Decoder(object)
    assert read_json(decoder, b"[" + b"[[]]," * 1000 + b"0]")
    for item in (b"[[[[]]]],", b'{"":1},'):
        with pytest.raises(PayloadTooLarge):
            read_json(decoder, b"[" + item * (SMALL_BYTES // len(item) + 1) + b"0]")
    assert read_json(decoder, b"[" + b"1.25," * SMALL_BYTES + b"0]")
