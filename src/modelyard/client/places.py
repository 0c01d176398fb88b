"""Where the planes are: by the URLs that were given, or the home of this machine.

Hides the files by which a home says where its control process listens, and its admin key. It must not start anything.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from modelyard import config, files
from modelyard.config import Settings
from modelyard.errors import InvalidConfig, NotFound, Unavailable
from modelyard.types import read_control_state, read_unstarted

_KEY_LIMIT_BYTES = 1024
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - nothing is bound
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Place(NamedTuple):
    """A server and the key to show it."""

    url: str
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every request."""
        return {} if self.key is None else {"authorization": f"Bearer {self.key}"}


def of_home(settings: Settings | None, *, key: str | None = None) -> Place:
    """The control process of a home (None: the one that the environment names), as it runs now, with `key` or else its admin key.

    Raises Unavailable when there is none.
    """
    settings = settings or config.load()
    try:
        state = read_control_state(settings.run)
        key = read_admin_key(settings) if key is None else key
    except NotFound as error:
        raise Unavailable(f"{settings.home} is not up; start it: modelyard up --detach") from error
    if not _is_running(state.pid):  # its port may be another's by now, who must not be sent the key
        if why := read_unstarted(settings.run, "control"):
            raise Unavailable(f"the control process of {settings.home} cannot be started now ({why}); it is tried again. What is deployed serves on")
        raise Unavailable(f"the control process of {settings.home} is not running; start it: modelyard up --detach")
    return Place(state.url, key)


def read_admin_key(settings: Settings) -> str:
    """The key in `keys/admin.key`. Raises NotFound, or InvalidConfig when other users can read it."""
    path: Path = settings.home / "keys" / "admin.key"
    key = files.read_limited(path, _KEY_LIMIT_BYTES).decode("ascii", "replace").strip()
    if path.stat().st_mode & 0o077:
        raise InvalidConfig(f"{path} can be read by other users; remove it and run `modelyard up` again for a new key")
    return key


def beside(control: str, data: str) -> str:
    """The data plane that the control process at `control` says is at `data`, as this machine reaches it.

    A data plane that listens on every address, or on loopback, is on the control process's own machine.
    """
    place, found = urlsplit(control), urlsplit(data)
    name = found.hostname or ""
    if name not in _WILDCARDS and (name not in _LOOPBACK or place.hostname in _LOOPBACK):
        return data
    host = f"[{place.hostname}]" if ":" in (place.hostname or "") else place.hostname
    return urlunsplit((found.scheme, f"{host}:{found.port}", "", "", ""))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
