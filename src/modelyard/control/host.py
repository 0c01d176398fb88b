"""What a home is among the hosts of one store: its name, and the bundles' bytes that lie in it.

Hides the file that keeps the name, and the thread that brings bytes from an object store. It must not know what a deployment is.
"""

from __future__ import annotations

import queue
import re
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import files
from modelyard.bundle.base import FolderReader
from modelyard.config import Settings
from modelyard.errors import Misconfigured, ModelyardError, NotFound, Unavailable
from modelyard.targets.base import Release
from modelyard.types import Digest, Placement

if TYPE_CHECKING:
    from modelyard.registry import Registry

FILE = "host.id"
AGAIN_S = 2.0
"""How long after a failure what could not be brought is asked for again."""
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


def host_id(settings: Settings) -> str:
    """The name of this home among hosts, made at the first call: the machine's and a few random digits. Raises InvalidConfig for a spoilt file."""
    path = settings.home / FILE
    try:
        text = files.read_limited(path, 1024).decode("ascii", "replace").strip()
    except NotFound:
        machine = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:60]
        text = f"{machine or 'host'}-{secrets.token_hex(4)}"
        files.write_atomically(path, f"{text}\n".encode())
    if not _ID.fullmatch(text):
        raise Misconfigured(f"{path} does not hold a host's name; remove it, and the next start makes another", field=FILE, rule="name")
    return text


class HomeStock:
    """The blobs of a home that keeps them itself: what is registered lies here."""

    def __init__(self, blobs: Path) -> None:
        self._blobs = str(blobs)

    def place(self, release: Release) -> Placement | None:
        """See `rollout.host.Stock`."""
        return Placement(blobs=self._blobs, index=release.index)


class FetchedStock:
    """The blobs of a home that keeps them in an object store: a thread brings those of one release after the other, and what is here stays.

    The thread ends with the process; what it had half brought is taken away when the home is next opened.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._here: dict[Digest, Placement] = {}
        self._coming: set[Digest] = set()
        self._failed: dict[Digest, tuple[ModelyardError, float]] = {}
        self._wanted: queue.SimpleQueue[Release] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def place(self, release: Release) -> Placement | None:
        """See `rollout.host.Stock`."""
        with self._lock:
            here = self._here.get(release.index)
            if here is not None and FolderReader(Path(here.blobs)).path(release.index).is_file():  # no sweep has taken it since
                return here
            failed = self._failed.get(release.index)
            if release.index not in self._coming and (failed is None or time.monotonic() - failed[1] >= AGAIN_S):
                self._coming.add(release.index)
                self._wanted.put(release)
            if self._thread is None:
                self._thread = threading.Thread(target=self._bring_all, name="fetch", daemon=True)
                self._thread.start()
        if failed is not None:  # told until it has gone well, so that a host whose store is away says one thing
            raise failed[0]
        return None

    def _bring_all(self) -> None:
        while True:
            release = self._wanted.get()
            failed: ModelyardError | None = None
            folder = Path()
            try:
                folder = self._registry.fetch(release.model, release.version)
            except ModelyardError as error:
                failed = error
            except Exception as error:  # noqa: BLE001  # the thread must outlive whatever a store's library does
                failed = Unavailable(f"version {release.version} of {release.model} could not be fetched ({type(error).__name__})")
            with self._lock:
                self._coming.discard(release.index)
                if failed is None:
                    self._failed.pop(release.index, None)
                    self._here[release.index] = Placement(blobs=str(folder), index=release.index)
                else:
                    self._failed[release.index] = (failed, time.monotonic())
