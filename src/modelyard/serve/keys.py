"""Access keys of the data plane: who may ask.

Hides the file (one line per key: its SHA-256 in hex, then a name) and that it is read again when it changes, so that a revoked key
is refused within a second. It must not hold a key itself, nor decide more than yes or no.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from modelyard.errors import InvalidConfig, NotFound, Unauthenticated
from modelyard.files import read_limited

LIMIT_BYTES = 1 << 20
_LINE = re.compile(r"([0-9a-f]{64})(?:\s+\S.*)?")


class Keys:
    """The keys in one file. A file that vanishes or cannot be read leaves no key valid."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)  # before reading: what changes in between is then read again
        self._known = _read(path)
        self.epoch = 0
        """Grows with every change, so that a decision may be remembered with it."""

    def refresh(self) -> None:
        """Read the file again if it changed."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self.epoch += 1
        try:
            self._known = _read(self._path)
        except (InvalidConfig, NotFound):
            self._known = ()

    def require(self, authorization: bytes) -> None:
        """Raise Unauthenticated unless `authorization` is `Bearer` and a known key; all keys are compared, in constant time."""
        scheme, _, key = authorization.partition(b" ")
        found = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(found, known) for known in self._known]
        if scheme.lower() != b"bearer" or not any(matches):
            raise Unauthenticated("no valid access key; send `Authorization: Bearer …`")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        text = read_limited(path, LIMIT_BYTES).decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidConfig("the keys file is not ASCII", field="keys_file", rule="form") from error
    known = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InvalidConfig("a line of the keys file is a key's SHA-256 in hex and a name", field="keys_file", rule="form")
        known.append(bytes.fromhex(match[1]))
    return tuple(known)
