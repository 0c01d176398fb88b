"""Fault 29: abuse of HTTP/2 and gRPC beside a client who behaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from h2 import Socketed, connected, fields, frame, message
from tests.faults import scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

from modelyard.serve import http2

SECONDS = 8.0
EXHAUSTED = "8"


def sent_away(caller: Socketed) -> bool:
    """Whether GOAWAY came, for the right reason."""
    caller.read(lambda: caller.goaway is not None)
    return caller.goaway is not None and caller.goaway.code == http2.ENHANCE_YOUR_CALM


def rapid_reset(caller: Socketed) -> bool:
    """10,000 streams opened and reset at once."""
    for _ in range(10_000):
        number = caller.begin()
        caller.send(http2.reset(number, http2.CANCEL))
        if caller.is_cut:
            break
    return sent_away(caller)


def large_message(caller: Socketed) -> bool:
    """A message that says 1 GiB."""
    number = caller.begin()
    caller.data(number, b"\0" + (1 << 30).to_bytes(4, "big") + bytes(5 << 20), ends=False)
    return caller.answer(number).get("grpc-status") == EXHAUSTED


def metadata(caller: Socketed) -> bool:
    """27 KB of metadata."""
    flood = fields(**{f"x-{at}": "y" * 900 for at in range(30)})
    return caller.answer(caller.begin(flood, ends=True)).get("grpc-status") == EXHAUSTED


def continuations(caller: Socketed) -> bool:
    """A header block without end."""
    caller.send(frame(http2.HEADERS, 0, 1, b"\0\1a\1b"))
    for _ in range(100_000):
        caller.send(frame(http2.CONTINUATION, 0, 1, b"\0\1a\1b" * 100))
        if caller.is_cut:
            break
    return sent_away(caller)


def bad_protobuf(caller: Socketed) -> bool:
    """Messages that are none: refused as the caller's fault (INVALID_ARGUMENT)."""
    for body in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", bytes(1000), b"\x0a\x07sleeper\x2a\x02\x08\x01"):
        number = caller.begin()
        caller.data(number, message(body))
        if caller.answer(number).get("grpc-status") not in {"3", "5"}:
            return False
        caller.frames.clear()
    return True


def flood(data: bytes) -> Callable[[Socketed], bool]:
    """The same frame over and over."""

    def send(caller: Socketed) -> bool:
        for _ in range(1000):
            caller.send(data * 100)
            if caller.is_cut:
                break
        return sent_away(caller)

    return send


ATTACKS = {
    "rapid reset": rapid_reset,
    "large message": large_message,
    "metadata": metadata,
    "continuations": continuations,
    "bad protobuf": bad_protobuf,
    "pings": flood(frame(http2.PING, 0, 0, bytes(8))),
    "settings": flood(http2.settings({http2.INITIAL_WINDOW_SIZE: 1000})),
    "unknown frames": flood(frame(200, 0, 0, b"x")),
}


def run(scene_: Scene) -> None:
    traffic = scene.rows("sleeper")
    with scene_.server(scene_.code_home("Sleeper"), settings={"max_batch_rows": 1}) as server:
        rate = server.capacity(traffic, seconds=2) / 2
        server.mark()
        seconds = 3.0 if scene_.is_control else SECONDS
        loading = server.load(traffic, connections=16, seconds=seconds, rate=rate)
        until, turns, failed = time.monotonic() + seconds, 0, set()
        while time.monotonic() < until:
            name = list(ATTACKS)[turns % len(ATTACKS)]
            if not _attack(server, ATTACKS[name]):
                failed.add(name)
            turns += 1
        tally = loading.end()
        scene_.item(
            "not_refused", len(failed), 0, exact=True, note=", ".join(sorted(failed)) or f"{turns} attacks in {seconds:g} s, of {len(ATTACKS)} kinds"
        )
        scene_.item("others_goodput", tally.success, 95, "%", better="higher", note=f"of {tally.sent:,} at half of capacity")


def _attack(server: Server, attack: Callable[[Socketed], bool]) -> bool:
    with suppress(OSError), connected(str(server.card["grpc"]), timeout=3) as caller:
        return attack(caller)
    return False


FAULT = Fault(
    number=29,
    name="grpc",
    title="Abuse of HTTP/2 and gRPC",
    method=(
        "One attack after another, over and over for 8 s: 10,000 rapid resets, a message of 1 GiB, 27 KB of metadata, a header block "
        "without end, bytes that are no protobuf, floods of pings, "
        "settings and unknown frames. Each must end in RESOURCE_EXHAUSTED, GOAWAY (ENHANCE_YOUR_CALM) or, for bad protobuf, "
        "INVALID_ARGUMENT. Another client asks at half of capacity."
    ),
    run=run,
    controls=(Control(without="patience that ends", misses="not_refused", text="a connection may break off streams and send idle frames for ever."),),
    headline="others_goodput",
)
