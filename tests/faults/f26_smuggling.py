"""Fault 26: messages that two parsers may read in two ways, by the rules of RFC 9110 and 9112.

The categories are those of gunicorn's corpus of invalid requests and of the design; the messages are written here.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server, line

from serving import Answer

BODY = line(count=1).requests[0].partition(b"\r\n\r\n")[2]
SIZE = b"%d" % len(BODY)
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
LAST = b"0\r\n\r\n"
SECOND = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Second: 1\r\n\r\n"
H = b"Host: 127.0.0.1\r\n"
TE = b"Transfer-Encoding: chunked\r\n"


def get(lines: bytes = b"", *, start: bytes = b"GET /v2 HTTP/1.1", host: bytes = H) -> bytes:
    """A GET with further header lines."""
    return start + b"\r\n" + host + lines + b"\r\n"


def post(lines: bytes, body: bytes = BODY, *, version: bytes = b"1.1") -> bytes:
    """A prediction with these framing lines."""
    return b"POST /v2/models/line/infer HTTP/%b\r\n%b%b\r\n%b" % (version, H, lines, body)


def chunked(body: bytes, lines: bytes = b"") -> bytes:
    """A prediction in chunks."""
    return post(TE + lines, body)


def _refused() -> Iterator[tuple[str, bytes]]:
    """What must be answered once, with a refusal, and closed."""
    # Lengths.
    for name, value in {
        "signed": b"+" + SIZE,
        "negative": b"-" + SIZE,
        "hexadecimal": b"0x5",
        "empty": b"",
        "of letters": b"five",
        "fractional": b"5.0",
        "endless": b"9" * 40,
        "with an underscore": b"1_0",
        "a list of equal ones": SIZE + b", " + SIZE,
        "a list of two": b"5, 6",
        "with a space inside": b"1 0",
        "of Unicode digits": "\u0665".encode(),
        "with a NUL": b"5\0",
        "with a vertical tab": b"\x0b5",
        "in quotes": b'"5"',
        "with a semicolon": b"5;",
    }.items():
        yield f"a length {name}", post(b"Content-Length: " + value + b"\r\n")
    yield "two lengths", post(b"Content-Length: 5\r\nContent-Length: 6\r\n")
    yield "two equal lengths", post(b"Content-Length: " + SIZE + b"\r\nContent-Length: " + SIZE + b"\r\n")
    yield "two lengths in two cases", post(b"Content-Length: 5\r\ncontent-length: 6\r\n")
    yield "a length with an underscore for a hyphen", post(b"Content_Length: 5\r\n")
    # Codings.
    yield "length, then coding", post(b"Content-Length: 5\r\n" + TE, LAST)
    yield "coding, then length", post(TE + b"Content-Length: 5\r\n", LAST)
    yield "length 0 and coding", post(b"Content-Length: 0\r\n" + TE, CHUNK + LAST)
    for name, value in {
        "twice in one line": b"chunked, chunked",
        "before another": b"chunked, gzip",
        "behind another": b"gzip, chunked",
        "unknown": b"xchunked",
        "identity": b"identity",
        "identity before chunked": b"identity, chunked",
        "in quotes": b'"chunked"',
        "with a parameter": b"chunked;x=1",
        "with a vertical tab": b"\x0bchunked",
        "empty": b"",
        "with a NUL": b"chunked\0",
        "with a trailing comma": b"chunked,",
        "with a leading comma": b",chunked",
        "in letters that look alike": "\u0441hunked".encode(),
        "with a space inside": b"chu nked",
        "of gzip": b"gzip",
    }.items():
        yield f"a coding {name}", post(b"Transfer-Encoding: " + value + b"\r\n", CHUNK + LAST)
    yield "coding twice", post(TE + TE, CHUNK + LAST)
    yield "coding twice, the second unknown", post(TE + b"Transfer-Encoding: x\r\n", CHUNK + LAST)
    yield "coding with an underscore", post(b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n")
    yield "coding in HTTP/1.0", post(TE, CHUNK + LAST, version=b"1.0")
    yield "coding and length in HTTP/1.0", post(TE + b"Content-Length: 5\r\n", CHUNK + LAST, version=b"1.0")
    # Chunks.
    for name, size in {
        "of letters": b"zz",
        "signed": b"+5",
        "negative": b"-5",
        "with 0x": b"0x5",
        "with an underscore": b"1_0",
        "empty": b"",
        "overflowing": b"f" * 17,
        "with a space before": b" 5",
        "with a NUL": b"5\0",
        "of Unicode digits": "\u0665".encode(),
        "with a space inside": b"1 0",
    }.items():
        yield f"a chunk size {name}", chunked(size + b"\r\n" + BODY + b"\r\n" + LAST)
    yield "a chunk longer than its size", chunked(b"1\r\n" + BODY + b"\r\n" + LAST)
    yield "a chunk without its end", chunked(b"%x\r\n%b" % (len(BODY), BODY) + LAST)
    yield "a chunk size ended by a bare line feed", chunked(b"%x\n%b\r\n" % (len(BODY), BODY) + LAST)
    yield "a chunk ended by a bare line feed", chunked(b"%x\r\n%b\n" % (len(BODY), BODY) + LAST)
    yield "a chunk size ended by a bare carriage return", chunked(b"%x\r%b\r\n" % (len(BODY), BODY) + LAST)
    yield "a chunk's extension with a line feed", chunked(b"%x;x=\n%b\r\n" % (len(BODY), BODY) + LAST)
    yield "the last chunk without its end", chunked(CHUNK + b"0\r\nGET")
    yield "a trailer with a bare line feed", chunked(CHUNK + b"0\r\nX: 1\n\r\n")
    yield "a trailer that is folded", chunked(CHUNK + b"0\r\nX: 1\r\n y\r\n\r\n")
    yield "a trailer without a colon", chunked(CHUNK + b"0\r\nnonsense\r\n\r\n")
    # Header lines.
    for name, lines in {
        "a space before the colon": b"X : 1\r\n",
        "a tab before the colon": b"X\t: 1\r\n",
        "a space before the name": b" X: 1\r\n",
        "a folded line": b"X: 1\r\n y\r\n",
        "a folded line with a tab": b"X: 1\r\n\ty\r\n",
        "no colon": b"nonsense\r\n",
        "no name": b": 1\r\n",
        "a NUL in a value": b"X: a\0b\r\n",
        "a NUL in a name": b"X\0: 1\r\n",
        "a bare carriage return in a value": b"X: a\rb\r\n",
        "a bare line feed behind a value": b"X: a\nY: b\r\n",
        "a name in quotes": b'"X": 1\r\n',
        "a name with a slash": b"X/Y: 1\r\n",
        "a name beyond ASCII": "Xé: 1\r\n".encode(),
        "a name with a bracket": b"X[]: 1\r\n",
        "a bell in a value": b"X: a\x07b\r\n",
        "a delete in a value": b"X: a\x7fb\r\n",
        "an escape in a value": b"X: \x1b[31m\r\n",
        "a folded length": b"Content-Length:\r\n 5\r\n",
        "a name with a space": b"X Y: 1\r\n",
        "a name with a control": b"X\x01: 1\r\n",
        "an at sign in a name": b"X@Y: 1\r\n",
        "a line of one space": b" \r\n",
    }.items():
        yield name, get(lines)
    yield "no host", get(host=b"")
    yield "two hosts", get(b"Host: other\r\n")
    yield "a length with a space before the colon", post(b"Content-Length : 5\r\n")
    yield "a coding with a space before the colon", post(b"Transfer-Encoding : chunked\r\n", CHUNK + LAST)
    yield "more than 100 fields", get(b"".join(b"X-%d: 1\r\n" % turn for turn in range(120)))
    yield "a field of 20 KB", get(b"X: " + b"a" * 20_000 + b"\r\n")
    # Start lines.
    for name, start in {
        "a method in small letters": b"get /v2 HTTP/1.1",
        "a method of its own": b"BREW /v2 HTTP/1.1",
        "a method with a colon": b"GE:T /v2 HTTP/1.1",
        "an empty method": b" /v2 HTTP/1.1",
        "a method beyond ASCII": "GÉT /v2 HTTP/1.1".encode(),
        "a method with a NUL": b"GE\0T /v2 HTTP/1.1",
        "no target": b"GET HTTP/1.1",
        "two targets": b"GET /v2 /v2 HTTP/1.1",
        "a relative target": b"GET v2 HTTP/1.1",
        "an authority for a target": b"GET 127.0.0.1:80 HTTP/1.1",
        "a target with a fragment": b"GET /v2#x HTTP/1.1",
        "a target with a NUL": b"GET /v2\0 HTTP/1.1",
        "a target with a tab": b"GET /v2\tx HTTP/1.1",
        "a target of 10 KB": b"GET /" + b"a" * 10_000 + b" HTTP/1.1",
        "a scheme of another kind": b"GET ftp://127.0.0.1/v2 HTTP/1.1",
        "HTTP/0.9": b"GET /v2",
        "HTTP/1.2": b"GET /v2 HTTP/1.2",
        "HTTP/2.0": b"GET /v2 HTTP/2.0",
        "HTTP/1.10": b"GET /v2 HTTP/1.10",
        "HTTP/01.1": b"GET /v2 HTTP/01.1",
        "no digits in the version": b"GET /v2 HTTP/x.y",
        "a version in small letters": b"GET /v2 http/1.1",
        "another protocol": b"GET /v2 ICE/1.0",
        "a version beyond ASCII": "GET /v2 HTTP/1.\u0661".encode(),
        "an asterisk for a GET": b"GET * HTTP/1.1",
        "a tunnel": b"CONNECT 127.0.0.1:443 HTTP/1.1",
        "a tab for a space": b"GET\t/v2\tHTTP/1.1",
        "a space before the method": b" GET /v2 HTTP/1.1",
    }.items():
        yield name, get(start=start)
    yield "a bare line feed behind the start", b"GET /v2 HTTP/1.1\n" + H + b"\r\n"
    yield "bare line feeds", b"GET /v2 HTTP/1.1\nHost: 127.0.0.1\n\n"
    yield "bare carriage returns", b"GET /v2 HTTP/1.1\rHost: 127.0.0.1\r\r"
    yield "empty lines before the start", b"\r\n" * 1000 + get()
    yield "a NUL before the start", b"\0" + get()
    yield "the PROXY protocol", b"PROXY TCP4 192.168.0.1 192.168.0.2 1 2\r\n" + get()
    yield "a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield "another protocol asked for", get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    yield "an odd expectation", post(b"Content-Length: " + SIZE + b"\r\nExpect: 200-ok\r\n")


REFUSED = dict(_refused())
"""By name. What follows in each of them on the connection is never answered."""

PREDICTED = b'"outputs"'
ONE_READING = {
    "HTTP/2 offered, which may be ignored": (
        post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: " + SIZE + b"\r\n"),
        PREDICTED,
    ),
    "a body behind which another request comes": (post(b"Content-Length: " + SIZE + b"\r\n"), PREDICTED),
    "chunks behind which another request comes": (chunked(CHUNK + LAST), PREDICTED),
    "chunk sizes with zeros before": (chunked(b"000000%x\r\n%b\r\n" % (len(BODY), BODY) + LAST), PREDICTED),
    "a chunk's extension": (chunked(b"%x;a=b\r\n%b\r\n" % (len(BODY), BODY) + LAST), PREDICTED),
    "a trailer": (chunked(CHUNK + b"0\r\nX: 1\r\n\r\n"), PREDICTED),
    "a coding in capitals": (post(b"Transfer-Encoding: CHUNKED\r\n", CHUNK + LAST), PREDICTED),
    "a request inside a body": (post(b"Content-Length: %d\r\n" % len(SECOND), SECOND), b'"error"'),
    "a length for a GET": (get(b"Content-Length: %d\r\n" % len(SECOND)) + SECOND, b'"modelyard"'),
    "a value beyond ASCII": (get(b"X: \xff\xfe\r\n"), b'"modelyard"'),
    "an absolute target": (get(start=b"GET http://127.0.0.1/v2 HTTP/1.1"), b'"modelyard"'),
    "two spaces in the start line": (get(start=b"GET  /v2 HTTP/1.1"), b'"modelyard"'),
    "a length in a trailer": (chunked(CHUNK + b"0\r\nContent-Length: 5\r\n\r\n"), PREDICTED),
    "a coding in a trailer": (chunked(CHUNK + b"0\r\nTransfer-Encoding: gzip\r\n\r\n"), PREDICTED),
    "a host in a trailer": (chunked(CHUNK + b"0\r\nHost: other\r\n\r\n"), PREDICTED),
}
"""By name: the message, and what its answer holds. One answer to it and one to the request behind, or a refusal and a close."""


def run(scene_: Scene) -> None:
    with scene_.server(scene_.home("line")) as server:
        wrong = [f"{name}: {answers}" for name, data in REFUSED.items() if not _is_refused(answers := _send(server, data + SECOND))]
        scene_.item("not_refused", len(wrong), 0, exact=True, note="; ".join(wrong)[:600] or f"{len(REFUSED)} messages")
        wrong = [f"{name}: {answers}" for name, (data, held) in ONE_READING.items() if not _has_one_reading(_send(server, data + SECOND), held)]
        scene_.item("two_readings", len(wrong), 0, exact=True, note="; ".join(wrong)[:600] or f"{len(ONE_READING)} messages")
        by_bytes = [name for name, data in REFUSED.items() if not _is_refused(_send(server, data + SECOND, step=7))] if not scene_.is_control else []
        scene_.item("not_refused_in_pieces", len(by_bytes), 0, exact=True, note="; ".join(by_bytes)[:300] or "the same, sent seven bytes at a time")


def _send(server: Server, data: bytes, *, step: int = 0) -> list[Answer]:
    """All answers on one connection, until the server closes or says nothing for a while."""
    if not step:
        try:
            return server.send(data, timeout=0.4)
        except (TimeoutError, AssertionError):
            return []
    from serving import read_answer

    answers: list[Answer] = []
    with server.connect(0.4) as connection, connection.makefile("rb") as stream:
        try:
            for at in range(0, min(len(data), 4000), step):
                connection.send(data[at : at + step])
            connection.sendall(data[4000:])
        except OSError:
            pass
        try:
            while (answer := read_answer(stream)) is not None:
                answers.append(answer)
        except (OSError, AssertionError):
            pass
    return answers


def _is_refused(answers: list[Answer]) -> bool:
    return len(answers) == 1 and answers[0].status in {400, 414, 417, 431, 501, 505} and answers[0].headers.get("connection") == "close"


def _has_one_reading(answers: list[Answer], held: bytes) -> bool:
    if _is_refused(answers):
        return True
    if len(answers) == 1:  # what came behind was the body
        return held in answers[0].body and b"X-Second" in SECOND
    return len(answers) == 2 and held in answers[0].body and answers[1].body == b'{"live":true}'


FAULT = Fault(
    number=26,
    name="smuggling",
    title=f"{len(REFUSED) + len(ONE_READING)} messages that two parsers may read in two ways",
    method=(
        "Each is sent whole, with a further request behind it on the same connection, and again seven bytes at a time: one refusal "
        "(400, 414, 417, 431, 501, 505), a close, and never an answer to what follows. Some are well-formed and have one reading, "
        "which must be taken."
    ),
    run=run,
    controls=(Control(without="strict parsing", misses="not_refused", text="llhttp with all its leniencies, and no check of our own on the head."),),
    headline="not_refused",
)
