"""A thousand replicas over HTTP: what each minute takes of one core from the socket to the committed windows.

Each replica opens a connection, as it must once a minute where the control process holds fewer than a thousand, and sends one segment of a hundred
features with its key. Server and intake run in this process as they do in a control process; the senders are another. Its processor time counts,
from the first connection to the last commit.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.items import Item, spread
from benchmarks.monitor import months
from benchmarks.monitor.scale import FEATURES, REPLICAS, ROWS

if TYPE_CHECKING:
    from modelyard.config import Settings

ROUNDS = 5
SENDERS = 8

_SEND = """
import json, socket, sys, threading
asked = json.loads(sys.stdin.readline())
turns = iter(range(asked["replicas"]))
lock, bad = threading.Lock(), []
def send():
    while True:
        with lock:
            replica = next(turns, None)
        if replica is None:
            return
        with open(f"{asked['folder']}/{replica % asked['kinds']}", "rb") as file:
            body = file.read()
        head = (f"POST /api/v1/observations?name=pod{replica}.0123456789abcdef-{asked['number']} HTTP/1.1\\r\\nhost: 127.0.0.1:{asked['port']}\\r\\n"
                f"authorization: Bearer {asked['key']}\\r\\naccept: application/json\\r\\nuser-agent: modelyard\\r\\n"
                f"content-type: application/octet-stream\\r\\ncontent-length: {len(body)}\\r\\n\\r\\n").encode()
        with socket.create_connection(("127.0.0.1", asked["port"]), timeout=60) as connection:
            connection.sendall(head + body)
            answer = connection.recv(4096)
            if not answer.startswith(b"HTTP/1.1 200"):
                bad.append(answer.decode("latin-1")[:200])
                return
threads = [threading.Thread(target=send) for _ in range(asked["senders"])]
[each.start() for each in threads]
[each.join() for each in threads]
sys.exit("; ".join(bad[:1]) or None)
"""


def run(data: Path) -> list[Item]:
    """Seconds of one core for a minute of all replicas, received and merged."""
    del data
    with tempfile.TemporaryDirectory() as folder, months.one_core():
        return [receive(Path(folder))]


def receive(folder: Path) -> Item:
    """One minute after the other."""
    from modelyard.config import Settings
    from modelyard.monitor.intake import Intake

    settings = Settings(home=folder / "home")
    received, merged = [], []
    with serving(settings) as (port, key), contextlib.closing(Intake(settings)) as intake:
        for number in range(1, ROUNDS + 1):
            at = time.time() - 16
            segments = written(folder / str(number), at)
            began = time.process_time()
            asked = {
                "replicas": REPLICAS,
                "kinds": months.KINDS,
                "senders": SENDERS,
                "number": number,
                "port": port,
                "key": key,
                "folder": str(segments),
            }
            subprocess.run([sys.executable, "-c", _SEND], input=json.dumps(asked), text=True, check=True)
            came = time.process_time()
            while intake.turn(now=time.time()).is_more:
                pass
            received.append(came - began)
            merged.append(time.process_time() - came)
        if sum(window.requests for window in intake.windows.seen(months.NAME, since=0).values()) != ROUNDS * REPLICAS * ROWS:
            raise RuntimeError("the windows do not have what was sent")
    return Item(
        name="receive-1000-replicas",
        figure=statistics.median(map(sum, zip(received, merged, strict=True))),
        unit="s",
        bar=2,
        better="lower",
        note=f"processor time of a minute of {REPLICAS} replicas: received over HTTP {spread(received, ' s')}; merged {spread(merged, ' s')}",
    )


def written(folder: Path, at: float) -> Path:
    """A folder of what replicas send of the minute of `at`."""
    from modelyard import events

    folder.mkdir()
    for kind in range(months.KINDS):
        (folder / str(kind)).write_bytes(events.encode(months.segment(at, features=FEATURES, rows=ROWS, kind=kind)))
    return folder


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[tuple[int, str]]:
    """The control API of a home in a thread, without the loops beside it: its port, and a key that may send."""
    import uvicorn

    from modelyard.console import door
    from modelyard.console.app import build
    from modelyard.control.access import home_keyring
    from modelyard.control.plane import ControlPlane
    from modelyard.control.status import Status

    status = Status(home="bench", data_plane=None, deployments=())
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, ControlPlane(settings) as plane:
        keyring, port = home_keyring(settings), listener.getsockname()[1]
        key = keyring.add("replicas", roles=("exporter",))
        app = build(plane, keyring=keyring, hosts={f"127.0.0.1:{port}"}, status=lambda: status, changed=lambda: None)
        server = uvicorn.Server(door.options(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield port, key
        finally:
            server.should_exit = True
            thread.join()
