"""What one HTTP/1.1 message may be: its limits, its head once parsed, and the bytes of an answer.

Hides the grammar that httptools leaves open (no Host or two, HTTP/0.9, lengths in disguise, transfer codings) and the text of status
lines. Pure: no socket, no clock. Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from modelyard.serve.admission import NORMAL, PRIORITIES

HEADER_BYTES = 16 << 10
HEADER_COUNT = 100
URL_BYTES = 8 << 10
CHUNKS = 65_536
HEADER_TIMEOUT_S = 10.0
BODY_GRACE_S = 10.0
BODY_BYTES_S = 1024
IDLE_TIMEOUT_S = 75.0
STALLED_WRITE_S = 30.0
LINGER_S = 2.0
PIPELINED = 64
DEADLINE_LIMIT_S = 3600.0
ZSTD_WINDOW_BYTES = 8 << 20

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"QUERY"})
_LENGTHS_IN_DISGUISE = frozenset({b"content_length", b"transfer_encoding"})
_HEADER_SAFE = re.compile(r"[\x21-\x7e]{1,128}")
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s;\"]+)")
_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,9})?")

STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}


class Refused(Exception):
    """The message breaks a limit or the grammar: answer `status` and close."""

    def __init__(self, status: int, message: str, rule: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.rule = rule


class Head:
    """A request's line and headers, read once and then immutable: the same bytes always mean the same head."""

    __slots__ = (
        "_headers", "accept", "admitted", "authorization", "caller", "client_request_id", "coding", "expects_continue", "host", "is_cacheable",
        "is_chunked", "is_http_1_0", "json_bytes", "keep_alive", "length", "media", "method", "origin", "path", "placed", "priority", "query",
        "request_id", "request_id_bytes", "route", "timeout_s", "traceparent", "tracestate",
    )  # fmt: skip

    def __init__(self, method: bytes, url: bytes, version: str, headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> None:
        self._headers = tuple(headers)  # a trailer, which comes later, is no header
        self.method = method
        self.path, self.query = _target(url)
        self.keep_alive = keep_alive
        self.is_http_1_0 = version == "1.0"
        self.length = 0
        self.is_chunked = False
        self.expects_continue = False
        self.media = ""
        self.accept = ""
        self.coding = ""
        self.authorization = b""
        self.host = b""
        self.origin = b""
        self.json_bytes: int | None = None
        self.request_id = b""
        self.request_id_bytes = 0
        """How long it came; one that is not safe to send back is not kept."""
        self.client_request_id = b""
        self.traceparent = b""
        self.tracestate = b""
        self.timeout_s: float | None = None
        self.priority = NORMAL
        self.is_cacheable = True
        self.route: Any = None
        self.admitted = -1
        """The epoch of the access keys under which this head was let in, as `caller`."""
        self.caller: Any = None
        self.placed: Any = None
        """See `dataplane.Carries`."""
        if version not in {"1.0", "1.1"}:
            raise Refused(505, "this server speaks HTTP/1.1", "version")
        if method not in METHODS:
            raise Refused(501, "the method is not one that this server knows", "method")
        if self.path == "*" and method != b"OPTIONS":
            raise Refused(400, "only OPTIONS is asked of the whole server", "target")
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
                self.host = value
            else:
                self._take(name, value)
        if hosts > 1 or (hosts == 0 and not self.is_http_1_0):
            raise Refused(400, "a request has one Host header", "host")
        if self.is_chunked and self.is_http_1_0:
            raise Refused(400, "HTTP/1.0 has no transfer codings", "transfer_encoding")

    def value(self, name: bytes) -> bytes:
        """The value of the header `name` (in small letters), of several the list; empty without one."""
        return b",".join([value for key, value in self._headers if key == name])

    def _take(self, name: bytes, value: bytes) -> None:
        take = _TAKERS.get(name)
        if take is not None:
            take(self, value)
        elif name in _LENGTHS_IN_DISGUISE:
            raise Refused(400, "a header's name holds an underscore where a hyphen belongs", "header")


class Asked:
    """One request as OpenTelemetry's conventions for HTTP servers have it; made only for one that is traced."""

    __slots__ = ("attributes", "name", "tracestate")

    def __init__(self, head: Head, scheme: str) -> None:
        method, route = head.method.decode("latin-1"), _template(head)
        self.name = f"{method} {route}" if route else method
        self.tracestate = head.tracestate
        self.attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.scheme": scheme,
            "url.path": head.path,
            "network.protocol.name": "http",
            "network.protocol.version": "1.0" if head.is_http_1_0 else "1.1",
            "http.response.status_code": 200,
        }
        if route:
            self.attributes["http.route"] = route


def _template(head: Head) -> str:
    """The route with names in place of what a path fills in; empty for a path that is none of ours."""
    route = head.route
    if route is None or not (route.model or route.wire or route.allow):
        return head.path if route is not None else ""
    parts = head.path.split("/")
    for at, part in enumerate(parts[1:], 1):
        if parts[at - 1] == "models":
            parts[at] = "{model}" + part[len(route.model) :] if part.startswith(route.model) else "{model}"
        elif parts[at - 1] in ("versions", "labels"):
            parts[at] = "{" + parts[at - 1][:-1] + "}" + (":" + part.partition(":")[2] if ":" in part else "")
    return "/".join(parts)


def _content_length(head: Head, value: bytes) -> None:
    if not value.isdigit() or len(value) > 18:
        raise Refused(400, "Content-Length is a number", "content_length")
    head.length = int(value)


def _transfer_encoding(head: Head, value: bytes) -> None:
    if value.strip().lower() != b"chunked":
        raise Refused(501, "the only transfer coding is chunked", "transfer_encoding")
    head.is_chunked = True


def _expect(head: Head, value: bytes) -> None:
    if value.strip().lower() != b"100-continue":
        raise Refused(417, "the only expectation is 100-continue", "expect")
    head.expects_continue = True


FORM = "application/x-www-form-urlencoded"
"""What `curl -d` says when its user says nothing; no wire here has forms, so it is read as if no type were given."""


def _content_type(head: Head, value: bytes) -> None:
    media, _, parameters = value.decode("latin-1").lower().partition(";")
    media = media.strip()
    charset = _CHARSET.search(parameters)
    if charset is not None and charset[1] not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        media += "; charset"  # no media type that a codec knows: all of them are read as UTF-8
    head.media = "" if media == FORM else media


def _accept(head: Head, value: bytes) -> None:
    text = value.decode("latin-1").strip()
    head.accept = f"{head.accept},{text}" if head.accept else text


def _content_encoding(head: Head, value: bytes) -> None:
    coding = value.strip().lower().decode("latin-1")
    head.coding = "" if coding == "identity" else coding


def _authorization(head: Head, value: bytes) -> None:
    if head.authorization:
        raise Refused(400, "a header that decides access was sent twice", "authorization")
    head.authorization = value


def _origin(head: Head, value: bytes) -> None:
    if head.origin:
        raise Refused(400, "a header that decides access was sent twice", "origin")
    head.origin = value


def _json_length(head: Head, value: bytes) -> None:
    if not value.isdigit() or len(value) > 18:
        raise Refused(400, "Inference-Header-Content-Length is a number", "inference-header-content-length")
    head.json_bytes = int(value)


def _client_request_id(head: Head, value: bytes) -> None:
    head.is_cacheable = False
    head.client_request_id = value if is_header_safe(value.decode("latin-1")) else b""


TRACESTATE_BYTES = 512
"""A longer list is not passed on (W3C Trace Context §3.3.1.5 asks for this much at least)."""


def _request_id(head: Head, value: bytes) -> None:
    head.is_cacheable = False
    head.request_id_bytes = len(value)
    head.request_id = value if is_header_safe(value.decode("latin-1")) else b""


def _traceparent(head: Head, value: bytes) -> None:
    head.is_cacheable = False
    head.traceparent = value if is_header_safe(value.decode("latin-1")) else b""


def _tracestate(head: Head, value: bytes) -> None:
    head.is_cacheable = False
    joined = head.tracestate + b"," + value if head.tracestate else value  # several headers are one list
    head.tracestate = joined if len(joined) <= TRACESTATE_BYTES else b""


def _timeout(head: Head, value: bytes) -> None:
    text = value.strip().decode("latin-1")
    if not _DECIMAL.fullmatch(text) or not 0 < float(text) <= DEADLINE_LIMIT_S:
        raise Refused(400, f"X-Request-Timeout is a number of seconds above 0 and at most {DEADLINE_LIMIT_S:.0f}", "x-request-timeout")
    head.timeout_s = float(text)


def _priority(head: Head, value: bytes) -> None:
    asked = PRIORITIES.get(value.strip().lower().decode("latin-1"))
    if asked is None:
        raise Refused(400, "X-Priority is high, normal or low", "x-priority")
    head.priority = asked


_TAKERS = {
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"expect": _expect,
    b"accept": _accept,
    b"content-type": _content_type,
    b"content-encoding": _content_encoding,
    b"authorization": _authorization,
    b"origin": _origin,
    b"inference-header-content-length": _json_length,
    b"x-ms-client-request-id": _client_request_id,
    b"x-request-id": _request_id,
    b"traceparent": _traceparent,
    b"tracestate": _tracestate,
    b"x-request-timeout": _timeout,
    b"x-priority": _priority,
}


def is_header_safe(text: str) -> bool:
    """Whether `text` may stand in a header that we send: up to 128 visible ASCII characters."""
    return _HEADER_SAFE.fullmatch(text) is not None


def _target(url: bytes) -> tuple[str, str]:
    """The path of a request target, percent-decoded by segment, and its query, as it was sent."""
    if not url.startswith(b"/"):
        if url == b"*":
            return "*", ""
        scheme, found, rest = url.partition(b"://")
        if not found or scheme.lower() not in {b"http", b"https"}:
            raise Refused(400, "the request target is a path", "target")
        url = b"/" + rest.partition(b"/")[2]
    text, _, query = url.decode("latin-1").partition("?")
    if "#" in text:
        raise Refused(400, "the request target has no fragment", "target")
    return "/".join(unquote(segment) for segment in text.split("/")) if "%" in text else text, query


LARGE_MEDIA = frozenset({"application/vnd.apache.arrow.stream", "text/csv"})
"""Bodies that are no JSON, and so may be as large as binary tensors."""


def decompress(body: bytes | bytearray, coding: str, limit_bytes: int) -> bytes:
    """`body` without its content coding, at most `limit_bytes` of it. Raises Refused."""
    if coding == "zstd":
        return _decompress_zstd(body, limit_bytes)
    if coding not in {"gzip", "deflate"}:
        raise Refused(415, "a body may be coded as gzip, deflate or zstd", "content-encoding")
    stream = zlib.decompressobj(31 if coding == "gzip" else 15)
    try:
        plain = stream.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise Refused(400, f"the body is not {coding}", "content-encoding") from None
    if len(plain) > limit_bytes:
        raise Refused(413, too_large(limit_bytes), "body_size")
    if not stream.eof or stream.unused_data:
        raise Refused(400, f"the body is not one whole {coding} stream", "content-encoding")
    return plain


def _decompress_zstd(body: bytes | bytearray, limit_bytes: int) -> bytes:
    """One frame, unpacked at once into a buffer of the size that it names or of the limit: there is no window to grow."""
    import zstandard

    try:
        size = zstandard.frame_content_size(body)
        if size > limit_bytes:
            raise Refused(413, too_large(limit_bytes), "body_size")
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=limit_bytes, allow_extra_data=False)
    except zstandard.ZstdError:
        pass
    try:
        with zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).stream_reader(body) as reader:
            is_larger = len(reader.read(limit_bytes + 1)) > limit_bytes
    except zstandard.ZstdError:
        is_larger = False
    if is_larger:
        raise Refused(413, too_large(limit_bytes), "body_size")
    raise Refused(400, "the body is not one whole zstd frame", "content-encoding")


def too_large(limit_bytes: int) -> str:
    """What a caller with more than `limit_bytes` is told."""
    return (
        f"the body is larger than {limit_bytes:,} bytes: send fewer rows at a time, or binary tensors (the V2 binary data extension) or an Arrow "
        "stream (application/vnd.apache.arrow.stream), or give a Parquet file to `modelyard predict NAME --data FILE`, which sends it in parts"
    )


@lru_cache(4096)
def model_lines(name: str, version: int) -> bytes:
    """The header lines that say which version of which deployment answers."""
    return b"x-model-name: %b\r\nx-model-version: %d\r\n" % (name.encode(), version)


def answer(status: int, lines: bytes, body: bytes) -> bytes:
    """The bytes of a whole answer; `lines` are header lines, each with its end."""
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (STATUS_LINES[status], len(body), lines, body)
