"""A load generator in a process of its own: closed and open loop over raw sockets, every answer checked against what it must be.

Reads one msgpack spec from standard input, begins, and writes one record per request to a file when its time is over or its standard
input is closed. In the open loop a request's latency counts from when it was due, not from when a free connection sent it, so a
server that holds the generator up cannot hide it. It must not import anything of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import ssl
import sys
from collections import deque
from time import monotonic
from typing import Any

import msgspec
import numpy as np

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
LOST, HUNG = 0, -1
"""In place of a status: the connection ended before the answer; no answer within the time that this client has."""

RECORD = np.dtype(
    [
        ("request", "i4"), ("due", "f8"), ("sent", "f8"), ("done", "f8"), ("status", "i4"), ("match", "i4"), ("tries", "i4"), ("retry_after", "i4"),
        ("first", "i4"),
    ]
)  # fmt: skip
"""`match`: which of the accepted answers it was; -1 none of them: a wrong answer; -2 not a prediction. `first`: the status of the first try."""


class Spec(msgspec.Struct, kw_only=True):
    """What to send, how, and how long. Without `rate` the loop is closed: each connection sends when it has its answer."""

    host: str = "127.0.0.1"
    port: int
    output: str
    """The file that takes the records."""
    requests: list[bytes]
    accepted: list[list[Any]]
    """Per request the outputs (name -> values) that are right; empty: any answer is."""
    connections: int
    seconds: float
    rate: float = 0.0
    count: int = 0
    """End after so many requests; 0: none."""
    retries: int = 0
    retried: tuple[int, ...] = (LOST,)
    """Statuses after which a request is tried again, at once."""
    timeout_s: float = 30.0
    reconnects: bool = False
    """A connection of its own for each request."""
    ca_file: str = ""


class Job:
    """One request, with all its tries."""

    __slots__ = ("due", "first", "index", "sent", "tries")

    def __init__(self, index: int, due: float) -> None:
        self.index = index
        self.due = due
        self.sent = 0.0
        self.tries = 0
        self.first = -9


class Client(asyncio.Protocol):
    """One connection; holds at most one request."""

    __slots__ = ("buffer", "hangup", "job", "load", "timer", "transport")

    def __init__(self, load: Load) -> None:
        self.load = load
        self.transport: Any = None
        self.buffer = b""
        self.job: Job | None = None
        self.timer: Any = None
        self.hangup = select.poll()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.hangup.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)

    def is_usable(self) -> bool:
        """Whether the other side has not closed it: as connection pools do, asked before an idle connection is used again."""
        if self.transport is None or self.transport.is_closing():
            return False
        return not self.hangup.poll(0)

    def send(self, job: Job) -> None:
        job.tries += 1
        now = monotonic()
        if not job.sent:
            job.sent = now
        self.job = job
        self.timer = now + self.load.spec.timeout_s
        self.transport.write(self.load.spec.requests[job.index])

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data if self.buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = data
            return
        length = LENGTH.search(data, 0, end + 2)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(data) < whole:
            self.buffer = data
            return
        self.buffer = b""
        status = int(data[9:12])
        wait = RETRY_AFTER.search(data, 0, end + 2)
        job, self.job = self.job, None
        if job is None or len(data) > whole:
            self.load.strays += 1  # more than was asked for
            self.transport.abort()
            return
        closes = self.load.spec.reconnects or b"connection: close" in data[:end].lower()
        if closes:
            self.transport.abort()
        self.load.answered(self, job, status, data[end + 4 : whole], int(wait[1]) if wait else -1, closes=closes)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        job, self.job = self.job, None
        self.load.gone(self, job)


class Load:
    """The whole run of one Spec."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.loop = asyncio.get_running_loop()
        self.records: list[tuple[Any, ...]] = []
        self.idle: list[Client] = []
        self.clients: set[Client] = set()
        self.opening = 0
        self.backlog: deque[Job] = deque()
        self.turn = 0
        self.strays = 0
        self.known: list[dict[bytes, int]] = [{} for _ in spec.requests]
        self.is_over = False
        self.over = self.loop.create_future()
        self.context: ssl.SSLContext | None = None
        if spec.ca_file:
            self.context = ssl.create_default_context(cafile=spec.ca_file)

    async def run(self) -> None:
        began = monotonic()
        reader = asyncio.StreamReader()
        await self.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        stop = asyncio.ensure_future(reader.read())
        until = began + self.spec.seconds
        if not self.spec.rate:
            for _ in range(self.spec.connections):
                self._take(Job(self._next(), monotonic()))
        due, step = began, 1 / self.spec.rate if self.spec.rate else 0.0
        while not stop.done() and not self.over.done() and monotonic() < until:
            now = monotonic()
            while step and due <= now and not (self.spec.count and self.turn >= self.spec.count):
                self._take(Job(self._next(), due))
                due += step
            self._expire(now)
            await asyncio.sleep(0.001 if step else 0.01)
        self.is_over = True
        grace = monotonic() + self.spec.timeout_s + 1
        while (self.backlog or any(client.job for client in self.clients) or self.opening) and monotonic() < grace:
            self._expire(monotonic())
            await asyncio.sleep(0.005)
        for client in list(self.clients):
            if client.transport is not None:
                client.transport.abort()
        await asyncio.sleep(0.01)
        stop.cancel()

    def _next(self) -> int:
        self.turn += 1
        return (self.turn - 1) % len(self.spec.requests)

    def _expire(self, now: float) -> None:
        for client in list(self.clients):
            if client.job is not None and client.timer < now:
                job, client.job = client.job, None
                if client.transport is not None:
                    client.transport.abort()
                self._record(job, HUNG, -2, -1)
                self._again()

    def _take(self, job: Job) -> None:
        while self.idle:
            client = self.idle.pop()
            if client.is_usable():
                client.send(job)
                return
        self.backlog.append(job)
        if len(self.clients) + self.opening < self.spec.connections:
            self.opening += 1
            asyncio.ensure_future(self._open())  # noqa: RUF006 - it is counted in `opening`

    async def _open(self) -> None:
        try:
            client = Client(self)
            name = {"server_hostname": "localhost"} if self.context else {}
            connecting = self.loop.create_connection(lambda: client, self.spec.host, self.spec.port, ssl=self.context, **name)
            await asyncio.wait_for(connecting, self.spec.timeout_s)
            self.clients.add(client)
        except (OSError, TimeoutError):
            if self.backlog:
                job = self.backlog.popleft()
                job.tries += 1
                job.sent = job.sent or monotonic()
                self._failed(job, LOST)
            return
        finally:
            self.opening -= 1
        self._free(client)

    def _free(self, client: Client) -> None:
        if self.backlog:
            client.send(self.backlog.popleft())
        else:
            self.idle.append(client)

    def answered(self, client: Client, job: Job, status: int, body: bytes, retry_after: int, *, closes: bool) -> None:
        if status in self.spec.retried and job.tries <= self.spec.retries:
            if job.first == -9:
                job.first = status
            (self._take if closes else client.send)(job)
            return
        self._record(job, status, self._match(job.index, body) if status == 200 else -2, retry_after)
        if closes:
            self._again()
        elif self.spec.rate or self.is_over:
            self._free(client)
        else:
            self._go_on(client)

    def _go_on(self, client: Client) -> None:
        if self.spec.count and self.turn >= self.spec.count:
            if all(other.job is None for other in self.clients) and not self.over.done():
                self.over.set_result(None)
            return
        client.send(Job(self._next(), monotonic()))

    def _again(self) -> None:
        """In the closed loop a place whose connection is gone goes on with another."""
        if not self.spec.rate and not self.is_over and not (self.spec.count and self.turn >= self.spec.count):
            self.loop.call_later(0.001, lambda: self._take(Job(self._next(), monotonic())))

    def gone(self, client: Client, job: Job | None) -> None:
        self.clients.discard(client)
        if job is not None:
            self._failed(job, LOST)
        elif self.backlog and len(self.clients) + self.opening < self.spec.connections:
            self.opening += 1
            asyncio.ensure_future(self._open())  # noqa: RUF006

    def _failed(self, job: Job, status: int) -> None:
        if job.first == -9:
            job.first = status
        if status in self.spec.retried and job.tries <= self.spec.retries:
            self._take(job)
            return
        self._record(job, status, -2, -1)
        self._again()

    def _match(self, index: int, body: bytes) -> int:
        accepted = self.spec.accepted[index]
        if not accepted:
            return 0
        known = self.known[index]
        match = known.get(body)
        if match is None:
            try:
                outputs = {each["name"]: each["data"] for each in json.loads(body)["outputs"]}
            except (ValueError, KeyError, TypeError):
                outputs = None
            match = accepted.index(outputs) if outputs in accepted else -1
            known[body] = match
        return match

    def _record(self, job: Job, status: int, match: int, retry_after: int) -> None:
        first = status if job.first == -9 else job.first
        self.records.append((job.index, job.due, job.sent, monotonic(), status, match, job.tries, retry_after, first))
        if self.spec.count and len(self.records) >= self.spec.count and not self.over.done():
            self.over.set_result(None)


async def generate(spec: Spec) -> tuple[bytes, int]:
    """The records of a run, and how many answers came that nobody had asked for."""
    load = Load(spec)
    await load.run()
    return np.array(load.records, RECORD).tobytes(), load.strays


def main() -> None:
    """One run: the spec, its length first, from standard input; the records to its file."""
    import gc

    import uvloop

    size = int.from_bytes(sys.stdin.buffer.raw.read(4), "big")  # type: ignore[attr-defined] - unbuffered: the rest is watched by the loop
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data))
    spec = msgspec.msgpack.decode(data, type=Spec)
    gc.freeze()
    gc.disable()
    open(spec.output, "wb").close()  # says that it begins
    records, strays = uvloop.run(generate(spec))
    with open(spec.output, "wb") as output:
        output.write(strays.to_bytes(8, "big") + records)


if __name__ == "__main__":
    main()
