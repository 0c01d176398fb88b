"""What was counted here, on its way to where it is looked at: `python -m modelyard.monitor.export`, or a thread of a control process.

Hides batches: the segments of one closed minute are merged into one, which is sent under one number until it has arrived, and only then are they
deleted. What a batch is made of is written down before it is sent, and that it has arrived before the first of them goes, so that whatever ends when,
nothing is sent under two numbers, and no part of it in place of the whole. While the receiver is away segments wait in their folder, whose cap is its
writer's. It must not touch the data plane, which does not know that it is there.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import secrets
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from modelyard import config, events
from modelyard.errors import Conflict, MalformedPayload, ModelyardError, NotFound, PayloadTooLarge, StorageFull
from modelyard.events import SENT_LIMIT_BYTES, Segment
from modelyard.files import make_folder, read_limited, write_atomically
from modelyard.monitor import destinations
from modelyard.monitor.base import MINUTE_S
from modelyard.monitor.destinations import Destination
from modelyard.monitor.merging import merge

FILE = "export.json"
BATCH_BYTES = 3 << 20
LABELS_BYTES = 1 << 20
"""Of a batch that may not be lost: who takes labels in writes each of them to a ledger, and does not do other things meanwhile."""
BATCH_SEGMENTS = 1024
LOOK_SEGMENTS = 64
"""So many segments of other minutes are passed over in search of more of the one that is being sent."""
DELAY_S = 2.0
"""A minute is sent so long after its end, and up to `SPREAD_S` later, each source at its own time, so that not all come at once."""
SPREAD_S = 5.0
STAMP_S = 120.0
"""A batch that has waited so long to arrive is sent as of now: who takes it in looks at what is new."""
LONGEST_PAUSE_S = 60.0
LAST_S = 5.0
"""How long the end may take to send what is left."""

log = logging.getLogger("modelyard.export")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down: who sends, the number of the batch that is on its way or was last, what it is made of (nothing: it has arrived, and
    all of that is deleted), when it is stamped, and how many segments were lost since the last one that arrived.
    """

    source: str
    number: int = 0
    files: tuple[str, ...] = ()
    at: float = 0.0
    lost: int = 0
    has_arrived: bool = False


class Exporter:
    """Sends the segments in `folder`. One thread owns it; one exporter owns the folder.

    `host` begins its name as a source; another machine's must differ. With `limit_bytes` it also keeps the folder within that: the oldest go, and are
    counted as lost. One that is `lossless` keeps what is refused, as it keeps what waits for whatever else, and waits for the end of no minute.
    """

    def __init__(self, folder: Path, destination: Destination, *, host: str, limit_bytes: int | None = None, lossless: bool = False) -> None:
        self._folder = make_folder(folder)
        self._destination = destination
        self._limit_bytes = limit_bytes
        self._is_lossless = lossless
        self._state = self._read(host)

    @property
    def source(self) -> str:
        """Under whose name it sends."""
        return self._state.source

    def turn(self, *, now: float, is_last: bool = False) -> bool:
        """Send one batch, if there is one of a minute that has closed (or any, at the end); whether there may be more.

        Raises what the destination raises where sending it again may go well; the batch then waits. One that is refused for good is lost, and
        counted, unless nothing may be.
        """
        self._keep_within_limit()
        if not self._state.files and not self._gather(now, is_last=is_last):
            return False
        if not self._state.has_arrived:
            self._send(now)
        for name in self._state.files:
            (self._folder / name).unlink(missing_ok=True)
        self._write(msgspec.structs.replace(self._state, files=(), has_arrived=False))
        return True

    def _send(self, now: float) -> None:
        """Send the batch that is chosen, and write down that it has arrived."""
        if now - self._state.at > STAMP_S or now < self._state.at:
            self._write(msgspec.structs.replace(self._state, at=now))
        lost, data = self._state.lost, self._data()
        if data is not None:
            try:
                if len(data) > SENT_LIMIT_BYTES:
                    raise PayloadTooLarge(f"without its rows it still has more than {SENT_LIMIT_BYTES:,} bytes")
                self._destination.put(f"{self._state.source}-{self._state.number}", data, at=self._state.at)
                lost = 0
            except (MalformedPayload, PayloadTooLarge, Conflict) as error:
                if self._is_lossless:
                    raise
                log.error("%d segments were refused and are lost: %s", len(self._state.files), error.message)
                lost += len(self._state.files)
        arrived = msgspec.structs.replace(self._state, lost=lost, has_arrived=True)
        try:
            self._write(arrived)
        except StorageFull:  # what goes now makes room
            self._state = arrived

    def close(self) -> None:
        """Let go of the destination."""
        self._destination.close()

    def _gather(self, now: float, *, is_last: bool) -> bool:
        """Choose the next batch, and write down what it is made of."""
        chosen: dict[str, Segment] = {}
        minute: int | None = None
        size = others = 0
        for path in events.pending(self._folder):
            try:
                segment = events.read(path)
                size_bytes = path.lstat().st_size
            except (NotFound, FileNotFoundError):
                continue
            except MalformedPayload:
                if events.set_aside(path):
                    self._write(msgspec.structs.replace(self._state, lost=self._state.lost + 1))
                continue
            of = int(segment.ended_at // MINUTE_S)
            is_open = not (is_last or self._is_lossless) and of == int(now // MINUTE_S)
            if is_open or minute not in (None, of):
                others += 1
                if others > LOOK_SEGMENTS:
                    break
                continue
            if chosen and (size + size_bytes > (LABELS_BYTES if self._is_lossless else BATCH_BYTES) or len(chosen) == BATCH_SEGMENTS):
                break
            minute, size = of, size + size_bytes
            chosen[path.name] = segment
        if not chosen:
            return False
        with suppress(Conflict):
            merge(tuple(chosen.values()))
            self._write(msgspec.structs.replace(self._state, number=self._state.number + 1, files=tuple(chosen), at=now))
            return True
        alone = next(iter(chosen))  # counts in different bins cannot be one: let the receiver say which it keeps
        self._write(msgspec.structs.replace(self._state, number=self._state.number + 1, files=(alone,), at=now))
        return True

    def _keep_within_limit(self) -> None:
        over = 0 if self._limit_bytes is None else events.size_bytes(self._folder) - self._limit_bytes
        gone = 0
        for path in events.pending(self._folder) if over > 0 else ():
            with suppress(OSError):
                size_bytes = path.lstat().st_size
                path.unlink()
                over, gone = over - size_bytes, gone + 1
            if over <= 0:
                break
        if gone:
            log.warning("%d segments found no room to wait in and are lost", gone)
            self._write(msgspec.structs.replace(self._state, lost=self._state.lost + gone))

    def _data(self) -> bytes | None:
        """The batch as one segment that may be sent; None where nothing of it is left to send."""
        found = []
        for name in self._state.files:
            with suppress(NotFound, MalformedPayload):
                found.append(events.read(self._folder / name))
        if not found:
            return None
        whole = merge(found)
        whole = msgspec.structs.replace(whole, lost=whole.lost + self._state.lost)
        data = events.encode(whole)
        for what in ("inputs", "predictions"):
            if len(data) > SENT_LIMIT_BYTES:
                data = events.encode(whole := events.without(whole, what))
        return data

    def _read(self, host: str) -> State:
        try:
            return msgspec.json.decode(read_limited(self._folder / FILE, 1 << 20), type=State)
        except (NotFound, msgspec.MsgspecError):  # under another name, so that no number is used twice
            return State(source=f"{host}.{secrets.token_hex(8)}")

    def _write(self, state: State) -> None:
        write_atomically(self._folder / FILE, msgspec.json.encode(state), mode=0o600)
        self._state = state


def run(
    exporter: Exporter,
    stop: threading.Event,
    *,
    failed: Callable[[Exception], None],
    went_well: Callable[[], None] = lambda: None,
    every_s: float | None = None,
) -> None:
    """Send what waits, a little after the end of each minute, or every so often, until `stop` is set; then, within `LAST_S`, what is left."""
    spread_s = SPREAD_S * (zlib.crc32(exporter.source.encode()) / 2**32)
    tries = 0
    while not stop.is_set():
        pause_s = due_s(time.time(), DELAY_S + spread_s) if every_s is None else every_s
        try:
            while exporter.turn(now=time.time()) and not stop.is_set():
                pass
            tries = 0
            went_well()
        except Exception as error:  # noqa: BLE001  # the batch waits; it is sent again
            failed(error)
            tries += 1
            pause_s = min(LONGEST_PAUSE_S, 2.0**tries) * (0.5 + random.random() / 2)  # noqa: S311 - no secret
        stop.wait(pause_s)
    until_s = time.monotonic() + LAST_S
    try:
        while time.monotonic() < until_s and exporter.turn(now=time.time(), is_last=True):
            pass
    except Exception as error:  # noqa: BLE001
        failed(error)


def due_s(now: float, after_s: float) -> float:
    """Seconds until a minute is next over by `after_s`."""
    return MINUTE_S - (now - after_s) % MINUTE_S


def machine() -> str:
    """A name for this machine, for a source."""
    return re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:60] or "host"


def _stop_with(stop: threading.Event) -> None:
    """Stop at the end of the standard input."""
    while os.read(0, 1):  # not through sys.stdin, whose lock must not be held when the interpreter ends
        pass
    stop.set()


def main(argv: list[str] | None = None) -> int:
    """Send the segments of one spool until SIGTERM or SIGINT; exit code 2 for a setting that cannot be honoured."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.monitor.export", description="Send what a data plane has counted.")
    parser.add_argument("--spool", type=Path, required=True, help="the folder of its observations")
    parser.add_argument("--beside", action="store_true", help="end when the standard input does, as it does with the process that holds it")
    parser.add_argument("--last", action="store_true", help="send what is left, and end")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="modelyard export: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments.last:
        stop.set()
    elif arguments.beside:
        threading.Thread(target=_stop_with, args=(stop,), name="beside", daemon=True).start()
    told: list[str] = [""]

    def failed(error: Exception) -> None:
        said = error.message if isinstance(error, ModelyardError) else repr(error)
        if said != told[0]:
            log.warning("observations wait: %s", said)
        told[0] = said

    try:
        settings = config.load()
        exporter = Exporter(arguments.spool, destinations.open(settings, settings.export_url), host=machine())
    except ModelyardError as error:
        sys.stderr.write(f"modelyard export: {error.message}\n")
        return 2
    run(exporter, stop, failed=failed, went_well=lambda: told.__setitem__(0, ""))
    exporter.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
