"""What every wire codec can do; the suite that each passes is `tests/contract/test_codec.py`.

Hides nothing. A codec is bound to one deployment's name and schema, is pure, and raises InvalidInput kinds only: never a foreign
exception, never a message that holds any of the caller's data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from modelyard.errors import MalformedPayload, ModelyardError, PayloadTooLarge, UnsupportedMedia
from modelyard.types import InferenceRequest, InferenceResponse, Schema

JSON_LINES = b"content-type: application/json\r\n"
"""Header lines of a JSON answer, as `Codec.encode` returns them."""

TEXT_LINES = b"content-type: text/plain; charset=utf-8\r\n"
"""Header lines of an answer in plain text."""

STRINGS = 262_144
"""Strings in one binary body: each costs some 60 bytes here, however short it is."""
SMALL_BYTES = 256 << 10
"""Up to here a JSON body may hold anything: whatever it becomes is little."""
GROWTH = 25
"""How many times its own size a larger JSON body may take when read."""

T = TypeVar("T")
R = TypeVar("R")

encode_json = msgspec.json.Encoder().encode


class Codec(Protocol):
    """One wire, bound to one schema. Law: an answer encoded and read by the wire's own rules holds the same values."""

    def __init__(self, name: str, schema: Schema) -> None:
        """Bind the wire to the deployment `name` and its champion's `schema`."""

    def decode(self, body: bytes | bytearray, media: str, json_bytes: int | None = None) -> InferenceRequest:
        """The question in `body`; `media` is the media type without parameters ("" when none was given), `json_bytes` the length of the
        JSON part where the wire has binary parts behind it. Raises MalformedPayload, SchemaMismatch, PayloadTooLarge or UnsupportedMedia."""

    def encode(self, request: InferenceRequest, response: InferenceResponse) -> tuple[bytes, bytes]:
        """Header lines and body of the answer to `request`."""

    def refuse(self, error: ModelyardError) -> tuple[bytes, bytes]:
        """Header lines and body by which this wire reports `error`."""


class Joint:
    """A codec of three: it reads as one, answers as another, and refuses in the form of the wire on whose route both stand."""

    def __init__(self, wire: Codec, reader: Codec, writer: Codec) -> None:
        self.decode = reader.decode
        self.encode = writer.encode
        self.refuse = wire.refuse


def refusal(error: ModelyardError) -> tuple[bytes, bytes]:
    """`{"error": …}` with code and, where known, field and rule: the form of the Open Inference Protocol and of KServe V1."""
    report: dict[str, str] = {"error": error.message, "code": error.code}
    if error.field is not None:
        report["field"] = error.field
    if error.rule is not None:
        report["rule"] = error.rule
    return JSON_LINES, encode_json(report)


def accept_media(media: str, *known: str, beside: str = "") -> None:
    """Raise UnsupportedMedia unless `media` is one of `known`; no media type at all is read as JSON. `beside` names what other codecs read there."""
    if media and media not in known:
        names = ", ".join((*known, beside) if beside else known)
        raise UnsupportedMedia(f"this route reads {names}, in UTF-8", field="content-type", rule="media_type")


def no_binary(json_bytes: int | None) -> None:
    """Raise MalformedPayload where a wire without binary parts is said to have some."""
    if json_bytes is not None:
        raise MalformedPayload("binary tensors travel by the V2 route", field="inference-header-content-length", rule="form")


def check_strings(count: int) -> None:
    """Raise PayloadTooLarge when a binary body has more than STRINGS strings."""
    if count > STRINGS:
        raise PayloadTooLarge(f"a binary body has at most {STRINGS:,} strings; send fewer rows at a time", field="body", rule="strings")


def read_json(decoder: msgspec.json.Decoder[T], body: bytes | bytearray | memoryview) -> T:
    """`body` by `decoder`. Raises MalformedPayload, which says where and holds no data."""
    return _read(decoder.decode, body)


def read_json_or_tokens(decoder: msgspec.json.Decoder[T], kind: Any, body: bytes | bytearray) -> T:
    """`body` as `kind` by `decoder`; where it holds the tokens NaN or Infinity (Python's own writer of JSON has them), by a reader that knows them.
    Raises MalformedPayload."""
    try:
        return read_json(decoder, body)
    except MalformedPayload:
        if b"NaN" not in body and b"Infinity" not in body:
            raise
    try:
        text = bytes(body).decode()
        value = json.loads(text)
        if "\\u" in text:  # an escaped half of a pair is no text, and this reader lets it pass
            json.dumps(value, ensure_ascii=False).encode()
        return msgspec.convert(value, kind)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise MalformedPayload(f"the body has another form: {error}", field="body", rule="form") from error
    except RecursionError as error:
        raise MalformedPayload("JSON is nested too deeply", field="body", rule="depth") from error
    except ValueError as error:
        raise MalformedPayload("JSON is malformed", field="body", rule="json") from error


def read_lines(decoder: msgspec.json.Decoder[T], body: bytes | bytearray) -> list[T]:
    """Each line of `body` by `decoder`. Raises MalformedPayload."""
    return _read(decoder.decode_lines, body)


def _read(decode: Callable[[bytes | bytearray | memoryview], R], body: bytes | bytearray | memoryview) -> R:
    if len(body) > SMALL_BYTES:
        _check_growth(body)
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise MalformedPayload(f"the body has another form: {error}", field="body", rule="form") from error
    except msgspec.DecodeError as error:
        raise MalformedPayload(str(error), field="body", rule="json") from error
    except UnicodeDecodeError as error:
        raise MalformedPayload("JSON is malformed: not UTF-8", field="body", rule="utf8") from error
    except RecursionError as error:
        raise MalformedPayload("JSON is nested too deeply", field="body", rule="depth") from error


def _check_growth(body: bytes | bytearray | memoryview) -> None:
    """Raise PayloadTooLarge for JSON made of very many very small lists or objects (about 80 and 240 bytes each)."""
    raw = bytes(body) if isinstance(body, memoryview) else body
    if 80 * raw.count(b"[") + 240 * raw.count(b"{") > GROWTH * len(raw):
        raise PayloadTooLarge("the body has too many lists or objects for its size; send flat data, or binary tensors", field="body", rule="growth")
