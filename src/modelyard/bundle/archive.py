"""Bundles outside a home: an OCI image layout as a folder or a .tar, written the same way each time and read with nothing beside it.

Hides the layout's files and the tar format. This is the one archive reader of the house: it never writes what it finds, and links, devices, `..`,
absolute names, case collisions, duplicates and sizes beyond the caps refuse the whole archive. It must not decide whether a bundle is good;
`bundle.open` does.
Source: OCI image-layout 1.0; POSIX.1-1988 ustar (and GNU tar's regular headers).
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from modelyard.bundle.base import BlobReader, FolderReader, digest_of
from modelyard.bundle.load import collect
from modelyard.bundle.manifest import DOCUMENT_LIMIT_BYTES
from modelyard.errors import Conflict, DigestMismatch, NotFound, PayloadTooLarge, UnsupportedFormat
from modelyard.files import make_folder, read_limited, sync_folder, translate, write_atomically
from modelyard.types import Digest, parse_digest

ENTRIES_LIMIT = 256
ARCHIVE_LIMIT_BYTES = 4 << 30
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_LAYOUT_NAME, _INDEX_NAME, _BLOBS = "oci-layout", "index.json", "blobs/sha256/"
_FOLDERS = frozenset(("blobs", "blobs/sha256"))
_BLOCK = 512


class Source:
    """One bundle alone, as a BlobReader: `index` is the digest of its index.json. Closes nothing; holds no file open."""

    def __init__(self, names: frozenset[str], layout: bytes, index: bytes) -> None:
        if layout != LAYOUT:
            raise UnsupportedFormat("oci-layout is not that of an OCI image layout 1.0.0", field=_LAYOUT_NAME)
        self.index = digest_of(index)
        self._index = index
        self._held = frozenset(_blob(name) for name in names - {_LAYOUT_NAME, _INDEX_NAME}) | {self.index}

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        """The bytes stored as `digest`, unverified. Raises NotFound, or PayloadTooLarge above `limit_bytes`."""
        if digest == self.index:
            return self._index
        if digest not in self._held:
            raise NotFound(f"the bundle has no blob {digest[:19]}…")
        return self._read(digest, limit_bytes)

    def listing(self) -> frozenset[Digest]:
        """Every digest in the layout, the index included."""
        return self._held

    def _read(self, digest: Digest, limit_bytes: int) -> bytes:
        raise NotImplementedError


class FolderSource(Source):
    """An OCI image layout in a folder that holds nothing else."""

    def __init__(self, folder: Path) -> None:
        names = frozenset(_walk(folder, folder))
        super().__init__(names, _document(folder, _LAYOUT_NAME, names), _document(folder, _INDEX_NAME, names))
        self._blobs = FolderReader(folder / "blobs")

    def _read(self, digest: Digest, limit_bytes: int) -> bytes:
        return self._blobs.read(digest, limit_bytes=limit_bytes)


class TarSource(Source):
    """An OCI image layout in an uncompressed .tar that holds nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = read_tar(path)
        for name in (_LAYOUT_NAME, _INDEX_NAME):
            if name not in self._entries:
                raise UnsupportedFormat(f"{path.name} is not a bundle: it has no {name}", field=name)
        super().__init__(frozenset(self._entries), self._part(_LAYOUT_NAME, 1024), self._part(_INDEX_NAME, DOCUMENT_LIMIT_BYTES))

    def _read(self, digest: Digest, limit_bytes: int) -> bytes:
        return self._part(_BLOBS + digest.removeprefix("sha256:"), limit_bytes)

    def _part(self, name: str, limit_bytes: int) -> bytes:
        offset, size = self._entries[name]
        if size > limit_bytes:
            raise PayloadTooLarge(f"{name} has {size:,} bytes; the limit is {limit_bytes:,}")
        with _open(self._path) as file:
            file.seek(offset)
            return file.read(size)


def source(path: Path) -> Source:
    """The bundle in `path`, a folder or a .tar; nothing but one bundle may be in it. Raises NotFound, DigestMismatch or UnsupportedFormat."""
    if not path.exists():
        raise NotFound(f"no such bundle: {path}")
    return FolderSource(path) if path.is_dir() else TarSource(path)


def find(folder: Path) -> tuple[Path, ...]:
    """The bundles that `folder` is or directly holds, a folder or a .tar each; one that holds a single folder alone is looked into. Sorted."""
    while True:
        if folder.is_file() or (folder / _LAYOUT_NAME).is_file():
            return (folder,)
        held = sorted(folder.iterdir()) if folder.is_dir() else []
        bundles = tuple(path for path in held if (path.is_file() and path.suffix == ".tar") or (path / _LAYOUT_NAME).is_file())
        if bundles or len(held) != 1:
            return bundles
        folder = held[0]


def place(source: Source, folder: Path) -> None:
    """Write every blob of the bundle in `source`, each hashed, into `folder`, by the layout that a Placement names. Raises as `collect` does."""
    reader = FolderReader(folder)
    make_folder(folder / "sha256")
    for digest, data in collect(source, source.index).blobs.items():
        write_atomically(reader.path(digest), data)


def export(blobs: BlobReader, index: Digest, target: Path) -> None:
    """Write the bundle at `index` to `target`: a .tar when its name says so, else a folder. The same bundle gives the same bytes.

    `target` appears whole or not at all. Raises Conflict when it exists, StorageFull, InvalidConfig, and as `collect` does.
    """
    if target.exists() or target.is_symlink():
        raise Conflict(f"{target} exists; choose another name or remove it")
    built = collect(blobs, index)
    files = {_LAYOUT_NAME: LAYOUT, _INDEX_NAME: built.blobs[index]}
    files |= {_BLOBS + digest.removeprefix("sha256:"): data for digest, data in sorted(built.blobs.items()) if digest != index}
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        if target.suffix == ".tar":
            _write_tar(beside, files)
        else:
            _write_folder(beside, files)
        beside.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise translate(error, target) from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        elif beside.exists():
            beside.unlink()


def read_tar(path: Path) -> dict[str, tuple[int, int]]:
    """Where each file of the .tar `path` lies: name → (offset, size). Nothing is extracted.

    Refuses the whole archive for one bad entry: links, devices, extended headers, `..`, absolute names, duplicates, names that differ in case
    alone, more than 256 entries, more bytes than there are, anything behind the end. Raises UnsupportedFormat or DigestMismatch.
    """
    entries: dict[str, tuple[int, int]] = {}
    seen: set[str] = set()
    with _open(path) as file:
        total = os.fstat(file.fileno()).st_size
        if total > ARCHIVE_LIMIT_BYTES:
            raise PayloadTooLarge(f"{path.name} has {total:,} bytes; a bundle's archive has at most {ARCHIVE_LIMIT_BYTES:,}")
        position = 0
        while True:
            header = file.read(_BLOCK)
            if len(header) < _BLOCK:
                raise DigestMismatch(f"{path.name} was cut short, or claims a size that it does not have", field=path.name, rule="truncated")
            if not header.strip(b"\0"):
                break
            name, is_folder, size = _entry(header, path.name)
            position += _BLOCK
            if name.casefold() in seen or len(seen) >= ENTRIES_LIMIT:
                raise UnsupportedFormat(f"{path.name} has too many entries, or a name twice", field=path.name, rule="duplicate")
            seen.add(name.casefold())
            if not is_folder:
                entries[name] = (position, size)
            position += -(-size // _BLOCK) * _BLOCK
            # A size that is not there ends at the file's end, where no header follows: found above. Some are too large to seek to.
            file.seek(min(position, total))
        while rest := file.read(1 << 20):
            if rest.strip(b"\0"):
                raise DigestMismatch(f"{path.name} has bytes behind its end", field=path.name, rule="unlisted")
    return entries


def _entry(header: bytes, archive: str) -> tuple[str, bool, int]:
    """(name, whether it is a folder, size) of one header block."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeError, ValueError) as error:
        raise UnsupportedFormat(f"{archive} is not a plain tar archive", field=archive, rule="tar") from error
    is_folder = info.type == tarfile.DIRTYPE
    if not is_folder and info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise UnsupportedFormat(f"{archive} holds a link, a device or another special entry", field=archive, rule="entry type")
    name = info.name.removeprefix("./").rstrip("/") if is_folder else info.name.removeprefix("./")
    if is_folder and info.size == 0 and (name in _FOLDERS or name in ("", ".")):
        return name or ".", True, 0
    parts = name.split("/")
    if is_folder or "" in parts or "." in parts or ".." in parts or "\\" in name or "\0" in name or info.size < 0:
        raise UnsupportedFormat(f"{archive} holds an entry whose name or kind has no place in a bundle", field=archive, rule="name")
    return name, False, info.size


def _blob(name: str) -> Digest:
    hexadecimal = name.removeprefix(_BLOBS)
    try:
        if name.startswith(_BLOBS):
            return parse_digest(f"sha256:{hexadecimal}")
    except DigestMismatch:
        pass
    raise DigestMismatch(f"{name[:80]!r} lies beside the bundle, and nothing in it lists it", field=name[:80], rule="unlisted")


def _walk(root: Path, folder: Path) -> Iterator[str]:
    """The relative names of all files below `root`; refuses links, devices and folders that a layout does not have."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise translate(error, folder) from error
    if len(entries) > ENTRIES_LIMIT:
        raise UnsupportedFormat(f"{root.name} has too many files for a bundle", rule="entries")
    for entry in entries:
        name = Path(entry.path).relative_to(root).as_posix()
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and name in _FOLDERS:
            yield from _walk(root, Path(entry.path))
        elif stat.S_ISREG(mode):
            yield name
        elif stat.S_ISDIR(mode):
            raise DigestMismatch(f"the folder {name[:80]!r} lies beside the bundle, and nothing in it lists it", field=name[:80], rule="unlisted")
        else:
            raise UnsupportedFormat(f"{name[:80]!r} in the bundle's folder is a link or a special file", field=name[:80], rule="entry type")


def _document(folder: Path, name: str, names: frozenset[str]) -> bytes:
    if name not in names:
        raise UnsupportedFormat(f"{folder.name} is not a bundle: it has no {name}", field=name)
    return read_limited(folder / name, DOCUMENT_LIMIT_BYTES)


def _open(path: Path) -> io.BufferedReader:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise translate(error, path) from error
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise UnsupportedFormat(f"{path.name} is neither a folder nor a file", field=path.name)
    return file


def _write_tar(path: Path, files: dict[str, bytes]) -> None:
    with path.open("xb") as file:
        with tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                archive.addfile(info, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())


def _write_folder(path: Path, files: dict[str, bytes]) -> None:
    (path / "blobs" / "sha256").mkdir(parents=True)
    for name, data in files.items():
        with (path / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(path / "blobs" / "sha256")
