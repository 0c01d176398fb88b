"""The disk and the clock that a process under test sees: `shim.c` built and steered, and what it wrote down played back as losses of power.

A loss of power keeps what was synced; of what came later anything may be there or not: each file's writes all, none, a first part or any of them,
the last torn at a sector, and of the changes of names a first part. A file's name is kept only by a sync of its folder.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.scene import need

HEADER = struct.Struct("<c3xIIIQQ")
SECTOR = 512
MODES = ("none", "all", "first", "any")


@cache
def library() -> Path:
    """The shim, built once a run. Raises Missing where there is no C compiler."""
    need("cc")
    folder = Path(tempfile.mkdtemp(prefix="faults-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = folder / "shim.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(built), str(Path(__file__).with_name("shim.c")), "-ldl"], check=True)
    return built


class Shim:
    """What stands between the processes that get `environment` and their system, for files below `folder`."""

    def __init__(self, place: Path, folder: Path, *, records: bool = False) -> None:
        self.signs = place / "signs"
        self.signs.mkdir()
        self.log = place / "disk.log"
        self.environment = {"LD_PRELOAD": str(library()), "SHIM_FOLDER": str(folder), "SHIM_SIGNS": str(self.signs)}
        if records:
            self.environment["SHIM_LOG"] = str(self.log)
        self.clock(0)
        self.life(-1)

    def full(self) -> None:
        """No space is left from now on."""
        (self.signs / "full").touch()

    def failing(self, part: str) -> None:
        """Syncs of paths that hold `part` fail from now on."""
        (self.signs / "eio.new").write_text(part)
        (self.signs / "eio.new").rename(self.signs / "eio")

    def well(self) -> None:
        """There is space, and syncs succeed."""
        for name in ("full", "eio"):
            (self.signs / name).unlink(missing_ok=True)

    def clock(self, seconds: int) -> None:
        """What is read as the time is `seconds` ahead."""
        self._share("clock", seconds)

    def life(self, size_bytes: int) -> None:
        """Whoever writes beyond so many bytes is killed in the middle of it; below 0: nobody."""
        self._share("life", size_bytes)

    def left(self) -> int:
        """How many bytes may yet be written."""
        return int.from_bytes((self.signs / "life").read_bytes(), "little", signed=True)

    def _share(self, name: str, value: int) -> None:
        descriptor = os.open(self.signs / name, os.O_RDWR | os.O_CREAT)
        os.pwrite(descriptor, value.to_bytes(8, "little", signed=True), 0)  # in place: the processes have it mapped
        os.close(descriptor)

    def note(self, what: dict[str, Any]) -> None:
        """Write down that the outside world was told something: all that was written before it is before it in the log."""
        data = json.dumps(what).encode()
        with self.log.open("ab", buffering=0) as file:
            file.write(HEADER.pack(b"!", 0, 0, len(data), 0, 0) + data)

    def changes(self) -> list[Change]:
        """The log."""
        return list(_read(self.log.read_bytes()))


class Change(NamedTuple):
    """One entry: c(reate), w(rite), t(runcate), s(ync), r(ename), l(ink), u(nlink), or `!`, a note."""

    kind: str
    inode: int
    offset: int
    first: str
    second: str
    data: bytes


def _read(data: bytes) -> Iterator[Change]:
    at = 0
    while at < len(data):
        kind, first, second, size, inode, offset = HEADER.unpack_from(data, at)
        at += HEADER.size
        names = data[at : at + first].decode(), data[at + first : at + first + second].decode()
        at += first + second
        yield Change(kind.decode(), inode, offset, *names, data[at : at + size])
        at += size


class File:
    """What of a file is on the disk, and what is on its way."""

    def __init__(self) -> None:
        self.kept = b""
        self.pending: list[Change] = []

    def sync(self) -> None:
        self.kept, self.pending = _applied(self.kept, self.pending), []

    def after(self, mode: str, chance: random.Random) -> bytes:
        """Its bytes after a loss of power."""
        pending = self.pending
        if mode == "none":
            return self.kept
        if mode == "first":
            pending = pending[: chance.randint(0, len(pending))]
        elif mode == "any":
            pending = [change for change in pending if chance.random() < 0.5]
        if mode != "all" and pending and pending[-1].kind == "w":
            last = pending[-1]
            torn = chance.randint(0, len(last.data) // SECTOR) * SECTOR
            pending = [*pending[:-1], last._replace(data=last.data[:torn])]
        return _applied(self.kept, pending)


def _applied(data: bytes, changes: list[Change]) -> bytes:
    if not changes:
        return data
    made = bytearray(data)
    for change in changes:
        size = change.offset + len(change.data)
        if change.kind == "t" or len(made) < size:
            made.extend(bytes(max(0, size - len(made))))
        if change.kind == "t":
            del made[change.offset :]
        else:
            made[change.offset : size] = change.data
    return bytes(made)


class Disk:
    """The files of a folder as the changes of a log make them, from nothing on."""

    def __init__(self, *, lies: bool = False) -> None:
        self._lies = lies
        self._files: dict[int, File] = {}
        self._names: dict[str, File] = {}
        self._kept: dict[str, File] = {}
        self._pending: list[tuple[Change, File]] = []

    def apply(self, change: Change) -> None:
        """Let one change happen. A disk that lies says that it has synced, and has not."""
        if change.kind in "wt":
            self._file(change).pending.append(change)
        elif change.kind == "s" and not self._lies:
            if change.first in self._names or change.first.endswith(" (deleted)"):
                self._file(change).sync()
            else:
                self._sync_folder(change.first)
        elif change.kind in "crlu":
            if change.kind == "c":
                self._files[change.inode] = File()
            file = self._file(change) if change.kind == "c" else self._names.get(change.first)
            if file is not None:
                _name(self._names, change, file)
                self._pending.append((change, file))

    def _file(self, change: Change) -> File:
        return self._files.setdefault(change.inode, File())

    def _sync_folder(self, folder: str) -> None:
        waiting = []
        for change, file in self._pending:
            if folder in {os.path.dirname(change.first), os.path.dirname(change.second)}:
                _name(self._kept, change, file)
            else:
                waiting.append((change, file))
        self._pending = waiting

    def lose_power(self, chance: random.Random, folder: Path, target: Path) -> None:
        """Write into `target` what of `folder` a loss of power at this moment may leave."""
        mode = chance.choice(MODES)
        names = dict(self._kept)
        count = {"none": 0, "all": len(self._pending)}.get(mode, chance.randint(0, len(self._pending)))
        for change, file in self._pending[:count]:
            _name(names, change, file)
        for name, file in names.items():
            if not name.endswith("-shm"):  # SQLite makes it anew
                path = target / Path(name).relative_to(folder)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.after(mode, chance))


def _name(names: dict[str, File], change: Change, file: File) -> None:
    if change.kind in "ru":
        names.pop(change.first, None)
    if change.kind in "crl":
        names[change.second or change.first] = file
