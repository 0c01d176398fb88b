"""What a home is among the hosts of one store: its name, and the bundles' bytes that lie in it.

Hides the file that keeps the name. It must not know what a deployment is.
"""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path

from modelyard import files
from modelyard.config import Settings
from modelyard.errors import InvalidConfig, NotFound
from modelyard.targets.base import Release
from modelyard.types import Placement

FILE = "host.id"
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
        raise InvalidConfig(f"{path} does not hold a host's name; remove it, and the next start makes another", field=FILE, rule="name")
    return text


class HomeStock:
    """The blobs of a home that keeps them itself: what is registered lies here."""

    def __init__(self, blobs: Path) -> None:
        self._blobs = str(blobs)

    def place(self, release: Release) -> Placement | None:
        """See `rollout.host.Stock`."""
        return Placement(blobs=self._blobs, index=release.index)
