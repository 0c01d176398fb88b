"""Fault 27: bodies that lie about their size, or become far more than they are."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress

import zstandard
from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

from serving import Answer, read_answer

MB = 1 << 20
LIMIT_MB, SPARE_MB = 16 * 1.048576, 20.0
INFER = b"POST /v2/models/line/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n"
JSON, BINARY = b"Content-Type: application/json\r\n", b"Content-Type: text/csv\r\n"
GOOD = scene.line(count=1).requests[0].partition(b"\r\n\r\n")[2]


def sized(lines: bytes, body: bytes, size: int | None = None) -> list[bytes]:
    """A message whose length says `size`, or the truth."""
    return [INFER + lines + b"Content-Length: %d\r\n\r\n" % (len(body) if size is None else size), body]


def chunked(lines: bytes, *chunks: bytes) -> list[bytes]:
    """A message in these chunks."""
    return [INFER + lines + b"Transfer-Encoding: chunked\r\n\r\n", *(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks), b"0\r\n\r\n"]


def parts(count: int) -> bytes:
    """A multipart body of `count` empty parts."""
    return b"".join([b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n"] * count) + b"--b--\r\n"


def cases() -> dict[str, Iterable[bytes]]:
    """By name: what is sent."""
    gz = b"Content-Encoding: gzip\r\n"
    deep = gzip.compress(gzip.compress(b" " * (64 * MB)))
    return {
        "1,000,000 chunks of one byte": [INFER + JSON + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n" * 10_000] * 100, b"0\r\n\r\n"],
        "1,000,000 chunks of one byte with extensions": [
            INFER + b"Transfer-Encoding: chunked\r\n\r\n",
            *[b"1;a=bcdefgh\r\n \r\n" * 10_000] * 100,
            b"0\r\n\r\n",
        ],
        "a length above the body, then the end": sized(JSON, GOOD, len(GOOD) + 100_000),
        "a length below the body": sized(JSON, GOOD, 10),
        "a length above the limit": sized(JSON, GOOD, 1 << 40),
        "a gzip bomb of 1,000:1": sized(JSON + gz, gzip.compress(b" " * (64 * MB))),
        "a gzip bomb of 1,000:1, CSV": sized(BINARY + gz, gzip.compress(b"1,2,3\n" * (12 * MB))),
        "a gzip bomb in chunks": chunked(
            JSON + gz, *(data[at : at + 1000] for data in [gzip.compress(b" " * (64 * MB))] for at in range(0, len(data), 1000))
        ),
        "a gzip in a gzip": sized(JSON + gz, deep),
        "a deflate bomb": sized(JSON + b"Content-Encoding: deflate\r\n", zlib.compress(b" " * (64 * MB))),
        "a zstd bomb": sized(JSON + b"Content-Encoding: zstd\r\n", zstandard.compress(b" " * (64 * MB))),
        "a zstd bomb that does not say its size": sized(
            JSON + b"Content-Encoding: zstd\r\n", zstandard.ZstdCompressor(write_content_size=False).compress(b" " * (64 * MB))
        ),
        "a boundary without end": sized(b"Content-Type: multipart/form-data; boundary=" + b"-" * 10_000 + b"\r\n", parts(10)),
        "200,000 parts": sized(b"Content-Type: multipart/form-data; boundary=b\r\n", parts(70_000)),
        "parts that never end": sized(b"Content-Type: multipart/form-data; boundary=b\r\n", b"--b\r\n" * 500_000),
    }


def run(scene_: Scene) -> None:
    with scene_.server(scene_.home("line")) as server:
        _send(server, sized(JSON, GOOD))
        server.mark()
        failed: list[str] = []
        longest_s, slowest, most, largest = 0.0, "", 0.0, ""
        for name, data in cases().items():
            with probes.Peak(server.worker()) as peak:
                answer, seconds = _send(server, data)
            if answer is None or answer.status not in {400, 411, 413, 415}:
                failed.append(f"{name}: {answer}")
            if seconds > longest_s:
                longest_s, slowest = seconds, name
            if peak.growth_mb > most:
                most, largest = peak.growth_mb, name
        scene_.item("not_refused", len(failed), 0, exact=True, note="; ".join(failed)[:400] or f"{len(cases())} bodies")
        scene_.item("slowest", longest_s, 1, "s", note=slowest)
        scene_.item("peak", most, LIMIT_MB + SPARE_MB, "MB", note=largest)


def _send(server: Server, data: Iterable[bytes]) -> tuple[Answer | None, float]:
    """What is answered, and how long it took from the last byte that the server took in; the sending side is closed behind it."""
    with server.connect(10) as connection, connection.makefile("rb") as stream:
        with suppress(OSError):
            for part in data:
                connection.sendall(part)
            connection.shutdown(1)
        began = time.monotonic()
        try:
            answer = read_answer(stream)
        except (OSError, AssertionError, ValueError):
            answer = None
        return answer, time.monotonic() - began


FAULT = Fault(
    number=27,
    name="bodies",
    title="Bodies that lie, and bombs",
    method=(
        "A million chunks of one byte, lengths above and below the truth, gzip, deflate and zstd bombs of 1,000:1, multipart bodies without"
        " end. Each must be refused with "
        "400, 413 or 415 within 1 s of what the server took in; the worker's memory, sampled every 5 ms, stays within the body limit (16 "
        "MiB) and 20 MB."
    ),
    run=run,
    controls=(
        Control(without="body limits", misses="peak", text="no limit on what a body becomes."),
        Control(without="refusals", misses="not_refused", text="every refusal of a body is called a failure of the server."),
    ),
    headline="peak",
)
