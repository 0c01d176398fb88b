"""Fault 25: headers and targets without end."""

from __future__ import annotations

import time

from tests.faults import probes
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

from serving import Answer, read_answer

MB = 1 << 20
GET, INFER = b"GET /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"POST /v2/models/line/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CASES = {
    "a header of 1 MB": [GET + b"X: ", *[b"a" * 65536] * 16, b"\r\n\r\n"],
    "a header's name of 1 MB": [GET, *[b"a" * 65536] * 16, b": x\r\n\r\n"],
    "10,000 headers": [GET, *[b"X-%d: 1\r\n" % turn for turn in range(10_000)], b"\r\n"],
    "a target of 200 KB": [b"GET /", b"a" * 200_000, b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    "a method of 1 MB": [b"G" * MB, b" / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    "a header of 200 MB": [GET + b"X: ", *[b"a" * MB] * 200],
    "a target of 200 MB": [b"GET /", *[b"a" * MB] * 200],
    "a body that says 200 MB": [INFER + b"Content-Length: 209715200\r\n\r\n", *[b" " * MB] * 200],
    "chunks of 200 MB": [INFER + b"Transfer-Encoding: chunked\r\n\r\n", *[b"100000\r\n" + b" " * MB + b"\r\n"] * 200],
    "a chunk's extension of 200 MB": [INFER + b"Transfer-Encoding: chunked\r\n\r\n1;x=", *[b"a" * MB] * 200],
    "a trailer of 200 MB": [INFER + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", *[b"a" * MB] * 200],
}
BODY_LIMIT_MB = 4 * 1.048576
"""A body of JSON may be held up to its limit of 4 MiB; the growth is counted beside it."""


def run(scene_: Scene) -> None:
    with scene_.server(scene_.home("line")) as server:
        for parts in (CASES["a header of 1 MB"], CASES["chunks of 200 MB"]):
            _send(server, parts)  # what the first of its kind makes the allocator keep is no growth
        server.mark()
        failed: list[str] = []
        most, which = 0.0, ""
        for name, parts in list(CASES.items())[: 6 if scene_.is_control else None]:
            with probes.Peak(server.worker()) as peak:
                answer, is_closed = _send(server, parts)
            if answer is None or answer.status not in {400, 413, 414, 431} or answer.headers.get("connection") != "close" or not is_closed:
                failed.append(f"{name}: {answer}")
            growth = peak.growth_mb - (BODY_LIMIT_MB if "body" in name or "chunks of" in name else 0)
            if growth > most:
                most, which = growth, name
        scene_.item(
            "not_refused", len(failed), 0, exact=True, note="; ".join(failed)[:300] or f"{len(CASES)} cases: 431, 414, 413 or 400, and closed"
        )
        scene_.item("peak", most, 5, "MB", note=which)


def _send(server: Server, parts: list[bytes]) -> tuple[Answer | None, bool]:
    """Send until the server has had enough; gives its answer, and whether it closed."""
    with server.connect(5) as connection, connection.makefile("rb") as stream:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass
        try:
            answer = read_answer(stream)
        except (OSError, AssertionError, ValueError):
            return None, True
        began = time.monotonic()
        try:
            while stream.read(65536):
                if time.monotonic() - began > 5:
                    return answer, False
        except TimeoutError:
            return answer, False
        except OSError:
            pass
        return answer, True


FAULT = Fault(
    number=25,
    name="overflow",
    title="Headers, targets and bodies without end",
    method=(
        "Eleven messages: headers of 1 MB and 200 MB, 10,000 headers, targets of 200 KB and 200 MB, 200 MB of body, chunks, chunk extension"
        " and trailer. Each must be answered "
        "431, 414, 413 or 400 and closed. The worker's memory is sampled every 5 ms; a body of JSON may be held up to its limit of 4 MiB."
    ),
    run=run,
    controls=(
        Control(without="header limits", misses="not_refused", text="no limit on header, target and number of fields."),
        Control(without="header limits", misses="peak", text="the same."),
    ),
    headline="peak",
)
