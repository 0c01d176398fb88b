from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvloop

from modelyard.serve.body import ALIGNED_BYTES, Incoming, space


@pytest.mark.parametrize("before", [*range(ALIGNED_BYTES + 1), 107])
def test_what_stands_behind_the_first_bytes_is_straight(before: int) -> None:
    body = space(before + 800, before=before)
    assert len(body) == before + 800
    assert np.frombuffer(memoryview(body)[before:], np.float64).flags.aligned


class Taker(asyncio.Protocol):
    """Takes a body of `size` bytes straight, begun with `first`, and the rest as it comes; once it takes back the transport it is as before."""

    def __init__(self, size: int, first: bytes) -> None:
        self.size = size
        self.first = first
        self.said: list[Any] = []
        self.is_wanted = True
        self.ended = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.body = space(self.size)
        self.body[: len(self.first)] = self.first
        self.came = len(self.first)
        transport.set_protocol(Incoming(self, self.body, self.came))

    def arrived(self, size: int) -> bool:
        self.came += size
        if self.is_wanted and self.came == self.size:
            self.said.append(bytes(self.body))
            self.transport.set_protocol(self)
        return self.is_wanted

    def data_received(self, data: bytes) -> None:
        self.said.append(data)

    def eof_received(self) -> bool:
        self.said.append("eof")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.said.append(error)
        self.ended.set()

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")


class Emptying(Taker):
    """Takes the memory of its body back as soon as something else comes, which fails while anybody holds on to it."""

    def data_received(self, data: bytes) -> None:
        self.body.clear()
        super().data_received(data)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: Any) -> Any:
    made: Callable[[], asyncio.AbstractEventLoop] = request.param
    loop = made()
    yield loop
    loop.close()


def told(loop: Any, sent: bytes, *, size: int, first: bytes, is_wanted: bool = True, kind: type[Taker] = Taker) -> Taker:
    """What a taker was told when `sent` came over a socket, which then closed."""

    async def run() -> Taker:
        ours, theirs = socket.socketpair()
        taker = kind(size, first)
        taker.is_wanted = is_wanted
        with theirs:
            theirs.setblocking(False)
            await loop.create_connection(lambda: taker, sock=ours)
            await loop.sock_sendall(theirs, sent)
        await asyncio.wait_for(taker.ended.wait(), 20)
        return taker

    return loop.run_until_complete(run())


def test_a_body_is_filled_where_it_lies_and_what_follows_comes_as_ever(loop: Any) -> None:
    body = np.random.default_rng(0).bytes(700_000)
    taker = told(loop, body[10:] + b"next", size=len(body), first=body[:10])
    assert taker.said[0] == body
    assert b"".join(taker.said[1:-2]) == b"next"
    assert taker.said[-2:] == ["eof", None]


def test_nobody_holds_a_body_that_is_whole_however_long_the_connection_stays(loop: Any) -> None:
    body = bytes(700_000)
    taker = told(loop, body + b"next", size=len(body), first=b"", kind=Emptying)
    assert taker.said == [body, b"next", "eof", None]


def test_an_end_on_the_way_is_told(loop: Any) -> None:
    assert told(loop, b"half", size=700_000, first=b"").said == ["eof", None]


def test_there_is_always_room_for_what_is_not_wanted(loop: Any) -> None:
    taker = told(loop, bytes(300_000), size=1000, first=b"", is_wanted=False)
    assert taker.came == 300_000
    assert taker.said == ["eof", None]


def test_word_of_writing_is_passed_on() -> None:
    told: list[str] = []

    class Heard:
        def pause_writing(self) -> None:
            told.append("pause")

        def resume_writing(self) -> None:
            told.append("resume")

    incoming = Incoming(Heard(), space(1), 0)  # type: ignore[arg-type]
    incoming.pause_writing()
    incoming.resume_writing()
    assert told == ["pause", "resume"]
