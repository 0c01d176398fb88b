"""Where segments are sent: the control API of another home, or a store that several homes share.

Hides the client, the store, and where in it a segment lies: in a folder for the minute in which it was sent, so that who looks for what is new need
not look through all. A destination may be asked twice to take one name; it counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modelyard import config, files
from modelyard.errors import InvalidConfig, NotFound, Unauthenticated
from modelyard.events import SENT_LIMIT_BYTES, SUFFIX

if TYPE_CHECKING:
    from modelyard.client import Client
    from modelyard.config import Settings
    from modelyard.registry.stores import Store

ROOT = "v1"
TIMEOUT_S = 20.0
_KEY_LIMIT_BYTES = 1024


class Destination(Protocol):
    """Takes segments, each under its name. Used by one thread."""

    def put(self, name: str, data: bytes, *, at: float) -> None:
        """Have `data` kept; it is when this returns. `at` is when it is sent, seconds since 1970. Raises the error tree."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def open(settings: Settings, url: str) -> Destination:  # noqa: A001 - the room's verb
    """The destination at `url`, which is reached when first needed: what cannot be had then may be put right meanwhile."""
    if url.startswith(("http://", "https://")):
        return ToControl(settings, url)
    return ToStore(url)


class ToControl:
    """The control API of the home at `url`, asked with the key in `export_key_file`, or the one in the environment."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._url = url
        self._client: Client | None = None

    def put(self, name: str, data: bytes, *, at: float) -> None:  # noqa: ARG002
        """See `Destination`."""
        if self._client is None:
            from modelyard.client import Client
            from modelyard.client.trust import trusting

            authority = Path(self._settings.export_ca_file) if self._settings.export_ca_file else None
            self._client = Client(self._url, _key(self._settings), timeout_s=TIMEOUT_S, trust=trusting(authority))
        try:
            self._client.observe(name, data)
        except Unauthenticated:
            self.close()  # the key in the file may be another by now
            raise

    def close(self) -> None:
        """See `Destination`."""
        if self._client is not None:
            self._client.close()
            self._client = None


class ToStore:
    """A store that several homes share, any that fsspec reaches."""

    def __init__(self, url: str) -> None:
        from modelyard.registry.stores import Store

        self._store = Store(url, setting="export_url")

    def put(self, name: str, data: bytes, *, at: float) -> None:
        """See `Destination`."""
        self._store.write(f"{minute_folder(at)}/{name}{SUFFIX}", data)

    def close(self) -> None:
        """See `Destination`."""


def minute_folder(at: float) -> str:
    """Where in a store lies what is sent in the minute of `at`."""
    return f"{ROOT}/{datetime.fromtimestamp(at, UTC):%Y-%m-%d/%H%M}"


def listed(store: Store, folder: str) -> dict[str, str]:
    """By name, where each segment lies in or below a folder of the store; what is too large, or none of ours, is left out."""
    with store.reached() as (there, root):
        there.invalidate_cache()
        try:
            found = there.find(f"{root}/{folder}", detail=True)
        except FileNotFoundError:
            return {}
        return {
            name.removesuffix(SUFFIX): path
            for path, about in found.items()
            if (name := path.rpartition("/")[2]).endswith(SUFFIX) and int(about["size"]) <= SENT_LIMIT_BYTES
        }


def fetched(store: Store, paths: list[str]) -> Iterator[tuple[str, bytes]]:
    """What lies at each of `paths`, many at once; one that is gone, or cannot be read now, is left out."""
    with store.reached() as (there, _):
        found = there.cat(paths, on_error="omit")
    yield from found.items()


def days(store: Store) -> list[date]:
    """The days of which the store has segments, the oldest first."""
    with store.reached() as (there, root):
        there.invalidate_cache()
        try:
            folders = there.ls(f"{root}/{ROOT}", detail=False)
        except FileNotFoundError:
            return []
    found = []
    for folder in folders:
        with suppress(ValueError):  # not one of ours
            found.append(date.fromisoformat(str(folder).rstrip("/").rpartition("/")[2]))
    return sorted(found)


def prune(store: Store, *, now: float, kept_days: int) -> int:
    """Delete the days that are older than is kept; how many there were. Any host may, and several at once."""
    oldest = datetime.fromtimestamp(now, UTC).date() - timedelta(days=kept_days)
    old = [day for day in days(store) if day < oldest]
    for day in old:
        with store.reached() as (there, root), suppress(FileNotFoundError):
            there.rm(f"{root}/{ROOT}/{day.isoformat()}", recursive=True)
    store.remove_leftovers(older_s=3600.0)
    return len(old)


def _key(settings: Settings) -> str | None:
    if not settings.export_key_file:
        return config.key()
    path = Path(settings.export_key_file).resolve()  # where a platform mounts secrets, the file is a link
    try:
        key = files.read_limited(path, _KEY_LIMIT_BYTES).decode("ascii", "replace").strip()
    except NotFound as error:
        raise InvalidConfig(f"there is no file {settings.export_key_file}", field="export_key_file", rule="file") from error
    if path.stat().st_mode & 0o007:
        raise InvalidConfig(f"{settings.export_key_file} can be read by other users; take that away", field="export_key_file", rule="mode")
    return key
