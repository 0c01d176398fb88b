"""Control hosts that share what they see through one store, driven turn by turn."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from modelyard.config import Settings
from modelyard.events import Part, Segment, Spool
from modelyard.monitor import relay
from modelyard.monitor.destinations import ToStore
from modelyard.monitor.export import Exporter
from modelyard.monitor.intake import Intake, labels_outbox, outbox_path, windows_path
from modelyard.monitor.sharing import Inlet, store_at
from modelyard.monitor.windows import Windows
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)
NOW = 1_800_000_030.0


class Host:
    """A control host that shares what it sees: its workers' spool, its intake, its exporter and its inlet, turn by turn."""

    def __init__(self, folder: Path, url: str, *, host: str, limit_bytes: int = 1 << 30) -> None:
        self.settings = Settings(home=folder, export_url=url, spool_limit_bytes=limit_bytes)
        self.spool = Spool(self.settings.spool, slot=0, limit_bytes=1 << 30)
        self.intake = Intake(self.settings)
        self.exporter = Exporter(outbox_path(self.settings), ToStore(url), host=host)
        self.labels = relay.Outbox(labels_outbox(self.settings), limit_bytes=limit_bytes)
        self.teller = Exporter(labels_outbox(self.settings), ToStore(url), host=relay.sender(host), lossless=True)
        store = store_at(url)
        assert store is not None
        self.inlet = Inlet(store, spool=self.settings.spool, limit_bytes=limit_bytes, host=host)

    def count(self, requests: int, *, at: float = NOW - 60, generation: int = 0) -> None:
        part = Part(name="m", version=1, digest=DIGEST, requests=requests, generation=generation)
        self.spool.write(Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part,)))

    def turn(self, *, now: float = NOW) -> int:
        """Take in, send, and let in; how many segments of others came."""
        self.intake.turn(now=now)
        for exporter in (self.exporter, self.teller):
            while exporter.turn(now=now):
                pass
        with closing(Windows(windows_path(self.settings))) as windows:
            found = self.inlet.turn(windows, now=now)
        self.intake.turn(now=now)
        return found

    @property
    def requests(self) -> int:
        return sum(window.requests for window in self.intake.windows.seen("m", since=0).values())
