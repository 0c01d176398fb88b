from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from modelyard.serve.admission import HIGH, LOW, NORMAL
from modelyard.serve.http import Head, Refused, answer, decompress, is_header_safe

HOST = (b"host", b"x")


def head(*headers: tuple[bytes, bytes], method: bytes = b"POST", url: bytes = b"/v2", version: str = "1.1") -> Head:
    return Head(method, url, version, [HOST, *headers], keep_alive=True)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (b"/v2/models/m", "/v2/models/m"),
        (b"/v2?x=1#y", "/v2"),
        (b"/v2/models/%6d", "/v2/models/m"),
        (b"/a%2Fb/c", "/a/b/c"),
        (b"http://host:1/v2", "/v2"),
        (b"HTTP://host", "/"),
    ],
)
def test_path(url: bytes, path: str) -> None:
    assert head(url=url).path == path


def test_only_options_is_asked_of_the_whole_server() -> None:
    assert head(url=b"*", method=b"OPTIONS").path == "*"
    with pytest.raises(Refused, match="whole server"):
        head(url=b"*")


@pytest.mark.parametrize(("value", "priority"), [(b"high", HIGH), (b" LOW ", LOW), (b"normal", NORMAL)])
def test_the_class_that_a_caller_asks_for(value: bytes, priority: int) -> None:
    assert head((b"x-priority", value)).priority == priority
    assert head().priority == NORMAL
    with pytest.raises(Refused, match="high, normal or low"):
        head((b"x-priority", value + b"er"))


def test_what_the_headers_say() -> None:
    made = head(
        (b"content-type", b"Application/JSON; charset=utf-8"),
        (b"content-encoding", b"GZIP"),
        (b"content-length", b"12"),
        (b"x-request-timeout", b"0.5"),
        (b"inference-header-content-length", b"7"),
    )
    assert (made.media, made.coding, made.length, made.timeout_s, made.json_bytes) == ("application/json", "gzip", 12, 0.5, 7)
    assert made.is_cacheable


@pytest.mark.parametrize("name", [b"x-request-id", b"traceparent"])
def test_a_head_that_names_its_request_is_not_kept(name: bytes) -> None:
    assert not head((name, b"1")).is_cacheable


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ((b"host", b"y"), 400),
        ((b"content-length", b"1_0"), 400),
        ((b"content-length", b"\xb2"), 400),
        ((b"transfer-encoding", b"gzip, chunked"), 501),
        ((b"content_length", b"1"), 400),
        ((b"expect", b"more"), 417),
        ((b"x-request-timeout", b"-1"), 400),
        ((b"x-request-timeout", b"nan"), 400),
        ((b"x-request-timeout", b"0"), 400),
        ((b"x-request-timeout", b"99999"), 400),
    ],
)
def test_refused(header: tuple[bytes, bytes], status: int) -> None:
    with pytest.raises(Refused) as caught:
        head(header)
    assert caught.value.status == status


def test_a_chunked_body_in_http_1_0_is_refused_and_a_host_is_not_needed() -> None:
    Head(b"GET", b"/", "1.0", [], keep_alive=False)
    with pytest.raises(Refused):
        head((b"transfer-encoding", b"chunked"), version="1.0")


def _streamed(data: bytes) -> bytes:
    """A zstd frame that does not say its size."""
    made = zstandard.ZstdCompressor().compressobj()
    return made.compress(data) + made.flush()


PACK = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("pack", [zstandard.ZstdCompressor().compress, _streamed])
def test_a_zstd_bomb_stays_packed(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(1 << 28))
    tracemalloc.start()
    with pytest.raises(Refused) as caught:
        decompress(bomb, "zstd", 1 << 20)
    assert caught.value.status == 413
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    window = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compressobj()
    assert len(decompress(window.compress(b"x" * 1000) + window.flush(), "zstd", 1 << 20)) == 1000


@pytest.mark.parametrize("coding", PACK)
def test_decompress(coding: str) -> None:
    packed = PACK[coding](b"x" * 100)
    assert decompress(packed, coding, 100) == b"x" * 100
    with pytest.raises(Refused) as caught:
        decompress(packed, coding, 99)
    assert caught.value.status == 413
    for broken in (packed[:-1], packed + b"x", b"nonsense"):
        with pytest.raises(Refused):
            decompress(broken, coding, 100)


@pytest.mark.parametrize(("text", "safe"), [("a-1", True), ("", False), ("a b", False), ("a\r\nb: c", False), ("é", False), ("a" * 129, False)])
def test_is_header_safe(text: str, safe: bool) -> None:
    assert is_header_safe(text) is safe


def test_answer() -> None:
    assert answer(404, b"a: b\r\n", b"xy") == b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\na: b\r\n\r\nxy"
