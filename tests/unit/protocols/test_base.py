from __future__ import annotations

import json

import msgspec
import pytest

from modelyard.errors import MalformedPayload, SchemaMismatch, UnsupportedMedia
from modelyard.protocols.base import accept_media, read_json, refusal


def test_refusal_names_what_is_known() -> None:
    assert json.loads(refusal(SchemaMismatch("m", field="f", rule="r"))) == {"error": "m", "code": "schema_mismatch", "field": "f", "rule": "r"}
    assert json.loads(refusal(SchemaMismatch("m"))) == {"error": "m", "code": "schema_mismatch"}


def test_media() -> None:
    accept_media("", "text/csv")
    accept_media("text/csv", "text/csv")
    with pytest.raises(UnsupportedMedia):
        accept_media("text/html", "text/csv")


@pytest.mark.parametrize(("body", "rule"), [(b"{", "json"), (b'{"a": "x"}', "form"), (b'{"a": "\xff"}', "utf8"), (b'{"b":' + b"[" * 99999, "depth")])
def test_read_json_says_what_is_wrong(body: bytes, rule: str) -> None:
    with pytest.raises(MalformedPayload) as caught:
        read_json(msgspec.json.Decoder(dict[str, int] if rule == "form" else object), body)
    assert caught.value.rule == rule
