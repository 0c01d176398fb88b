"""Access keys in one file: what is kept of each, never the key.

Hides the file's form (JSON, mode 0600, replaced whole under a lock beside it) and that an older form, one SHA-256 a line with a name behind it, is
read as well: such a key may ask every model, and the first change writes it in the new form. It must not judge a key: that is `security.identity`
in the control process and `serve.access` in a worker, which watch the file by its stamp.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from modelyard.errors import Misconfigured
from modelyard.files import make_folder, read_believed, translate, write_atomically
from modelyard.security.base import KeyRecord
from modelyard.security.identity import ID_DIGITS

LIMIT_BYTES = 16 << 20
LINE_ROLES = ("invoker", "viewer")
"""What a key of the older form may do."""

Stamp = tuple[int, int, int]
_LINE = re.compile(r"([0-9a-f]{64})(?:\s+(\S.*))?")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file's form."""

    format: Literal[1] = 1
    keys: tuple[KeyRecord, ...]


class FileKeys:
    """A KeyStore in the file `path`. Any number of processes may read and change it at once; a reader sees the old keys or the new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[Stamp | None, dict[str, KeyRecord]] | None = None

    def get(self, id: str) -> KeyRecord | None:
        """See `KeyStore.get`."""
        return self._known().get(id)

    def put(self, record: KeyRecord) -> None:
        """See `KeyStore.put`."""
        with self._changing() as keys:
            keys[record.id] = record

    def remove(self, id: str) -> None:
        """See `KeyStore.remove`."""
        with self._changing() as keys:
            keys.pop(id, None)

    def all(self) -> tuple[KeyRecord, ...]:
        """See `KeyStore.all`."""
        return tuple(self._known().values())

    def _known(self) -> dict[str, KeyRecord]:
        found = stamp(self._path)  # before reading: what changes in between is then read again
        if self._read is None or self._read[0] != found:
            self._read = (found, {} if found is None else {record.id: record for record in read(self._path)})
        return self._read[1]

    @contextmanager
    def _changing(self) -> Iterator[dict[str, KeyRecord]]:
        path = Path(os.path.realpath(self._path))
        make_folder(path.parent)
        lock = path.with_name(f".{path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise translate(error, lock) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            keys = {record.id: record for record in (read(path) if stamp(path) is not None else ())}
            yield keys
            write_atomically(path, msgspec.json.format(msgspec.json.encode(Kept(keys=tuple(keys.values()))), indent=1), mode=0o600)
        finally:
            os.close(descriptor)


def stamp(path: Path) -> Stamp | None:
    """What changes when the file does; None when it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def read(path: Path) -> tuple[KeyRecord, ...]:
    """Every key kept in `path`, which may be a link. Raises NotFound, or InvalidConfig for what is no keys file or can be changed by other users."""
    data = read_believed(path, LIMIT_BYTES, field="keys_file")
    if not data.lstrip().startswith(b"{"):
        return _lines(data)
    try:
        return msgspec.json.decode(data, type=Kept).keys
    except msgspec.MsgspecError as error:
        raise Misconfigured("the keys file is not of this release", field="keys_file", rule="form") from error


def _lines(data: bytes) -> tuple[KeyRecord, ...]:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise Misconfigured("the keys file is not ASCII", field="keys_file", rule="form") from error
    known = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise Misconfigured("a line of the keys file is a key's SHA-256 in hex and a name", field="keys_file", rule="form")
        digest = match[1]
        known.append(KeyRecord(id=digest[:ID_DIGITS], sha256=digest, name=match[2] or digest[:ID_DIGITS], roles=LINE_ROLES, created_at=""))
    return tuple(known)
