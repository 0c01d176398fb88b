from __future__ import annotations

import asyncio
import socket

from modelyard.serve import heartbeat
from modelyard.serve.heartbeat import BEAT, LOADING, READY, Heartbeat


def said(ours: socket.socket) -> bytes:
    try:
        return ours.recv(64)
    except BlockingIOError:
        return b""


def test_it_beats_while_the_loop_turns_says_when_it_loads_and_stops() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        loading = [True]
        heart = Heartbeat(theirs, lambda: loading[0])
        heart.start()
        assert said(ours) == LOADING
        heart.beat()
        assert said(ours) == b""  # there was one just now
        loading[0] = False
        heart._said_s -= heartbeat.EVERY_S
        heart.beat()
        heart.say(READY)
        assert said(ours) == BEAT + READY
        await asyncio.sleep(heartbeat.EVERY_S * 1.5)
        assert said(ours) == BEAT
        heart.stop()
        await asyncio.sleep(heartbeat.EVERY_S * 1.5)
        assert said(ours) == b""
        ours.close()
        heart.say(BEAT)  # nobody hears it
        theirs.close()

    asyncio.run(run())
