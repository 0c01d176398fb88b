"""A small HTTP/1.1 server for one event loop: request in, answer out, in order, within limits.

Hides connections, pipelining, timeouts and back-pressure. A head that was read before, byte for byte, is not parsed again, and a body whose length
is known goes past the parser, which would copy it (a large one straight into its place, see `serve.body`); everything else goes through httptools
(llhttp). It must not know routes, wires or models: it hands each `Exchange` to one callable and writes what that answers with. All of it runs in the
event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import gmtime, monotonic, time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httptools

from modelyard.config import Settings
from modelyard.errors import ModelyardError
from modelyard.protocols.base import JSON_LINES, encode_json
from modelyard.serve.body import Incoming, space
from modelyard.serve.http import (
    BODY_BYTES_S,
    BODY_GRACE_S,
    CHUNKS,
    HEADER_BYTES,
    HEADER_COUNT,
    HEADER_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    LARGE_MEDIA,
    LINGER_S,
    PIPELINED,
    STALLED_WRITE_S,
    STATUS_LINES,
    URL_BYTES,
    Asked,
    Head,
    Refused,
    answer,
    decompress,
    is_header_safe,
    model_lines,
    too_large,
)
from modelyard.serve.http2 import PREFACE
from modelyard.serve.tls import HANDSHAKE_TIMEOUT_S, SHUTDOWN_TIMEOUT_S, Tls

if TYPE_CHECKING:
    from modelyard.types import InferenceRequest, InferenceResponse

PIECE_BYTES = 1024
KNOWN_HEADS = 1024
KNOWN_HEAD_BYTES = 2048
SWEEP_S = 0.5
CHUNK_OVERHEAD_BYTES = 4 << 20
"""What the framing of a chunked body (sizes, extensions, trailers) may take beside its bytes."""
WRITE_BYTES = int(STALLED_WRITE_S) * BODY_BYTES_S
"""What a caller must take of its answers in STALLED_WRITE_S."""
SMALL_PART_BYTES = 4096
"""Parts of a body smaller than this are put together as they come: kept apart, each would cost more than it holds."""
STRAIGHT_BYTES = 64 << 10
"""Where as much of a body is still to come it goes straight into its place, once so much of it has come:"""
STRAIGHT_SHARE = 1 / 4
"""so that nobody takes more than four times the memory of what was really sent."""
LARGE_BYTES = 64 << 10
"""A body above this is kept only for a caller who may ask."""
LINGER_BYTES = 32 << 20
"""What is read and dropped behind a refusal, so that a caller who is still sending gets to read why."""

BODY_RULES = frozenset({"body_size", "chunks", "body_rate", "content-encoding"})
"""What a body, and no header, was refused for."""

WAITING, HEADER, BODY, CLOSING = "waiting", "header", "body", "closing"


class Exchange:
    """One request and its answer to be; answered exactly once, by `reply`. Fields behind `received_s` belong to the edge."""

    __slots__ = (
        "_answer",
        "body",
        "codec",
        "connection",
        "deadline_s",
        "extra",
        "head",
        "prepared_s",
        "priority",
        "received_s",
        "request",
        "version",
    )

    def __init__(self, connection: Connection, head: Head, body: bytes | bytearray, received_s: float) -> None:
        self.connection = connection
        self.head = head
        self.body = body
        self.received_s = received_s
        self._answer: bytes | None = None
        self.request: InferenceRequest
        self.codec: Any = None
        self.version: Any = None
        self.deadline_s = 0.0
        self.extra = b""
        """Header lines that whatever is answered will carry."""
        self.priority = head.priority
        self.prepared_s = received_s

    @property
    def traceparent(self) -> bytes:
        """The caller's trace context; empty without one."""
        return self.head.traceparent

    @property
    def asked(self) -> Asked:
        """What a trace tells of it."""
        return Asked(self.head, "http" if self.connection.server.tls is None else "https")

    @property
    def is_answered(self) -> bool:
        """Whether it has its answer, which may wait behind earlier ones."""
        return self._answer is not None

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for the answer."""
        return self._answer is None and self.connection.transport is not None

    def answer(self, response: InferenceResponse) -> None:
        """Answer with a prediction, in the form of the request's wire."""
        lines, body = self.codec.encode(self.request, response)
        given = response.id
        shown = given if is_header_safe(given) else quote(given[:64])
        self.reply(200, b"%bx-prediction-id: %b\r\n" % (lines, shown.encode()), body)

    def fail(self, error: ModelyardError) -> None:
        """Answer with a refusal."""
        self.connection.server.on_failed(self, error)

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer with `status`, further header `lines` and `body`."""
        head, connection = self.head, self.connection
        if self.extra:
            lines += self.extra
        if self.version is not None:
            lines += model_lines(self.version.name, self.version.number)
        if head.request_id:
            lines += b"x-request-id: %b\r\n" % head.request_id
        if head.traceparent:
            lines += b"traceparent: %b\r\n" % head.traceparent
        if not head.keep_alive or connection.server.is_draining:
            lines += b"connection: close\r\n"
        elif head.is_http_1_0:
            lines += b"connection: keep-alive\r\n"
        data = b"%bcontent-length: %d\r\n%b%b\r\n" % (STATUS_LINES[status], len(body), connection.server.date, lines)
        self._answer = data if head.method == b"HEAD" else data + body
        connection.flush()


class Connection(asyncio.Protocol):
    """One client's connection. Its phases: WAITING for a message, in its HEADER, in its BODY, CLOSING."""

    __slots__ = (
        "_body",
        "_body_limit",
        "_body_mark",
        "_chunks",
        "_head",
        "_head_raw",
        "_header_bytes",
        "_headers",
        "_held",
        "_is_between",
        "_is_write_paused",
        "_missing",
        "_parser",
        "_parts",
        "_raw_left",
        "_rest",
        "_unnamed_bytes",
        "_unsent",
        "_url",
        "is_reading",
        "pending",
        "phase",
        "server",
        "since_s",
        "transport",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: Any = None
        self.pending: deque[Exchange] = deque()
        self.phase = HEADER  # the first request has the header's time from the moment of connecting
        self.since_s = monotonic()
        self.is_reading = True
        self._is_write_paused = False
        self._unsent = 0  # at the last look, or when the stretch began
        self._held: deque[Exchange] = deque()  # read, and not handled while nobody takes the answers before it
        self._rest = b""  # received and not yet parsed
        self._is_between = True  # the parser stands before the first byte of a message
        self._parser: Any = None
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._head_raw = 0
        self._head: Head | None = None
        self._body: bytes | bytearray = b""
        self._body_limit = 0
        self._body_mark = 0
        self._parts: list[bytes | bytearray | memoryview] = []  # of a body of known length, as they came
        self._missing = 0  # bytes of it still to come
        self._chunks = 0
        self._raw_left = 0
        self._unnamed_bytes = 0

    # asyncio calls these.

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=256 << 10)
        server = self.server
        if server.tls is not None and not server.tls.admits(transport.get_extra_info("ssl_object")):
            self.phase = CLOSING
            transport.abort()
            return
        if len(server.connections) >= server.settings.max_connections:
            transport.write(answer(503, JSON_LINES + b"retry-after: 1\r\nconnection: close\r\n", server.full))
            transport.close()
            self.phase = CLOSING
        server.connections.add(self)
        server.accepted += 1

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self.server.connections.discard(self)
        self.transport = None
        self.pending.clear()
        self._held.clear()
        self._body = b""
        self._parts = []
        self._parser = None

    def eof_received(self) -> bool:
        if self.transport is None or not self.transport.can_write_eof():
            return False
        if not self.pending:
            if not self._is_between and self.phase != CLOSING:
                self.refuse(400, "the message ended before it was whole", "http")
            return False
        self.phase = CLOSING
        self.since_s = monotonic()
        self.server.loop.call_soon(self._leave)
        return True  # what is answered in this turn still goes out; `flush` closes behind the last answer

    def _leave(self) -> None:
        """A caller who sends no more cannot be told from one who is gone: what would have to wait is not run for it."""
        if self.transport is not None and self.pending:
            self.transport.close()
            if self.transport.get_write_buffer_size():  # nobody sweeps it any more
                self.server.loop.call_later(STALLED_WRITE_S, self.transport.abort)
            self.transport = None
            self.pending.clear()

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self.since_s = monotonic()
        self._stop_reading()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self.since_s = monotonic()
        while self._held and not self._is_write_paused:
            self.server.handle(self._held.popleft())
        self._go_on_reading()

    def data_received(self, data: bytes) -> None:
        if self.phase == CLOSING or self.transport is None:
            self._discard(len(data))
            return
        if self._rest:
            self._rest += data
            return
        if self._missing:
            try:
                data = bytes(self._gather(data))
            except Refused as refused:
                self.refuse(refused.status, refused.message, refused.rule)
                return
            if not data:
                return
            if self.phase == CLOSING:
                self._discard(len(data))
                return
        now = monotonic()
        if self._is_between:
            end = data.find(b"\r\n\r\n") + 4
            head = self.server.heads.get(data[:end])
            if head is not None and len(data) - end <= head.length:
                if len(data) - end == head.length:
                    self._dispatch(head, data[end:], now)
                else:
                    self._receive(head, memoryview(data)[end:])
                return
            if self._parser is None and self.phase == HEADER and self.server.adopt is not None and data.startswith(PREFACE):
                self.server.adopt(self._let_go(), data)
                return
        try:
            self._parse(data)
        except Refused as refused:
            if self.phase != CLOSING:  # what came behind a last message is nobody's business
                self.refuse(refused.status, refused.message, refused.rule)

    def _let_go(self) -> Any:
        """The transport, which another protocol goes on with."""
        self.server.connections.discard(self)
        transport, self.transport = self.transport, None
        return transport

    # httptools calls these; what they raise arrives as HttpParserCallbackError.

    def on_message_begin(self) -> None:
        self._begin()
        self._is_between = False
        self.phase = HEADER
        self.since_s = monotonic()

    def on_url(self, part: bytes) -> None:
        self._url += part
        if len(self._url) > URL_BYTES:
            raise Refused(414, f"the request target is longer than {URL_BYTES:,} bytes", "url")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > HEADER_BYTES or len(self._headers) >= HEADER_COUNT:
            raise Refused(431, f"the header is larger than {HEADER_BYTES:,} bytes or {HEADER_COUNT} fields", "header")
        self._headers.append((name.lower(), value))  # of a trailer too, which is counted and without meaning: the head is read already

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade():
            offered = {token.strip().lower() for name, value in self._headers if name == b"upgrade" for token in value.split(b",")}
            if offered != {b"h2c"}:
                raise Refused(501, "this server does not change protocols", "upgrade")
            return  # `_feed` reads the head again without the offer
        version = parser.get_http_version()
        head = Head(parser.get_method(), self._url, version, self._headers, keep_alive=parser.should_keep_alive())
        self._expect(head)

    def _receive(self, head: Head, part: memoryview) -> None:
        """Begin the message of a head that was read before, whose body is still on its way; the parser sees nothing of it."""
        self.on_message_begin()
        try:
            self._expect(head)
            self._missing = head.length
            if part:
                self._gather(part)
        except Refused as refused:
            if self.phase != CLOSING:
                self.refuse(refused.status, refused.message, refused.rule)

    def _expect(self, head: Head) -> None:
        """Let the body behind `head` come, or refuse it."""
        self._head = head
        settings = self.server.settings
        # Whatever is no bulk form and has no binary parts is read as JSON, whatever it calls itself.
        is_json = head.json_bytes is None and head.media not in LARGE_MEDIA
        self._body_limit = settings.max_json_bytes if is_json else settings.max_body_bytes
        if (head.json_bytes or 0) > settings.max_json_bytes:
            raise Refused(413, too_large(settings.max_json_bytes), "body_size")
        if (head.is_chunked or head.length > LARGE_BYTES) and not self._may_send(head):
            self._body_limit = min(self._body_limit, LARGE_BYTES)
        if head.length > self._body_limit:
            raise Refused(413, too_large(self._body_limit), "body_size")
        self._raw_left = self._body_limit + CHUNK_OVERHEAD_BYTES
        self.phase = BODY
        self.since_s = monotonic()
        if head.expects_continue and (head.length or head.is_chunked) and not self.pending:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _may_send(self, head: Head) -> bool:
        """Whether a large body may come; whoever may not ask at all is answered before anything of it is kept."""
        try:
            return self.server.admit_large(head)
        except ModelyardError as error:
            exchange = Exchange(self, head, b"", monotonic())
            if head.keep_alive:
                exchange.extra = b"connection: close\r\n"
            self.phase = CLOSING
            self.pending.append(exchange)
            self.server.on_failed(exchange, error)
            raise Refused(0, error.message, "denied") from None  # ends the parsing; the answer is given

    def on_chunk_header(self) -> None:
        self._unnamed_bytes = 0
        self._chunks += 1
        if self._chunks > CHUNKS:
            raise Refused(413, f"the body has more than {CHUNKS:,} chunks", "chunks")

    def on_body(self, part: bytes) -> None:
        self._unnamed_bytes = 0
        if not self._body:
            self._body = part
        else:
            if type(self._body) is bytes:
                self._body = bytearray(self._body)
            self._body += part
        if len(self._body) > self._body_limit:
            raise Refused(413, too_large(self._body_limit), "body_size")

    def on_message_complete(self) -> None:
        head, body = self._head, self._body
        if self._parser.should_upgrade():
            return
        if head is None:
            raise Refused(400, "the message is malformed", "http")
        self._complete(head, body)

    def _complete(self, head: Head, body: bytes | bytearray) -> None:
        if head.coding and body:
            body = decompress(body, head.coding, self._body_limit)
        self._begin()
        self._is_between = True
        self._dispatch(head, body, monotonic())

    def _gather(self, data: bytes | memoryview) -> bytes | memoryview:
        """Keep what of `data` belongs to a body of known length, and go on with the message once that is whole; gives what came behind it."""
        missing, parts = self._missing, self._parts
        part, rest = (data, data[:0]) if len(data) <= missing else (data[:missing], data[missing:])
        if len(part) >= SMALL_PART_BYTES:
            parts.append(part)
        elif parts and type(parts[-1]) is bytearray:
            parts[-1] += part
        else:
            parts.append(bytearray(part))
        self._missing -= len(part)
        if not self._missing and self._head is not None:
            self._parser = None  # it still waits for this body
            self._complete(self._head, b"".join(parts))
        elif self._missing >= STRAIGHT_BYTES and self._head is not None:
            self._receive_straight(self._head)
        return rest

    def _receive_straight(self, head: Head) -> None:
        """Let what is missing of the body come straight into its place, if enough of it has come."""
        came = head.length - self._missing
        if came < STRAIGHT_SHARE * head.length or self.server.tls is not None:  # TLS copies as it decrypts
            return
        body = space(head.length, before=head.json_bytes or 0)
        at = 0
        with memoryview(body) as place:
            for part in self._parts:
                place[at : at + len(part)] = part
                at += len(part)
        self._body, self._parts = body, []
        self.transport.set_protocol(Incoming(self, body, came))

    def arrived(self, size: int) -> bool:
        """See `body.Receiver`."""
        if self.phase == CLOSING or self.transport is None:
            self._discard(size)
            return False
        self._missing -= size
        if not self._missing and self._head is not None:
            self.transport.set_protocol(self)
            self._parser = None
            try:
                self._complete(self._head, self._body)
            except Refused as refused:
                self.refuse(refused.status, refused.message, refused.rule)
        return True

    def _parse(self, data: bytes) -> None:
        first = data if self._is_between else None
        if first is not None and not 65 <= data[0] <= 90:
            raise Refused(400, "a request begins with a method", "http")
        view = memoryview(data)
        while view:
            if not self.is_reading:
                # Enough is under way: the rest waits here until answers have left.
                self._rest = bytes(view)
                return
            # Of heads so little at once that few requests can begin in it.
            piece = view[: HEADER_BYTES if self.phase == BODY else PIECE_BYTES]
            view = view[len(piece) :]
            if self.phase == BODY:
                self._raw_left -= len(piece)
                if self._raw_left < 0:
                    raise Refused(413, too_large(self._body_limit), "body_size")
            else:
                self._head_raw += len(piece)
            self._feed(piece)
            if self.phase == CLOSING:
                return
            if self.phase == BODY and self._head is not None:
                if not self._head.is_chunked:
                    if first is not None:
                        self._keep(first, self._head, len(first) - len(view) - len(self._body))
                    self._parts = [self._body] if self._body else []
                    self._missing = self._head.length - len(self._body)
                    view = memoryview(self._gather(view))
                    if self.phase == CLOSING:
                        return
                    continue
                self._unnamed_bytes += len(piece)  # since the last byte of a body: a chunk's extension, or a trailer
            if (self.phase == HEADER and self._head_raw > 2 * HEADER_BYTES) or self._unnamed_bytes > 2 * HEADER_BYTES:
                # httptools hands a header over when it has all of it, and would keep any amount until then.
                raise Refused(431, f"the header is larger than {HEADER_BYTES:,} bytes or {HEADER_COUNT} fields", "header")
        if first is not None:
            self._remember(first)

    def _feed(self, piece: memoryview) -> None:
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise
        except httptools.HttpParserUpgrade as error:
            self._decline(piece[error.args[0] :])
        except httptools.HttpParserError:
            raise Refused(400, "the message is not HTTP/1.1 as RFC 9112 has it", "http") from None

    def _decline(self, rest: memoryview) -> None:
        """Ignore an offer of h2c, which Java's client makes on every plain connection and a server may ignore (RFC 9110, 7.8).

        The parser takes what is behind such a head for the other protocol: so the head is read once more without the offer, and what follows with it.
        """
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._url, self._parser.get_http_version().encode())]
        for name, value in self._headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() not in {b"upgrade", b"http2-settings"}]
                value = b",".join(kept)  # noqa: PLW2901
            if value and name not in {b"upgrade", b"http2-settings"}:
                lines.append(name + b": " + value)
        self._parser = httptools.HttpRequestParser(self)
        self._feed(memoryview(b"\r\n".join(lines) + b"\r\n\r\n"))
        if rest and self.phase != CLOSING:
            self._feed(rest)

    def _remember(self, data: bytes) -> None:
        """Keep the head of `data` when it was exactly one whole message: then the same head, byte for byte, means the same again."""
        head = self.server.last_head
        if head is not None and self._is_between:
            self._keep(data, head, len(data) - head.length)

    def _keep(self, data: bytes, head: Head, end: int) -> None:
        """Keep `head` if it is the first `end` bytes of `data`, and means the same whenever it comes."""
        if not head.is_cacheable or head.is_chunked or head.coding or head.expects_continue or end > KNOWN_HEAD_BYTES:
            return
        if data.find(b"\r\n\r\n") + 4 == end:
            heads = self.server.heads
            if len(heads) >= KNOWN_HEADS:
                heads.clear()
            heads[data[:end]] = head

    # Requests and answers.

    def _dispatch(self, head: Head, body: bytes | bytearray, now: float) -> None:
        exchange = Exchange(self, head, body, now)
        self.phase = WAITING
        self.since_s = now
        self.pending.append(exchange)
        if not head.keep_alive:
            self.phase = CLOSING  # nothing behind this message is read
        server = self.server
        server.last_head = head
        if len(self.pending) >= PIPELINED:
            self._stop_reading()
        if self._is_write_paused:
            self._held.append(exchange)
        else:
            server.handle(exchange)

    def flush(self) -> None:
        """Write the answers that are due, in the order of their requests."""
        pending, transport = self.pending, self.transport
        if transport is None:
            return
        while pending and pending[0]._answer is not None:
            transport.write(pending.popleft()._answer)
        if pending:
            return
        self.since_s = monotonic()
        if self.phase == CLOSING or (self.server.is_draining and self.phase == WAITING):
            self._close()
        elif not self.is_reading:
            self._go_on_reading()

    def refuse(self, status: int, message: str, rule: str) -> None:
        """Answer a message that cannot be read, behind the answers still due, and close."""
        if self.transport is None:
            return
        self.server.on_refused(status, rule)
        field = "body" if rule in BODY_RULES else "header"
        body = encode_json({"error": message, "code": "malformed_message", "field": field, "rule": rule})
        exchange = Exchange(self, _LAST, b"", monotonic())
        self.phase = CLOSING
        self.pending.append(exchange)
        exchange.reply(status, JSON_LINES, body)

    def _close(self) -> None:
        """Say that no more will be sent, then wait a little for the other side, so that a reset does not overtake the answer."""
        self.phase = CLOSING
        self.since_s = monotonic()
        self._raw_left = 0
        self._parser = None
        if not self.transport.can_write_eof():  # TLS ends both directions at once, behind what is still to be written
            self.transport.close()
            return
        self.transport.write_eof()
        self._go_on_reading()

    def _discard(self, size: int) -> None:
        """What comes behind the last message is dropped, and dropped for good when it does not end."""
        self._raw_left -= size
        if self._raw_left < -LINGER_BYTES and self.transport is not None:
            self.transport.abort()

    def _stop_reading(self) -> None:
        if self.is_reading and self.transport is not None:
            self.is_reading = False
            self.transport.pause_reading()

    def _go_on_reading(self) -> None:
        if self.is_reading or self._is_write_paused or self.transport is None:
            return
        self.is_reading = True
        self.since_s = monotonic()
        if self._rest:
            self.server.loop.call_soon(self._go_on_parsing)
        else:
            self.transport.resume_reading()

    def _go_on_parsing(self) -> None:
        """Take up what was left when enough was under way; only then read on."""
        rest, self._rest = self._rest, b""
        if rest:
            self.data_received(rest)
        if self.is_reading and self.transport is not None:
            self.transport.resume_reading()

    @property
    def is_sending(self) -> bool:
        """Whether a part of an answer waits for its caller to take it."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def sweep(self, now: float) -> None:
        """Close what has overstayed; called about every half second."""
        if self.transport is None:
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent > self._unsent or self._unsent - unsent >= (WRITE_BYTES if unsent else 1):
            self._unsent = unsent
            if self._is_write_paused or self.phase == CLOSING:
                self.since_s = now  # it takes its answers; the next stretch begins
        age_s = now - self.since_s
        if self._is_write_paused or (self.phase == CLOSING and (unsent or not self.transport.can_write_eof())):
            if age_s > STALLED_WRITE_S and (unsent or not self.pending):
                self.transport.abort()
        elif self.phase == CLOSING:
            if not self.pending and age_s > LINGER_S:
                self.transport.abort()
        elif not self.is_reading:
            return  # it is we who hold it up
        elif self.phase == HEADER:
            if age_s <= HEADER_TIMEOUT_S - 2 * SWEEP_S:  # at the next look, a little late under load, it would be later than promised
                return
            if self._is_between:  # it has asked nothing: an answer now might be taken for that of its first request
                self._close()
            else:
                self.refuse(408, f"the header did not arrive within {HEADER_TIMEOUT_S:.0f} s", "header_time")
        elif self.phase == BODY:
            if age_s <= BODY_GRACE_S:
                return
            came = len(self._body) if self._head is None or not self._missing else self._head.length - self._missing
            if came - self._body_mark >= BODY_BYTES_S * BODY_GRACE_S:
                self._body_mark, self.since_s = came, now  # fast enough; the next stretch begins
            else:
                self.refuse(408, f"the body arrived slower than {BODY_BYTES_S:,} bytes/s", "body_rate")
        elif not self.pending and age_s > IDLE_TIMEOUT_S:
            self._close()


_LAST = Head(b"GET", b"/", "1.1", [(b"host", b"")], keep_alive=False)


class Server:
    """All connections of one worker. `handle` is called for each whole request, in the event loop; `admit_large` before a large body is kept."""

    def __init__(
        self,
        settings: Settings,
        *,
        handle: Callable[[Exchange], None],
        on_failed: Callable[[Exchange, ModelyardError], None],
        on_refused: Callable[[int, str], None],
        admit_large: Callable[[Head], bool] = lambda _: True,
    ) -> None:
        self.settings = settings
        self.handle = handle
        self.on_failed = on_failed
        self.on_refused = on_refused
        self.admit_large = admit_large
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.accepted = 0
        """Connections so far."""
        self.heads: dict[bytes, Head] = {}
        self.last_head: Head | None = None
        self.is_draining = False
        self.date = b""
        self.full = encode_json({"error": "this server has as many connections as it takes; try again", "code": "overloaded"})
        self.tls: Tls | None = None
        self.adopt: Callable[[Any, bytes], None] | None = None
        """Goes on with a connection (its transport, and what it has sent) that begins as HTTP/2 does."""
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep()

    def _sweep(self) -> None:
        self.date = date_line(time())
        now = monotonic()
        for connection in list(self.connections):
            connection.sweep(now)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    async def listen(self, sock: Any, tls: Tls | None = None) -> None:
        """Accept connections from the bound socket `sock`, inside `tls` where given."""
        secure: dict[str, Any] = {}
        if tls is not None:
            self.tls = tls
            secure = {"ssl": tls.context("http/1.1"), "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S, "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT_S}
        self._listeners.append(await self.loop.create_server(lambda: Connection(self), sock=sock, backlog=2048, **secure))

    def stop_listening(self) -> None:
        """Take no further connections; those that are idle are closed, the others behind their last answer."""
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            if not connection.pending and connection.phase in {WAITING, HEADER} and connection.transport is not None:
                connection.transport.close()

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return sum(len(connection.pending) for connection in self.connections)

    @property
    def is_asked(self) -> bool:
        """Whether an answer is due or not all sent, or a body on its way that will want one."""
        return any(connection.pending or connection.phase == BODY or connection.is_sending for connection in self.connections)

    def close(self) -> None:
        """Drop every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.abort()


DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_line(seconds: float) -> bytes:
    """The header line that says when, in the form of RFC 9110, 5.6.7. By hand: the library's way takes milliseconds of each start to load."""
    at = gmtime(seconds)
    text = f"date: {DAYS[at.tm_wday]}, {at.tm_mday:02} {MONTHS[at.tm_mon - 1]} {at.tm_year:04} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT\r\n"
    return text.encode()
